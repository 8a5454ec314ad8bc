"""Near-duplicates among the rows of a task: copies that differ by a resize or a comma must not sit on both sides.

Vectors are compared after their mean is taken away (Mu & Viswanath 2018, arXiv:1702.01417), because in many Spaces all
cosines are near one; then unrelated items have cosines around 0 in every Space, and one threshold means the same.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.stats import beta

from embedder.records import FloatMatrix
from heads.folds import Ints, distinct
from index.view import unit

THRESHOLD, STEPS = 0.97, (0.98, 0.99, 0.995, 0.998, 0.999, 0.9995)
BY_CHANCE = 0.01
NORMAL_QUARTILE = 0.6744897501960817
LEAST_GROUPS = 5
UP_TO = 20_000
TILE = 1024
PAIRS = 20_000


def near_duplicates(X: FloatMatrix, y: Ints, hashes: Sequence[str]) -> tuple[NDArray[np.int64], float]:
    """Label rows so that near-duplicates, directly or through others, have one label; return the threshold too.

    The threshold is that of the Space (`threshold`). A class that it would leave in fewer than five groups is tight
    rather than copied: its rows are grouped anew at the next higher threshold, until five groups remain or only
    exact copies are joined. Above 20,000 rows nothing is compared: labels are those of `hashes`, the threshold is 1.

    Args:
        X: (n, dim) vectors.
        y: (n,) codes of classes.
        hashes: (n,) content hashes; equal ones are always joined.
    """
    content = distinct(hashes)[1].astype(np.int64)
    if len(X) > UP_TO or not len(X):
        return content, 1.0
    rows = unit(np.asarray(X - X.mean(axis=0, dtype=np.float64), dtype=np.float32))
    first = threshold(rows)
    labels = np.full(len(rows), -1, dtype=np.int64)
    pending = np.arange(len(rows))
    for least in [first, *(step for step in STEPS if step > first)]:
        found = groups(rows[pending], content[pending], least)
        classes = [np.flatnonzero(y[pending] == c) for c in np.unique(y[pending])]
        spread = [
            part for part in classes
            if len(np.unique(found[part])) >= min(LEAST_GROUPS, len(np.unique(content[pending][part])))
        ]  # fmt: skip
        settled = np.concatenate([*spread, np.empty(0, dtype=np.intp)]).astype(np.intp)
        labels[pending[settled]] = labels.max() + 1 + found[settled]
        pending = np.delete(pending, settled)
        if not len(pending):
            break
    labels[pending] = labels.max() + 1 + content[pending]
    return _joined(labels, content), first


def threshold(rows: FloatMatrix) -> float:
    """Return the least cosine of near-duplicates among unit rows (n, dim) whose mean was taken away.

    It is 0.97, or more where chance alone would reach that: in a Space of effective dimension d an unrelated item is as
    near as the threshold with probability below 1 % among n, by the law of the cosine of random directions,
    (1 + cos)/2 ~ Beta((d-1)/2, (d-1)/2). d is (0.6745 / median of |cos|)² over random pairs, which copies and classes
    that hold few of the pairs do not move.
    """
    n = len(rows)
    rng = np.random.default_rng(0)
    left, right = rng.integers(n, size=PAIRS), rng.integers(n, size=PAIRS)
    cosines = np.einsum("ij,ij->i", rows[left], rows[right])[left != right]
    if not len(cosines):
        return THRESHOLD
    effective = (NORMAL_QUARTILE / max(float(np.median(np.abs(cosines))), 1e-6)) ** 2
    half = max((effective - 1) / 2, 0.25)
    return float(min(max(THRESHOLD, 2 * beta.isf(BY_CHANCE / n, half, half) - 1), STEPS[-1]))


def groups(rows: FloatMatrix, content: NDArray[np.int64], least: float) -> NDArray[np.int64]:
    """Label unit rows (n, dim) by connected components: an edge where the cosine is at least `least`, or content equal.

    Tiles of the product are joined as they come, so memory does not grow with the square of n.
    """
    labels = np.unique(content, return_inverse=True)[1].astype(np.int64)
    for start in range(0, len(rows), TILE):
        for other in range(start, len(rows), TILE):
            left, right = np.nonzero(rows[start : start + TILE] @ rows[other : other + TILE].T >= least)
            labels = _merge(labels, left + start, right + other)
    return labels


def _merge(labels: NDArray[np.int64], left: NDArray[np.int64], right: NDArray[np.int64]) -> NDArray[np.int64]:
    a, b = labels[left], labels[right]
    if not (a != b).any():
        return labels
    size = int(labels.max()) + 1
    graph = coo_array((np.ones(len(a), dtype=np.int8), (a, b)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1], dtype=np.int64)[labels]


def _joined(labels: NDArray[np.int64], content: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return labels in which rows of one content are together, also where classes were grouped apart."""
    n, size = len(labels), len(labels) + int(labels.max()) + int(content.max()) + 2
    rows = np.arange(n)
    ends = np.concatenate([n + labels, n + int(labels.max()) + 1 + content])
    graph = coo_array((np.ones(2 * n, dtype=np.int8), (np.tile(rows, 2), ends)), shape=(size, size))
    return np.asarray(connected_components(graph, directed=False)[1][:n], dtype=np.int64)
