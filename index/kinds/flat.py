"""Exact search: our own blocked product over the memory-mapped matrix. The oracle of every other kind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix

EXACT = True
MIN_SELECTIVITY = 0.0
FILES: tuple[str, ...] = ()
GATHER_BELOW = 0.5


@dataclass(frozen=True)
class Args:
    """`block_rows`: rows of the matrix that one product reads, so that its scores stay in the cache."""

    block_rows: int = 16_384


class Flat:
    """All scores, exactly: cosine, since rows and queries have unit length."""

    def __init__(self, matrix: FloatMatrix, args: Args | None = None) -> None:
        self.matrix, self.block = matrix, (args or Args()).block_rows

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return the `k` best rows for each query.

        Args:
            queries: (m, dim) float32, unit length.
            k: how many, at least 1.
            allowed: (n,) mask of the rows that may be answered; none means all.

        Returns:
            positions (m, k) int64 and scores (m, k) float32, best first; -1 and -inf where fewer rows are allowed.
        """
        rows = None if allowed is None else np.flatnonzero(allowed)
        if rows is not None and len(rows) < GATHER_BELOW * len(self.matrix):
            return self._blocks(queries, k, rows, None)
        return self._blocks(queries, k, None, allowed)

    def _blocks(
        self, queries: FloatMatrix, k: int, rows: NDArray[np.int64] | None, allowed: NDArray[np.bool_] | None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        total = len(self.matrix) if rows is None else len(rows)
        best = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        for start in range(0, total, self.block):
            stop = min(start + self.block, total)
            positions = np.arange(start, stop) if rows is None else rows[start:stop]
            block = self.matrix[start:stop] if rows is None else self.matrix[positions]
            found = queries @ np.ascontiguousarray(block).T
            if allowed is not None:
                found[:, ~allowed[start:stop]] = -np.inf
            best, scores = _merge(best, scores, np.broadcast_to(positions, found.shape), found, k)
        best[~np.isfinite(scores)] = -1
        return best, scores


def _merge(
    best: NDArray[np.int64], scores: FloatMatrix, positions: NDArray[np.int64], found: FloatMatrix, k: int
) -> tuple[NDArray[np.int64], FloatMatrix]:
    if found.shape[1] > k:
        top = np.argpartition(found, found.shape[1] - k, axis=1)[:, -k:]
        positions, found = np.take_along_axis(positions, top, 1), np.take_along_axis(found, top, 1)
    both, together = np.concatenate([scores, found], 1), np.concatenate([best, positions], 1)
    order = np.argsort(-both, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(together, order, 1), np.take_along_axis(both, order, 1)


def estimate_bytes(n: int, dim: int, args: Args) -> int:
    """Return the memory that a search touches: the matrix itself."""
    return n * dim * 4


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Write nothing: the matrix, which every index has, is all that this kind reads."""


def load(folder: Path, matrix: FloatMatrix, args: Args) -> Flat:
    """Search the matrix in place."""
    return Flat(matrix, args)
