"""Calibration: probabilities that mean what they say, from predictions on rows that the head did not see.

Temperature: softmax(z/T), T minimising the NLL (Guo et al. 2017, arXiv:1706.04599). Vector: softmax(a∘z + b). z are the
logs of the probabilities, which a temperature cannot tell from the head's own logits; vector scaling of them is
Dirichlet calibration with a diagonal matrix (Kull et al. 2019, arXiv:1910.12656). Which one is chosen by cross-fitted
NLL: every row is scored under parameters that were fitted to the rows of other units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import log_softmax

from heads.folds import Ints, assign

Floats = NDArray[np.float64]
Fit = Callable[[Floats, Ints], "Calibration"]
FLOOR = 1e-12
LOG_T = (-3.0, 3.0)
FOLDS = 5
LEAST_ROWS_A_CLASS = 20
PULL = 1e-2
BINS, DRAWS = 15, 99


@dataclass(frozen=True)
class Calibration:
    """softmax(a∘log p + b): `a` and `b` hold one value, or one for each class. `method` none, temperature or vector."""

    method: str = "none"
    a: tuple[float, ...] = (1.0,)
    b: tuple[float, ...] = (0.0,)

    def __call__(self, probabilities: Floats) -> Floats:
        """Return calibrated probabilities (n, C); with method none they are left as they are."""
        if self.method == "none":
            return probabilities
        return np.asarray(np.exp(log_softmax(logits(probabilities) * np.array(self.a) + np.array(self.b), axis=1)))

    @property
    def temperature(self) -> float | None:
        """T, where the method is temperature."""
        return 1 / self.a[0] if self.method == "temperature" else None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values, and `temperature`."""
        return {"method": self.method, "a": list(self.a), "b": list(self.b), "temperature": self.temperature}

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> Calibration:
        """Return what `as_json` wrote."""
        return cls(str(facts["method"]), tuple(map(float, facts["a"])), tuple(map(float, facts["b"])))


def logits(probabilities: Floats) -> Floats:
    """Return logs of probabilities (n, C); one below 1e-12 counts as that."""
    return np.asarray(np.log(np.maximum(probabilities, FLOOR)))


def nll(probabilities: Floats, y: Ints) -> Floats:
    """Return the negative log likelihood of each row, (n,), in nats."""
    return np.asarray(-np.log(np.maximum(probabilities[np.arange(len(y)), y], FLOOR)))


def temperature(z: Floats, y: Ints, pull: float = 0.0) -> Calibration:
    """Fit T between e⁻³ and e³ to logits z (n, C) and codes y (n,).

    `pull` is the precision of a normal prior on log T: without one, rows that are all right ask for certainty.
    """
    rows = np.arange(len(y))

    def loss(log_t: float) -> float:
        nats = -log_softmax(z / np.exp(log_t), axis=1)[rows, y].mean()
        return float(nats + pull / len(y) * 0.5 * log_t * log_t)

    found = minimize_scalar(loss, bounds=LOG_T, method="bounded", options={"xatol": 1e-7})
    return Calibration("temperature", (float(np.exp(-found.x)),))


def mild_temperature(z: Floats, y: Ints) -> Calibration:
    """Fit T under a standard normal prior on log T, which matters to small or faultless samples alone."""
    return temperature(z, y, pull=1.0)


def vector(z: Floats, y: Ints) -> Calibration:
    """Fit a scale and a shift for each class, pulled lightly to the fitted temperature and to no shift."""
    C, start, rows = z.shape[1], mild_temperature(z, y).a[0], np.arange(len(y))
    finite = np.maximum(z, z.max(axis=1, keepdims=True) - 30)

    def loss(theta: Floats) -> tuple[float, Floats]:
        a, b = theta[:C], theta[C:]
        log_p = log_softmax(finite * a + b, axis=1)
        off = np.exp(log_p)
        off[rows, y] -= 1
        away = np.concatenate([a - start, b])
        gradient = np.concatenate([(off * finite).mean(axis=0), off.mean(axis=0)]) + PULL / len(y) * away
        return float(-log_p[rows, y].mean() + PULL / len(y) * 0.5 * away @ away), gradient

    found = minimize(loss, np.concatenate([np.full(C, start), np.zeros(C)]), jac=True, method="L-BFGS-B")
    return Calibration("vector", tuple(found.x[:C].tolist()), tuple((found.x[C:] - found.x[C:].mean()).tolist()))


def cross_fitted(probabilities: Floats, y: Ints, units: Sequence[str], fit: Fit, seed: int = 0) -> Floats:
    """Return (n, C) probabilities, each row calibrated by what was fitted to the rows of other units."""
    fold, out, z = assign(units, y, FOLDS, seed), probabilities.copy(), logits(probabilities)
    for k in range(FOLDS):
        held = fold == k
        if held.any() and not held.all():
            out[held] = fit(z[~held], y[~held])(probabilities[held])
    return out


def choose(probabilities: Floats, y: Ints, units: Sequence[str], seed: int = 0) -> tuple[Calibration, Floats]:
    """Choose none, temperature or vector by cross-fitted NLL; return it fitted to all rows, and the cross-fitted rows.

    Temperature must lower the mean NLL; vector must lower it further by more than the standard error of the paired
    difference, and is tried only with at least 20 rows a class.
    """
    z, found, held = logits(probabilities), Calibration(), probabilities
    by_temperature = cross_fitted(probabilities, y, units, mild_temperature, seed)
    if nll(by_temperature, y).mean() < nll(held, y).mean():
        found, held = mild_temperature(z, y), by_temperature
    if np.bincount(y, minlength=z.shape[1]).min() >= LEAST_ROWS_A_CLASS:
        by_vector = cross_fitted(probabilities, y, units, vector, seed)
        better = nll(held, y) - nll(by_vector, y)
        if better.mean() > better.std() / np.sqrt(len(y)):
            found, held = vector(z, y), by_vector
    return found, held


def debiased_ece(confidence: Floats, right: NDArray[np.bool_], bins: int = BINS) -> float:
    """Return the squared calibration error without the bias of small bins (Kumar et al. 2019, arXiv:1909.10155).

    Σ (n_b/n) [(c̄_b - ā_b)² - ā_b(1-ā_b)/(n_b-1)] over equal bins of the confidence that hold two rows at least; around
    0, and often below it, where the head is calibrated.
    """
    at = np.minimum((confidence * bins).astype(np.intp), bins - 1)
    n = np.bincount(at, minlength=bins)
    full = n > 1
    a = np.bincount(at, right, bins)[full] / n[full]
    c = np.bincount(at, confidence, bins)[full] / n[full]
    return float((n[full] / n.sum() * ((c - a) ** 2 - a * (1 - a) / (n[full] - 1))).sum())


def miscalibration_p(confidence: Floats, right: NDArray[np.bool_], seed: int = 0) -> float:
    """Return the p-value of "calibrated": the share of 99 redraws y ~ Bernoulli(confidence) whose error is as large."""
    rng, seen = np.random.default_rng(seed), debiased_ece(confidence, right)
    drawn = [debiased_ece(confidence, rng.random(len(confidence)) < confidence) for _ in range(DRAWS)]
    return float((1 + sum(value >= seen for value in drawn)) / (DRAWS + 1))
