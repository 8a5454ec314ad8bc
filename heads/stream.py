"""Rows that are read a block at a time, so that memory is bounded by a block and not by how many rows there are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_array

from embedder.errors import UsageError

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

BLOCK = 1024
DOUBLE_UP_TO = 5_000_000_000


@runtime_checkable
class Rows(Protocol):
    """A matrix (n, d) of float32 or float64 that can be gone through again and again, in one order."""

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """float32 or float64."""

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield (first row, rows) from the first to the last; what is yielded is not written to."""


@dataclass(frozen=True)
class InMemory:
    """Rows of an array."""

    X: Floats
    size: int = BLOCK

    @property
    def shape(self) -> tuple[int, int]:
        """How many rows, and of how many dimensions."""
        return self.X.shape[0], self.X.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """Their type."""
        return self.X.dtype

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield views."""
        for start in range(0, len(self.X), self.size):
            yield start, self.X[start : start + self.size]


class Stored:
    """Rows of a `.npy` file, such as the matrix beside an index.

    They are read and not mapped: pages of a mapped file count as this process's memory until the system wants them.
    """

    def __init__(self, path: Path, size: int = BLOCK) -> None:
        """Read the header. Raises `UsageError` where the file holds no matrix of floats in rows."""
        self.path, self.size = path, size
        with path.open("rb") as file:
            version = np.lib.format.read_magic(file)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, by_column, self.dtype = read(file)
            self._start = file.tell()
        if len(shape) != 2 or by_column or self.dtype not in (np.float32, np.float64):
            raise UsageError(f"a matrix of floats in rows is needed, not {self.dtype} {shape}", where=str(path))
        self.shape = (shape[0], shape[1])

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield each block as an array of its own."""
        n, d = self.shape
        with self.path.open("rb", buffering=0) as file:
            file.seek(self._start)
            for start in range(0, n, self.size):
                count = min(self.size, n - start)
                yield start, np.fromfile(file, self.dtype, count * d).reshape(count, d)


@dataclass(frozen=True)
class Prepared:
    """(rows - mean) / scale, in another dtype, computed a block at a time."""

    rows: Rows
    mean: NDArray[np.float64]
    scale: float
    dtype: np.dtype[Any]

    @property
    def shape(self) -> tuple[int, int]:
        """As before."""
        return self.rows.shape

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield prepared blocks."""
        mean, scale = self.mean.astype(self.rows.dtype), self.rows.dtype.type(1 / self.scale)
        for start, block in self.rows.blocks():
            yield start, ((block - mean) * scale).astype(self.dtype, copy=False)


class Chosen:
    """Those rows for which a mask (n,) is true."""

    def __init__(self, rows: Rows, mask: Mask) -> None:
        self.rows, self.mask = rows, mask
        self.shape = (int(mask.sum()), rows.shape[1])
        self.dtype = rows.dtype

    def blocks(self) -> Iterator[tuple[int, Floats]]:
        """Yield what is left of each block."""
        first = 0
        for start, block in self.rows.blocks():
            kept = self.mask[start : start + len(block)]
            if kept.any():
                yield first, block[kept]
                first += int(kept.sum())


@dataclass
class Moments:
    """Counts (C,), means (C, d) and the scatter within classes (d, d), Σ (x - μ_y)(x - μ_y)ᵀ; all float64.

    `add` takes rows in, a block or a single one at a time (Welford 1962; blocks after Chan, Golub & LeVeque 1979), and
    `remove` takes them out again exactly: both cost O(rows · d²), whatever was there before.
    """

    counts: NDArray[np.float64]
    means: NDArray[np.float64]
    scatter: NDArray[np.float64]

    @classmethod
    def none(cls, n_classes: int, d: int) -> Moments:
        """Return the moments of no rows."""
        return cls(np.zeros(n_classes), np.zeros((n_classes, d)), np.zeros((d, d)))

    @classmethod
    def of(cls, rows: Rows, y: NDArray[np.intp], n_classes: int) -> Moments:
        """Return the moments of rows with codes `y` (n,), in two passes: means, then the scatter around them.

        Sums over blocks are float64; products of large problems run in the dtype of the rows.
        """
        found, (n, d) = cls.none(n_classes, rows.shape[1]), rows.shape
        dtype = np.float64 if n * d * d <= DOUBLE_UP_TO else rows.dtype
        for start, block in rows.blocks():
            found.counts += np.bincount(y[start : start + len(block)], minlength=n_classes)
            found.means += sums(block, y[start : start + len(block)], n_classes)
        found.means /= np.maximum(found.counts, 1)[:, None]
        centres = found.means.astype(dtype)
        for start, block in rows.blocks():
            off = (block - centres[y[start : start + len(block)]]).astype(dtype, copy=False)
            found.scatter += off.T @ off
        return found

    @property
    def n(self) -> float:
        """How many rows."""
        return float(self.counts.sum())

    @property
    def mean(self) -> NDArray[np.float64]:
        """The mean of all rows, (d,)."""
        return np.asarray(self.counts @ self.means / self.n)

    @property
    def total(self) -> NDArray[np.float64]:
        """The scatter of all rows around their one mean, (d, d)."""
        off = (self.means - self.mean) * np.sqrt(self.counts)[:, None]
        return np.asarray(self.scatter + off.T @ off)

    def add(self, X: Floats, y: NDArray[np.intp]) -> None:
        """Take rows in."""
        self._change(X, y, 1.0)

    def remove(self, X: Floats, y: NDArray[np.intp]) -> None:
        """Take rows out that were taken in. Raises `ValueError` where a class has fewer."""
        if (self.counts < np.bincount(y, minlength=len(self.counts))).any():
            raise ValueError("more rows of a class to remove than there are")
        self._change(X, y, -1.0)

    def _change(self, X: Floats, y: NDArray[np.intp], sign: float) -> None:
        for c in np.unique(y):
            part = X[y == c].astype(np.float64)
            own, m, n = part.mean(axis=0), len(part), self.counts[c]
            after = n + sign * m
            spread, apart = part - own, own - self.means[c]
            between = n * m / after if after else 0.0
            self.scatter += sign * (spread.T @ spread + between * np.outer(apart, apart))
            self.means[c] = self.means[c] + sign * m / after * apart if after else 0.0
            self.counts[c] = after


def sums(block: Floats, y: NDArray[np.intp], n_classes: int) -> NDArray[np.float64]:
    """Return the sum of the rows of each class, (C, d) float64."""
    members = csr_array((np.ones(len(y)), (y, np.arange(len(y)))), shape=(n_classes, len(y)))
    return np.asarray(members @ block.astype(np.float64, copy=False))


def rows_of(X: Any) -> Rows:
    """Return rows as they are, or an array as rows."""
    if isinstance(X, Rows):
        return X
    return InMemory(X)


def rows_at(X: Floats | Rows, rows: NDArray[np.intp]) -> Floats:
    """Return some of the rows, at ascending positions."""
    if not isinstance(X, Rows):
        return np.asarray(X[rows])
    parts = [np.empty((0, X.shape[1]), dtype=X.dtype)]
    for start, block in X.blocks():
        first, last = np.searchsorted(rows, [start, start + len(block)])
        if last > first:
            parts.append(block[rows[first:last] - start])
    return np.concatenate(parts)
