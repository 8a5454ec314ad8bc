"""How much of a collection's neighbourhoods stays when the Space changes: overlap@k, with stored items as queries."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from embedder.space import Space
from index.features import Features, features
from index.search import search
from index.store import Collection
from index.view import View

QUERIES, RESAMPLES, BATCH = 200, 1000, 50


@dataclass(frozen=True)
class Overlap:
    """The mean share of an item's `k` nearest others that two Spaces agree on, 0 to 1, over `queries` stored items.

    `interval` is the 95 % bootstrap interval of the mean over the queries (percentiles of 1000 seeded resamples).
    """

    k: int
    mean: float
    interval: tuple[float, float]
    queries: int


def overlap(collection: Collection, old: Space, new: Space, *, k: int = 10, seed: int = 0) -> Overlap | None:
    """Compare exact neighbours in two Spaces; None where fewer than two items are in both.

    Queries are drawn at random from the items that both Spaces have; each Space ranks all items that it has.
    """
    one, two = features(collection, old), features(collection, new)
    common = np.intersect1d(one.keys, two.keys)
    k = min(k, len(common) - 1)
    if k < 1:
        return None
    drawn = np.sort(np.random.default_rng(seed).choice(common, size=min(QUERIES, len(common)), replace=False))
    before, after = _neighbours(collection, one, drawn, k), _neighbours(collection, two, drawn, k)
    shares = np.array([len(a & b) / k for a, b in zip(before, after, strict=True)])
    return Overlap(k, float(shares.mean()), _interval(shares, seed), len(drawn))


def _neighbours(collection: Collection, found: Features, keys: NDArray[np.int64], k: int) -> list[set[str]]:
    view, at = View(collection, found.space), np.searchsorted(found.keys, keys)
    neighbours: list[set[str]] = []
    for start in range(0, len(at), BATCH):
        rows = at[start : start + BATCH]
        queries: FloatMatrix = found.X[rows]
        answers = search(view, queries, k=k + 1, exact=True)
        for row, answer in zip(rows, answers, strict=True):
            others = [hit.id for hit in answer.hits if hit.id != found.ids[row]]
            neighbours.append(set(others[:k]))
    return neighbours


def _interval(shares: NDArray[np.float64], seed: int) -> tuple[float, float]:
    chance = np.random.default_rng(seed)
    means = chance.choice(shares, size=(RESAMPLES, len(shares))).mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)
