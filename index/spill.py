"""Vectors on disk for as long as they are needed: a file without a name, which is gone when it is closed or killed."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix

BLOCK = 4096


class Spilled:
    """A matrix (n, dim) float32 that is read a block at a time, or at some rows.

    Blocks are read and not mapped, since mapped pages count as this process's memory until the system wants them;
    `array` maps the file, for a few rows out of many.
    """

    dtype: np.dtype[Any] = np.dtype(np.float32)

    def __init__(self, shape: tuple[int, int], folder: Path) -> None:
        """Make room for it, all zeros, in a folder of a disk that has n · dim · 4 bytes free."""
        self.shape, self._folder = shape, folder
        self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._file.truncate(max(1, shape[0] * shape[1] * 4))
        self.array: FloatMatrix = np.memmap(self._file, dtype=np.float32, mode="r+", shape=shape)

    def write(self, places: NDArray[np.int64], rows: FloatMatrix) -> None:
        """Put rows at their places."""
        cuts = np.flatnonzero(np.diff(places) != 1) + 1
        for at, part in zip(np.split(places, cuts), np.split(rows, cuts), strict=True):
            if len(at):
                os.pwrite(
                    self._file.fileno(),
                    np.ascontiguousarray(part, dtype=np.float32).data,
                    int(at[0]) * self.shape[1] * 4,
                )

    def blocks(self) -> Iterator[tuple[int, FloatMatrix]]:
        """Yield (first row, rows), each an array of its own."""
        n, dim = self.shape
        for start in range(0, n, BLOCK):
            rows = np.empty((min(BLOCK, n - start), dim), dtype=np.float32)
            view, at = rows.data.cast("B"), start * dim * 4
            while len(view):
                got = os.preadv(self._file.fileno(), [view], at)
                view, at = view[got:], at + got
            yield start, rows

    def taken(self, rows: NDArray[np.intp]) -> Spilled:
        """Return some of the rows, at ascending positions, as a file of their own; this one where it is all of them."""
        if len(rows) == self.shape[0]:
            return self
        found, first = Spilled((len(rows), self.shape[1]), self._folder), 0
        for start, block in self.blocks():
            here = rows[slice(*np.searchsorted(rows, [start, start + len(block)]))] - start
            found.write(np.arange(first, first + len(here)), block[here])
            first += len(here)
        return found
