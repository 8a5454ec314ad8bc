"""What a head of several classes an item knows of its limits: a threshold for each class, and sets that hold them all.

Logits are calibrated by one temperature for all classes. A set holds every class with 1 - p at most a quantile of the
held-out scores max over the item's classes of 1 - p (split conformal: Vovk et al. 2005), so that it holds all true
ones as often as was promised; with `per_class`, every true class by a quantile of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import expit, logit

from embedder.records import FloatMatrix
from heads import conformal
from heads.calibration import FLOOR, Calibration
from heads.conformal import Sets
from heads.domain import Domain
from heads.folds import Ints
from heads.guard import domain_arrays, domain_of, far
from heads.kind import Arrays, Estimator
from heads.prediction import Prediction, ranked

Floats = NDArray[np.float64]
LOG_HEAT = (-3.0, 3.0)
LEAST_POSITIVES = 10
JOINED = ", "


@dataclass(frozen=True)
class Tags:
    """The guard of a head that gives several classes: those whose calibrated probability reaches their threshold."""

    calibration: Calibration
    thresholds: tuple[float, ...]
    sets: Sets
    domain: Domain | None = None

    def answer(self, model: Estimator, X: FloatMatrix, classes: Sequence[str], top_k: int | None) -> list[Prediction]:
        """Predict vectors (n, dim), n at least 1."""
        raw = model.predict_proba(X)
        P, inside, (domain, why) = warmed(raw, self.calibration), self.sets.mask(raw), far(self.domain, X)
        given = np.array(self.thresholds) <= P
        found = []
        for row, said, held, p, w in zip(P, given, inside, domain, why, strict=True):
            order = np.argsort(-row, kind="stable")
            labels = [classes[c] for c in order if said[c]]
            within = [classes[c] for c in order if held[c]]
            probabilities = ranked(row, classes, top_k)
            found.append(Prediction(JOINED.join(labels), probabilities, within, p, w, labels=labels))
        return found

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the arrays to save, by name."""
        return domain_arrays(self.domain)

    def as_json(self) -> dict[str, Any]:
        """Return the rest as plain values."""
        return {
            "calibration": self.calibration.as_json(), "thresholds": list(self.thresholds),
            "sets": self.sets.as_json(), "domain": self.domain is not None,
        }  # fmt: skip

    @classmethod
    def restore(cls, arrays: Arrays, facts: Mapping[str, Any]) -> Tags:
        """Make one from what `arrays` and `as_json` returned. Raises `KeyError` where something is missing."""
        domain = domain_of(arrays) if facts["domain"] else None
        calibration, sets = Calibration.from_json(facts["calibration"]), Sets.from_json(facts["sets"])
        return cls(calibration, tuple(map(float, facts["thresholds"])), sets, domain)


def warmed(P: Floats, calibration: Calibration) -> Floats:
    """Return 1 / (1 + exp(-z/T)) of probabilities (n, C) with logits z; with method none they are left as they are."""
    return P if calibration.method == "none" else np.asarray(expit(_logits(P) * calibration.a[0]))


def _logits(P: Floats) -> Floats:
    return np.asarray(logit(np.clip(P, FLOOR, 1 - FLOOR)))


def losses(P: Floats, Y: Ints) -> Floats:
    """Return the negative log likelihood of each row meaned over classes, (n,), in nats."""
    z = _logits(P)
    return np.asarray((np.logaddexp(0, z) - z * Y).mean(axis=1))


def temperature(P: Floats, Y: Ints) -> Calibration:
    """Fit one temperature to all classes, under a standard normal prior on its log."""
    z = _logits(P)

    def loss(log_heat: float) -> float:
        hot = z * np.exp(log_heat)
        return float((np.logaddexp(0, hot) - hot * Y).mean() + 0.5 * log_heat**2 / len(Y))

    found = minimize_scalar(loss, bounds=LOG_HEAT, method="bounded", options={"xatol": 1e-6})
    return Calibration("temperature", (float(np.exp(found.x)),))


def calibrated(P: Floats, Y: Ints, fold: Ints) -> tuple[Calibration, Floats]:
    """Choose none or a temperature by cross-fitted loss; return it fitted to all rows, and the cross-fitted rows."""
    crossed = P.copy()
    for k in np.unique(fold):
        held = fold == k
        if not held.all():
            crossed[held] = warmed(P[held], temperature(P[~held], Y[~held]))
    if losses(crossed, Y).mean() < losses(P, Y).mean():
        return temperature(P, Y), crossed
    return Calibration(), P


def thresholds(P: Floats, Y: Ints) -> Floats:
    """Return the probability (C,) from which on each class has the highest F1 on rows P (n, C) with Y (n, C).

    A class with fewer than ten rows has that of all classes together; of equal ones the highest is taken.
    """
    shared = _threshold(P.ravel(), Y.ravel())
    enough = Y.sum(axis=0) >= LEAST_POSITIVES
    return np.array([_threshold(P[:, c], Y[:, c]) if ok else shared for c, ok in enumerate(enough)])


def _threshold(p: Floats, y: Ints) -> float:
    order = np.argsort(-p, kind="stable")
    ranked_p, hits = p[order], np.cumsum(y[order])
    last = np.flatnonzero(np.append(np.diff(ranked_p) != 0, True))
    f1 = 2 * hits[last] / (last + 1 + hits[-1])
    best = int(f1.argmax())
    after = ranked_p[last[best + 1]] if best + 1 < len(last) else 0.0
    return float((ranked_p[last[best]] + after) / 2)


def said(P: Floats, Y: Ints, fold: Ints) -> NDArray[np.bool_]:
    """Return the classes (n, C) that each row is given under thresholds that were chosen on rows of other folds."""
    found = np.zeros(P.shape, dtype=bool)
    for k in np.unique(fold):
        others = fold != k if (fold != k).any() else fold == k
        found[fold == k] = P[fold == k] >= thresholds(P[others], Y[others])
    return found


def fit_sets(P: Floats, Y: Ints, coverage: float, *, per_class: bool) -> Sets:
    """Fit sets to probabilities (n, C) of rows that the head was not fitted to, and their classes Y (n, C)."""
    if per_class:
        return Sets(
            coverage, True, tuple(conformal.quantile(1 - p[y == 1], coverage) for p, y in zip(P.T, Y.T, strict=True))
        )
    worst = np.where(Y == 1, 1 - P, 0.0).max(axis=1)
    return Sets(coverage, False, (conformal.quantile(worst, coverage),) * P.shape[1])


def covered(P: Floats, Y: Ints, fold: Ints, coverage: float, *, per_class: bool) -> tuple[NDArray[np.bool_], Ints]:
    """Return whether all classes of each row are in its set and the set's size; other folds fitted the set."""
    inside = np.zeros(P.shape, dtype=bool)
    for k in np.unique(fold):
        others = fold != k if (fold != k).any() else fold == k
        inside[fold == k] = fit_sets(P[others], Y[others], coverage, per_class=per_class).mask(P[fold == k])
    return (inside | (Y == 0)).all(axis=1), inside.sum(axis=1)
