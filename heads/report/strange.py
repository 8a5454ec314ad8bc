"""How strange each item is, beside a reference: distance to its k-th neighbour (Sun et al. 2022), as a percentile."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import euclidean_distances
from sklearn.neighbors import NearestNeighbors

from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.report.twosample import Floats, Sample
from heads.report.verdict import Interval

NEIGHBOURS = 5
MOST_FIT, MOST_CALIBRATED, BLOCK = 2000, 2000, 500
OUTSIDE, DRAWS = 0.05, 500


@dataclass(frozen=True)
class Strange:
    """Items in the order given.

    Attributes:
        distance: (n,) to the 5th nearest row of one half of the reference.
        percentile: (n,) share of the reference's other half that is at least as far out, in (0, 1]: small is strange.
        outside: share of the items below the 5 % percentile; 0.05 where they are drawn as the reference is.
        interval: of `outside`, 95 %, bootstrapped over units of the items and of the reference's half.
        order: positions, the strangest first.
    """

    distance: Floats
    percentile: Floats
    outside: float
    interval: Interval
    order: Ints


def against(X: FloatMatrix, units: Ints, reference: Sample, rng: np.random.Generator) -> Strange:
    """Rank items by how far outside the reference they are; disjoint units of it are compared with and calibrate."""
    most_of = (MOST_FIT, MOST_CALIBRATED)
    fit, held = (half.at_most(most, rng) for half, most in zip(reference.halves(rng), most_of, strict=True))
    k = min(NEIGHBOURS, len(fit))
    tree = NearestNeighbors(n_neighbors=k, algorithm="brute").fit(fit.X)
    distance, known = (tree.kneighbors(np.asarray(rows, dtype=np.float64))[0][:, -1] for rows in (X, held.X))
    percentile = percentiles(distance, known)
    beyond = _Beyond(distance, units, known, held.units)
    order = np.lexsort([np.arange(len(distance)), -distance]).astype(np.intp)
    return Strange(distance, percentile, float((percentile <= OUTSIDE).mean()), beyond.interval(rng), order)


def percentiles(scores: Floats, calibration: Floats) -> Floats:
    """Return (1 + #{calibration >= score}) / (n + 1): at most p with probability p for a row drawn as they are."""
    ranked = np.sort(calibration)
    return np.asarray((1 + len(ranked) - np.searchsorted(ranked, scores, side="left")) / (len(ranked) + 1))


@dataclass(frozen=True)
class _Beyond:
    distance: Floats
    units: Ints
    known: Floats
    known_units: Ints

    def interval(self, rng: np.random.Generator) -> Interval:
        shares = [self._draw(rng) for _ in range(DRAWS)]
        low, high = np.quantile(shares, [0.025, 0.975]).tolist()
        return low, high

    def _draw(self, rng: np.random.Generator) -> float:
        weight, known_weight = _counts(self.units, rng), _counts(self.known_units, rng)
        percentile = percentiles(self.distance, np.repeat(self.known, known_weight))
        return float(np.average(percentile <= OUTSIDE, weights=weight))


def _counts(units: Ints, rng: np.random.Generator) -> NDArray[np.int64]:
    n = int(units.max()) + 1
    return np.asarray(np.bincount(rng.integers(n, size=n), minlength=n)[units])


def within(X: FloatMatrix, units: Ints, rng: np.random.Generator) -> Ints:
    """Return positions, the strangest first: far from the 5th nearest row of another unit among 2,000 of the items."""
    bank = np.sort(rng.permutation(len(X))[:MOST_FIT])
    chunks = (slice(start, start + BLOCK) for start in range(0, len(X), BLOCK))
    distance = np.concatenate([_to_others(X[rows], units[rows], X[bank], units[bank]) for rows in chunks])
    return np.lexsort([np.arange(len(X)), -distance]).astype(np.intp)


def _to_others(X: FloatMatrix, units: Ints, bank: FloatMatrix, bank_units: Ints) -> Floats:
    distance = euclidean_distances(np.asarray(X, dtype=np.float64), np.asarray(bank, dtype=np.float64))
    distance[units[:, None] == bank_units] = np.inf
    k = min(NEIGHBOURS, distance.shape[1]) - 1
    nearest = np.sort(np.partition(distance, k, axis=1)[:, : k + 1], axis=1)
    reached = np.isfinite(nearest).sum(axis=1)
    return np.where(reached > 0, nearest[np.arange(len(X)), np.maximum(reached - 1, 0)], 0.0)
