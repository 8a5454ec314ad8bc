"""Scores of held-out predictions, each with a 95 % interval, beside the majority class.

Shares of items (`accuracy`, `majority`, `top_5`) have Wilson's interval; the others are bootstrapped over units, 1,000
seeded draws. A unit is an item, or the items that belong together: those are drawn together, and Wilson counts units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Codes = NDArray[np.intp]
Floats = NDArray[np.float64]

Z95 = 1.959963984540054
DRAWS = 1000
BINS = 15
TOP = 5
TINY = float(np.finfo(np.float64).eps)
BOOTSTRAPPED = ("balanced_accuracy", "macro_f1", "log_loss", "brier", "gain_over_majority")


def scores(
    y: Codes, probabilities: Floats, majority: int, *, units: NDArray[Any] | None = None, seed: int = 0
) -> dict[str, Any]:
    """Score predictions on items that the head never saw.

    Args:
        y: (n,) true classes as codes.
        probabilities: (n, C), C >= 2, rows sum to one.
        majority: the code of the class that is commonest among the training rows.
        units: (n,) values that are equal where rows belong together; none means each row by itself.

    Returns:
        plain numbers by name, unrounded, with `NAME_interval` [low, high]: `accuracy`, `majority` (always saying the
        commonest class), `gain_over_majority` (paired), `top_5` (with more than 5 classes; a tie at the fifth place is
        a miss), `balanced_accuracy` (mean recall of the classes that occur), `macro_f1` (over the classes that occur or
        are predicted), `log_loss` (nats; a probability below 2.2e-16 counts as that), `brier` (summed over classes: 0
        to 2), `ece` (of the top probability, 15 equal bins).
    """
    held = _Held(y, probabilities, majority)
    unit = np.arange(len(y)) if units is None else np.unique(units, return_inverse=True)[1]
    n_units = int(unit.max()) + 1
    found: dict[str, Any] = {}
    for name, hits in held.shares.items():
        found[name] = float(hits.mean())
        found[f"{name}_interval"] = wilson(found[name], n_units)
    value = held.weighted(np.ones(len(y)))
    rng = np.random.default_rng(seed)
    drawn = (np.bincount(rng.integers(n_units, size=n_units), minlength=n_units) for _ in range(DRAWS))
    draws = np.array([held.weighted(counts[unit].astype(np.float64)) for counts in drawn])
    for k, name in enumerate(BOOTSTRAPPED):
        found[name] = float(value[k])
        found[f"{name}_interval"] = np.quantile(draws[:, k], [0.025, 0.975]).tolist()
    return found | ece(value[len(BOOTSTRAPPED) :], draws[:, len(BOOTSTRAPPED) :])


def wilson(share: float, n: int) -> list[float]:
    """Return Wilson's 95 % score interval of a share of `n`, within [0, 1] (Wilson 1927, JASA 22:209)."""
    z2 = Z95 * Z95
    centre = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = Z95 / (1 + z2 / n) * float(np.sqrt(share * (1 - share) / n + z2 / (4 * n * n)))
    return [max(0.0, centre - half), min(1.0, centre + half)]


class _Held:
    """Predictions, ready to be scored under many weightings. `shares` has a mask of hits (n,) for each share."""

    def __init__(self, y: Codes, probabilities: Floats, majority: int) -> None:
        own = probabilities[np.arange(len(y)), y]
        self.y, self.predicted = y, probabilities.argmax(axis=1)
        self.right = self.predicted == y
        self.shares = {"accuracy": self.right, "majority": y == majority}
        if probabilities.shape[1] > TOP:
            self.shares["top_5"] = (probabilities >= own[:, None]).sum(axis=1) <= TOP
        brier = (probabilities**2).sum(axis=1) - 2 * own + 1
        self.each = np.stack([-np.log(np.maximum(own, TINY)), brier, self.right.astype(float) - (y == majority)])
        confidence = probabilities.max(axis=1)
        self.bins = np.minimum((confidence * BINS).astype(np.intp), BINS - 1)
        self.misfit = confidence - self.right
        self.size = probabilities.shape[1]

    def weighted(self, w: Floats) -> Floats:
        """Return the `BOOTSTRAPPED` scores under a weight for each row, then each bin's calibration gap.

        A gap is the bin's share of the rows times (mean confidence - accuracy); ECE is the sum of their sizes.
        """
        support, said = np.bincount(self.y, w, self.size), np.bincount(self.predicted, w, self.size)
        hits = np.bincount(self.y, w * self.right, self.size)
        occurs, named = support > 0, support + said > 0
        recall = (hits[occurs] / support[occurs]).mean()
        f1 = (2 * hits[named] / (support + said)[named]).mean()
        gaps = np.bincount(self.bins, w * self.misfit, BINS) / w.sum()
        return np.concatenate([[recall, f1], self.each @ w / w.sum(), gaps])


def ece(gaps: Floats, draws: Floats) -> dict[str, Any]:
    """Return ECE (Guo et al. 2017) and ECE ± the 95 % quantile of Σ|gap in a draw - gap|, within [0, 1].

    ECE is biased up, and its own bootstrap more so: that interval misses the 0 of a calibrated head. By the triangle
    inequality |ECE - true ECE| <= Σ|gap - true gap|, so this one covers at least as often as it says.
    """
    ece, noise = float(np.abs(gaps).sum()), float(np.quantile(np.abs(draws - gaps).sum(axis=1), 0.95))
    return {"ece": ece, "ece_interval": [max(0.0, ece - noise), min(1.0, ece + noise)]}
