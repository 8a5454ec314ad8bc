"""Scores of classes in an order: how many places an answer is off, and whether the order is kept.

Quadratic weighted kappa (Cohen 1968) is 1 - Σ w O / Σ w E with w = (i - j)²: 1 - E[(y-s)²] / (E[y²] - 2 E[y] E[s] +
E[s²]) of true ranks y and said ranks s; 0 is what chance with the same shares would reach. Intervals are of 95 %,
bootstrapped over units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.controls import mean
from heads.folds import Ints
from heads.metrics import DRAWS

Floats = NDArray[np.float64]


def scores(y: Ints, said: Ints, middle: int, units: NDArray[Any], seed: int) -> dict[str, Any]:
    """Score said ranks (n,) against true ones, both from 0.

    Args:
        middle: the median rank of the training rows.

    Returns:
        with `NAME_interval`: `mae_ranks`, the mean of |true - said|; `mae_ranks_of_median`, that of always saying the
        median; `quadratic_kappa`, null where all true and said ranks are one.
    """
    off = np.abs(y - said).astype(np.float64)
    found = mean("mae_ranks", off, units, seed)
    found |= mean("mae_ranks_of_median", np.abs(y - middle).astype(np.float64), units, seed)
    at = np.unique(units, return_inverse=True)[1]
    moments = np.stack([np.bincount(at, v) for v in (np.ones(len(y)), off**2, y, said, y**2 + said**2)], axis=1)
    rng, n = np.random.default_rng(seed), len(moments)
    drawn = np.array([np.bincount(rng.integers(n, size=n), minlength=n) for _ in range(DRAWS)])
    kappa, many = _kappa(moments.sum(axis=0)[None])[0], _kappa(drawn @ moments)
    if np.isnan(kappa):
        return {**found, "quadratic_kappa": None, "quadratic_kappa_interval": None}
    interval = np.nanquantile(many, [0.025, 0.975]).tolist()
    return {**found, "quadratic_kappa": float(kappa), "quadratic_kappa_interval": interval}


def _kappa(sums: Floats) -> Floats:
    n, wrong, true, said, squares = sums.T
    expected = squares / n - 2 * (true / n) * (said / n)
    return np.where(expected > 1e-12, 1 - (wrong / n) / np.maximum(expected, 1e-12), np.nan)
