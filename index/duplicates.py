"""Near-duplicates: groups of vectors in which every one is close to at least one other (connected components).

Vectors are compared by blocked products, so that the memory does not grow with the square of their number; copies of
one content are joined first and compared once. What is found is exact, unless an index proposed the pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from index.view import unit

THRESHOLD = 0.97
TILE_ROWS, TILE_COLUMNS = 1024, 4096
NEIGHBOURS = 64
Labels = NDArray[np.int64]


class Finder(Protocol):
    """What proposes neighbours of vectors: an index over the rows that are compared."""

    def search(self, queries: FloatMatrix, k: int) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return positions (m, k), -1 where there are fewer, and scores (m, k)."""


def near_duplicate_groups(
    matrix: FloatMatrix,
    threshold: float = THRESHOLD,
    *,
    hashes: Sequence[str] | None = None,
    finder: Finder | None = None,
) -> Labels:
    """Label rows so that two rows have one label exactly when a chain of near pairs joins them.

    Args:
        matrix: (n, dim) float32 vectors of any length but zero; a row that is not finite is in no pair.
        threshold: least cosine of a near pair, above 0 and up to 1.
        hashes: (n,) content hashes; rows of one hash are joined whatever their vectors are.
        finder: an index over the same rows in the same order, which proposes pairs; none means every pair is compared.

    Returns:
        (n,) int64 labels: the lowest row of the group, so a row that is like no other has its own number.

    Raises:
        UsageError: a threshold out of range, or another number of hashes than rows.
    """
    check_threshold(threshold)
    rows = unit(np.asarray(matrix, dtype=np.float32)) if len(matrix) else np.empty((0, 1), dtype=np.float32)
    if hashes is not None and len(hashes) != len(rows):
        raise UsageError(f"{len(hashes)} content hashes for {len(rows)} vectors")
    labels = same_content(hashes) if hashes is not None else np.arange(len(rows), dtype=np.int64)
    for left, right in _found_pairs(rows, threshold, finder) if finder else _all_pairs(rows, threshold):
        sure = _surely(matrix, left, right, threshold)
        labels = join(labels, left[sure], right[sure])
    return labels


def check_threshold(threshold: float) -> None:
    """Raise `UsageError` for a threshold that is not above 0 and up to 1."""
    if not 0 < threshold <= 1:
        raise UsageError(f"the threshold is a cosine above 0 and up to 1, not {threshold}", hint="0.97 is the default")


def same_content(hashes: Sequence[str]) -> Labels:
    """Return (n,) labels of rows by content hash: the first row of each."""
    _, first, inverse = np.unique(np.asarray(hashes, dtype=object), return_index=True, return_inverse=True)
    return np.asarray(first[inverse], dtype=np.int64)


def join(labels: Labels, left: Labels, right: Labels) -> Labels:
    """Return labels in which the groups of each pair are one group, named by its lowest row."""
    a, b = labels[left], labels[right]
    different = a != b
    if not different.any():
        return labels
    ends = np.unique(np.stack([a[different], b[different]], axis=1), axis=0)
    nodes, at = np.unique(ends, return_inverse=True)
    at = at.reshape(ends.shape)
    graph = coo_array((np.ones(len(ends), dtype=np.int8), (at[:, 0], at[:, 1])), shape=(len(nodes), len(nodes)))
    _, component = connected_components(graph, directed=False)
    lowest = np.full(component.max() + 1, np.iinfo(np.int64).max)
    np.minimum.at(lowest, component, nodes)
    renamed = np.arange(len(labels), dtype=np.int64)
    renamed[nodes] = lowest[component]
    return renamed[labels]


def _all_pairs(rows: FloatMatrix, threshold: float) -> Iterator[tuple[Labels, Labels]]:
    for i in range(0, len(rows), TILE_ROWS):
        block = rows[i : i + TILE_ROWS]
        for j in range(i, len(rows), TILE_COLUMNS):
            left, right = np.nonzero(block @ rows[j : j + TILE_COLUMNS].T >= _slack(threshold))
            kept = left + i < right + j
            if kept.any():
                yield left[kept] + i, right[kept] + j


def _found_pairs(rows: FloatMatrix, threshold: float, finder: Finder) -> Iterator[tuple[Labels, Labels]]:
    """Yield the pairs that an index proposes; a row whose whole answer is near is asked again for more."""
    for start in range(0, len(rows), TILE_ROWS):
        asked = np.arange(start, min(start + TILE_ROWS, len(rows)))
        k = min(NEIGHBOURS, len(rows))
        while len(asked):
            positions, _ = finder.search(np.ascontiguousarray(rows[asked]), k)
            scores = np.einsum("mcd,md->mc", rows[np.clip(positions, 0, None)], rows[asked])
            near = (positions >= 0) & (scores >= _slack(threshold))
            at, column = np.nonzero(near)
            yield asked[at], positions[at, column]
            asked = asked[near.sum(axis=1) >= k] if k < len(rows) else asked[:0]
            k = min(4 * k, len(rows))


def _slack(threshold: float) -> float:
    """Return the threshold less the rounding of a float32 product."""
    return threshold - 1e-6


def _surely(matrix: FloatMatrix, left: Labels, right: Labels, threshold: float) -> NDArray[np.bool_]:
    """Return a mask of the pairs whose cosine in double precision reaches the threshold."""
    kept = np.zeros(len(left), dtype=bool)
    for start in range(0, len(left), TILE_COLUMNS):
        at = slice(start, start + TILE_COLUMNS)
        a, b = (np.asarray(matrix[side[at]], dtype=np.float64) for side in (left, right))
        norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
        # the rounding of two norms must not part copies at a threshold of 1
        kept[at] = np.vecdot(a, b) >= threshold * norms - 1e-12
    return kept
