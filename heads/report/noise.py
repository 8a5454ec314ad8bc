"""Labels that the probe confidently contradicts: confident learning (Northcutt et al. 2021, JAIR 70).

It cannot tell wrong labels from classes that overlap: clean labels with a Bayes error of 24 % look 17 % wrong to it.
What does tell them apart, in part: a wrong label's item lies anywhere, so the probe is as sure of it as of others; an
item between two classes is one that the probe is unsure of. `sureness` measures that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from heads.folds import Ints
from heads.report.compare import Resampler
from heads.report.probes import Probe
from heads.report.verdict import Interval, plain

Floats = NDArray[np.float64]
BATCH = 100


@dataclass(frozen=True)
class Noise:
    """Hard or mislabelled items.

    Attributes:
        rate: 1 - trace of the estimated joint of given and true labels; `interval` 95 %, bootstrapped over units.
        order: positions of items that are said to be of another class, the most certain first.
        suggested: (n,) the class that the probe would give, the item's own where it does not contradict.
        sureness: P(the probe is surer where it contradicts the label than where it agrees): 0.5 for labels wrong at
            random, far less for classes that overlap; NaN where it contradicts none. `sureness_interval` 95 %.
    """

    rate: float
    interval: Interval
    order: Ints
    suggested: Ints
    sureness: float
    sureness_interval: Interval

    def as_json(self) -> dict[str, Any]:
        """Return every figure, and the first hundred of the review list with the class suggested."""
        first = self.order[:BATCH]
        shown = {k: v for k, v in vars(self).items() if k not in ("order", "suggested")}
        shown |= {"count": len(self.order), "review": first, "suggested": self.suggested[first]}
        return {name: plain(value) for name, value in shown.items()}


def joint(probabilities: Floats, y: Ints, weight: Floats | None = None) -> tuple[Floats, Ints]:
    """Return the joint (C, C) of given (rows) and estimated true classes, and each item's class j* (-1: none).

    Args:
        probabilities: (n, C), held out.
        weight: (n,) how often each row counts; none means once.
    """
    w = np.ones(len(y)) if weight is None else weight
    n_classes = probabilities.shape[1]
    count = np.bincount(y, w, n_classes)
    own = np.bincount(y, w * probabilities[np.arange(len(y)), y], n_classes)
    threshold = np.divide(own, count, out=np.full(n_classes, np.inf), where=count > 0)
    eligible = np.where(probabilities >= threshold - 1e-12, probabilities, -1.0)
    best = np.where(eligible.max(axis=1) >= 0, eligible.argmax(axis=1), -1)
    sure = best >= 0
    found = np.bincount(y[sure] * n_classes + best[sure], w[sure], n_classes**2).reshape(n_classes, n_classes)
    found[np.arange(n_classes), np.arange(n_classes)] += (found.sum(axis=1) == 0) * (count > 0)
    rows = found.sum(axis=1, keepdims=True)
    scaled = np.divide(found, rows, out=np.zeros_like(found), where=rows > 0) * count[:, None]
    return np.asarray(scaled / w.sum()), best.astype(np.intp)


def noise(probe: Probe, resampler: Resampler) -> Noise:
    """Estimate from a probe's held-out probabilities, averaged over its repeats."""
    p, y = probe.probabilities.mean(axis=0, dtype=np.float64), probe.y
    found, best = joint(p, y)
    doubted = (best >= 0) & (best != y)
    margin = p[np.arange(len(y)), y] - p.max(axis=1)
    order = np.flatnonzero(doubted)[np.argsort(margin[doubted], kind="stable")]
    draws = (row[resampler.units].astype(np.float64) for row in resampler.weights[: resampler.draws // 4])
    rates = [1 - float(np.trace(joint(p, y, w)[0])) for w in draws]
    low, high = np.quantile(rates, [0.025, 0.975]).tolist()
    suggested = np.where(doubted, best, y).astype(np.intp)
    sure, interval = _sureness(p.max(axis=1), p.argmax(axis=1) != y)
    return Noise(1 - float(np.trace(found)), (low, high), order.astype(np.intp), suggested, sure, interval)


def _sureness(top: Floats, wrong: NDArray[np.bool_]) -> tuple[float, Interval]:
    """Return the AUC of the top probability, wrong above right, with Hanley and McNeil's interval (1982)."""
    m, n = int(wrong.sum()), int((~wrong).sum())
    if not m or not n:
        return float("nan"), (0.0, 1.0)
    auc = float((rankdata(top)[wrong].sum() - m * (m + 1) / 2) / (m * n))
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    variance = (auc * (1 - auc) + (m - 1) * (q1 - auc**2) + (n - 1) * (q2 - auc**2)) / (m * n)
    half = 1.96 * float(np.sqrt(max(variance, 0.0)))
    return auc, (max(0.0, auc - half), min(1.0, auc + half))
