"""Exact search: our own blocked product over the memory-mapped matrix. The oracle of every other kind.

On a machine with a GPU that has room for the matrix, the matrix is copied there once and searched there.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedder import machine
from embedder.records import FloatMatrix
from index.kinds import _cost, _torch

EXACT = True
AUTO = True
MIN_SELECTIVITY = 0.0
FILES: tuple[str, ...] = ()
GATHER_BELOW = 0.5
CACHED_SCORES = 1 << 19
GROUP = 64
SMALL, FEW_CORES = 1 << 22, 2


@dataclass(frozen=True)
class Args:
    """`block_rows`: the most rows of the matrix that one product reads, so that its scores stay in the cache."""

    block_rows: int = 16_384


class Flat:
    """All scores, exactly: cosine, since rows and queries have unit length."""

    def __init__(self, matrix: FloatMatrix, args: Args | None = None) -> None:
        self.matrix, self.args = matrix, args or Args()

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
        alone = len(queries) == 1 and (self.matrix.size <= SMALL or machine.cores() <= FEW_CORES)
        step = min(self.args.block_rows, max(2048, CACHED_SCORES // max(1, len(queries))))
        for start in range(0, total, step):
            stop = min(start + step, total)
            block = self.matrix[start:stop] if rows is None else self.matrix[rows[start:stop]]
            found = _row_by_row(queries[0], block) if alone else queries @ np.ascontiguousarray(block).T
            if allowed is not None:
                found[:, ~allowed[start:stop]] = -np.inf
            columns, values = _top(found, k, scores[:, -1])
            positions = columns + start if rows is None else rows[start + columns]
            best, scores = _merge(best, scores, positions, values, k)
        best[~np.isfinite(scores)] = -1
        return best, scores


def _row_by_row(query: NDArray[np.float32], block: FloatMatrix) -> FloatMatrix:
    """Return the inner products (1, rows) of one query, on one thread: 5.9 ms for 100,000 x 384.

    As a product BLAS takes 13.1 on one thread and 7.4 on two, and its waiting threads slow down what runs beside them.
    """
    return np.asarray(np.vecdot(block, query)[None])


def _top(found: FloatMatrix, k: int, floor: FloatMatrix) -> tuple[NDArray[np.int64], FloatMatrix]:
    """Return the columns and scores of the `k` best of each row, and maybe some more, padded with -inf.

    The k-th best of the largest scores of groups is at most the k-th best score. Comparing with it, or with the k-th
    best of earlier blocks (`floor`), leaves few scores to sort, in two passes that cost far less than a partial sort.
    """
    groups = found.shape[1] // GROUP
    bound = np.nextafter(floor, np.float32(np.inf), dtype=np.float32)
    if groups >= k:
        largest = found[:, : groups * GROUP].reshape(len(found), GROUP, groups).max(axis=1)
        bound = np.maximum(bound, np.partition(largest, groups - k, axis=1)[:, groups - k])
    # a score of -inf is a row that is not allowed
    bound = np.maximum(bound, np.finfo(np.float32).min)
    rows, columns = np.divmod(np.flatnonzero(found >= bound[:, None]), found.shape[1])
    counts = np.bincount(rows, minlength=len(found))
    width = int(counts.max(initial=0))
    if width > 8 * k + GROUP:
        best = np.argpartition(found, found.shape[1] - k, axis=1)[:, -k:] if found.shape[1] > k else None
        best = np.broadcast_to(np.arange(found.shape[1]), found.shape) if best is None else best
        return best, np.take_along_axis(found, best, 1)
    at = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
    out, values = np.zeros((len(found), width), np.int64), np.full((len(found), width), -np.inf, np.float32)
    out[rows, at], values[rows, at] = columns, found[rows, columns]
    return out, values


def _merge(
    best: NDArray[np.int64], scores: FloatMatrix, positions: NDArray[np.int64], found: FloatMatrix, k: int
) -> tuple[NDArray[np.int64], FloatMatrix]:
    both, together = np.concatenate([scores, found], 1), np.concatenate([best, positions], 1)
    order = np.argsort(-both, axis=1, kind="stable")[:, :k]
    return np.take_along_axis(together, order, 1), np.take_along_axis(both, order, 1)


def estimate(n: int, dim: int, args: Args) -> _cost.Estimate:
    """Return the cost: the matrix itself, read once a query."""
    return _cost.Estimate(n * dim * 4, 0, 0.0, 0.01 + n * dim * 4 / 8e6)


def tunable(n: int, args: Args) -> dict[str, tuple[int, ...]]:
    """Return nothing: all rows are always read."""
    return {}


def build(matrix: FloatMatrix, folder: Path, args: Args) -> None:
    """Write nothing: the matrix, which every index has, is all that this kind reads."""


def load(folder: Path, matrix: FloatMatrix, args: Args) -> Flat | _torch.OnDevice:
    """Search the matrix in place, or on a GPU that has room for it."""
    device = _torch.device_for(matrix)
    return Flat(matrix, args) if device is None else _torch.OnDevice(matrix, args, device)
