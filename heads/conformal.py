"""Prediction sets: every class that is at least as likely as calibration asks, so that the true one is among them.

Split conformal with the LAC score 1 - p_y (Sadinle et al. 2019, arXiv:1609.00451; Vovk et al. 2005). From n scores,
1 - alpha <= P(y in set) <= 1 - alpha + 1/(n+1) over exchangeable rows (the upper bound without ties).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.folds import Ints, assign

Floats = NDArray[np.float64]
FOLDS = 5
EXACT = "split conformal: holds for rows like the test rows, at any size"
FOLDED = "cross-conformal: scores come from folds, the sets from the head of all rows; close in practice, no proof"


@dataclass(frozen=True)
class Sets:
    """A set holds class c where 1 - p_c <= `most[c]`; infinity takes the class always. `per_class` is Mondrian."""

    coverage: float
    per_class: bool
    most: tuple[float, ...]

    def mask(self, probabilities: Floats) -> NDArray[np.bool_]:
        """Return (n, C): which classes are in each row's set. It may be empty: no class is likely enough."""
        return np.asarray(1 - probabilities <= np.array(self.most))

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values; infinity is null."""
        most = [value if np.isfinite(value) else None for value in self.most]
        return {"coverage": self.coverage, "per_class": self.per_class, "most": most}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Sets:
        """Return what `as_json` wrote."""
        most = tuple(float("inf") if value is None else float(value) for value in facts["most"])
        return cls(float(facts["coverage"]), bool(facts["per_class"]), most)


def quantile(scores: Floats, coverage: float) -> float:
    """Return the k-th smallest of n scores, k = ⌈(n+1)·coverage⌉; infinity where k > n: too few rows to promise it."""
    # a coverage such as 0.9 is no exact float, and 10·0.9 must not round up to 10
    k = int(np.ceil((len(scores) + 1) * coverage - 1e-9))
    return float("inf") if k > len(scores) else float(np.partition(scores, k - 1)[k - 1])


def fit(probabilities: Floats, y: Ints, coverage: float, *, per_class: bool = False) -> Sets:
    """Fit sets to probabilities (n, C) of rows that the head was not fitted to, and their codes y (n,).

    With `per_class` each class has a quantile of its own (Mondrian), so that the promise holds for every class; a class
    with fewer than ⌈1/alpha⌉ - 1 rows is in every set.
    """
    scores, C = 1 - probabilities[np.arange(len(y)), y], probabilities.shape[1]
    if per_class:
        return Sets(coverage, True, tuple(quantile(scores[y == c], coverage) for c in range(C)))
    return Sets(coverage, False, (quantile(scores, coverage),) * C)


def measured(
    probabilities: Floats, y: Ints, units: Sequence[str], coverage: float, *, per_class: bool = False, seed: int = 0
) -> tuple[NDArray[np.bool_], NDArray[np.intp]]:
    """Return whether the true class is in each row's set and the set's size; rows of other units fitted the set."""
    fold, rows = assign(units, y, FOLDS, seed), np.arange(len(y))
    inside = np.zeros(probabilities.shape, dtype=bool)
    for k in np.unique(fold):
        others = fold != k
        inside[~others] = fit(probabilities[others], y[others], coverage, per_class=per_class).mask(
            probabilities[~others]
        )
    return inside[rows, y], inside.sum(axis=1)
