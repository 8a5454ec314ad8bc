"""Scores of several classes an item: F1 of what was said, average precision of how they were ranked.

Intervals are of 95 %: Wilson's over units for the share of items whose classes are all right, else bootstrapped over
units, 500 seeded draws.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from heads.controls import mean, share
from heads.folds import Ints
from heads.metrics import BINS, ece
from heads.tags import losses

Floats = NDArray[np.float64]
DRAWS, AT_ONCE = 500, 25


def scores(Y: Ints, P: Floats, said: NDArray[np.bool_], units: NDArray[Any], seed: int) -> tuple[dict[str, Any], Any]:
    """Score held-out probabilities P (n, C) and classes that were said (n, C) against Y (n, C).

    Returns:
        plain numbers by name with `NAME_interval`: `micro_f1` (over all pairs of item and class), `macro_f1` (mean over
        classes that occur or are said), `mean_average_precision` (over classes that occur), `subset_accuracy` (all of
        an item's classes right), `hamming_loss` (share of pairs wrong), `log_loss` (nats a pair), `ece` (of all pairs);
        and for each class `average_precision` with its interval, null where it does not occur.
    """
    unit = np.unique(units, return_inverse=True)[1]
    n_units = int(unit.max()) + 1
    rng = np.random.default_rng(seed)
    draws = np.array([np.bincount(rng.integers(n_units, size=n_units), minlength=n_units) for _ in range(DRAWS)])
    found = _f1s(Y == 1, said, unit, draws)
    each, drawn = average_precision(Y, P), _drawn(Y, P, draws[:, unit])
    occurs = ~np.isnan(each)
    found |= _with("mean_average_precision", float(each[occurs].mean()), _meaned(drawn[:, occurs]))
    found |= share("subset_accuracy", (said == (Y == 1)).all(axis=1), units)
    wrong = (said != (Y == 1)).mean(axis=1)
    found |= mean("hamming_loss", wrong, units, seed) | mean("log_loss", losses(P, Y), units, seed)
    found |= calibration_error(Y, P, unit, draws)
    table = [
        _with("average_precision", float(value), column) if ok else _nothing("average_precision")
        for value, column, ok in zip(each, drawn.T, occurs, strict=True)
    ]
    return found, table


def average_precision(Y: Ints, P: Floats, weights: Floats | None = None) -> Floats:
    """Return Σ (R_k - R_(k-1)) · precision_k of each class over its distinct scores, as scikit-learn computes it.

    Args:
        weights: (D, n), of the rows in each of D draws; none means one draw of ones.

    Returns:
        (C,), or (D, C); NaN where no row of weight has the class.
    """
    drawn = np.ones((1, len(Y))) if weights is None else weights
    found = np.full((len(drawn), Y.shape[1]), np.nan)
    for c in range(Y.shape[1]):
        order = np.argsort(-P[:, c], kind="stable")
        last = np.flatnonzero(np.append(np.diff(P[order, c]) != 0, True))
        held = drawn[:, order]
        named = np.cumsum(held, axis=1)[:, last]
        hits = np.cumsum(held * Y[order, c], axis=1)[:, last]
        steps = np.diff(hits, axis=1, prepend=0)
        some = hits[:, -1] > 0
        area = (steps * hits / np.maximum(named, 1e-12)).sum(axis=1)
        found[some, c] = area[some] / hits[some, -1]
    return found[0] if weights is None else found


def _drawn(Y: Ints, P: Floats, weights: NDArray[np.int64]) -> Floats:
    parts = [average_precision(Y, P, weights[at : at + AT_ONCE].astype(float)) for at in range(0, DRAWS, AT_ONCE)]
    return np.concatenate(parts)


def _f1s(true: NDArray[np.bool_], said: NDArray[np.bool_], unit: Ints, draws: NDArray[np.int64]) -> dict[str, Any]:
    n_units, C = draws.shape[1], true.shape[1]
    hits, sizes = np.zeros((n_units, C)), np.zeros((n_units, C))
    np.add.at(hits, unit, true & said)
    np.add.at(sizes, unit, true.astype(float) + said)
    together = np.concatenate([np.ones((1, n_units)), draws])
    two_hits, total = 2 * together @ hits, together @ sizes
    micro = two_hits.sum(axis=1) / np.maximum(total.sum(axis=1), 1)
    named = total > 0
    macro = np.where(named, two_hits / np.maximum(total, 1), 0).sum(axis=1) / np.maximum(named.sum(axis=1), 1)
    return _with("micro_f1", micro[0], micro[1:]) | _with("macro_f1", macro[0], macro[1:])


def calibration_error(Y: Ints, P: Floats, unit: Ints, draws: NDArray[np.int64]) -> dict[str, Any]:
    """Return `ece` over all pairs of item and class, in 15 equal bins, with `heads.metrics.ece`'s interval."""
    bins = np.minimum((P * BINS).astype(np.intp), BINS - 1)
    misfit = np.zeros((draws.shape[1], BINS))
    np.add.at(misfit, (unit[:, None], bins), P - Y)
    rows = np.bincount(unit)
    gaps = draws @ misfit / (draws @ rows * Y.shape[1])[:, None]
    return ece(misfit.sum(axis=0) / Y.size, gaps)


def _meaned(drawn: Floats) -> Floats:
    there = ~np.isnan(drawn)
    return np.asarray(np.where(there, drawn, 0).sum(axis=1) / np.maximum(there.sum(axis=1), 1))


def _with(name: str, value: Any, drawn: Floats) -> dict[str, Any]:
    return {name: float(value), f"{name}_interval": np.nanquantile(drawn, [0.025, 0.975]).tolist()}


def _nothing(name: str) -> dict[str, Any]:
    return {name: None, f"{name}_interval": None}
