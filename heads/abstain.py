"""When to say nothing: the risk-coverage curve, and the threshold that keeps the risk below what the user allows."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import beta

Floats = NDArray[np.float64]
DELTA = 0.05
POINTS = 20


@dataclass(frozen=True)
class Selected:
    """Answer where the confidence is at least `threshold` (infinity: nowhere).

    On the calibration rows a share `coverage` of them was answered with errors `risk`; the true risk is below `bound`
    with the confidence that was asked for.
    """

    threshold: float
    coverage: float
    risk: float
    bound: float


def curve(confidence: Floats, right: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Return coverage k/n and the risk among the k most confident rows, both (n,); ties keep the rows' order."""
    order = np.argsort(-confidence, kind="stable")
    k = np.arange(1, len(order) + 1)
    return k / len(k), np.cumsum(~right[order]) / k


def aurc(confidence: Floats, right: NDArray[np.bool_]) -> float:
    """Return the mean over k of the risk among the k most confident rows (Geifman et al. 2019, arXiv:1805.08206)."""
    return float(curve(confidence, right)[1].mean())


def points(confidence: Floats, right: NDArray[np.bool_]) -> list[list[float]]:
    """Return [[coverage, risk], …] at up to 20 even steps, the last one everything."""
    coverage, risk = curve(confidence, right)
    at = np.unique(np.ceil(np.linspace(0, 1, POINTS + 1)[1:] * len(risk)).astype(int) - 1)
    return [[float(coverage[i]), float(risk[i])] for i in at]


def clopper_pearson_upper(errors: int, n: int, delta: float) -> float:
    """Return the exact upper bound of a rate at confidence 1 - delta (Clopper & Pearson 1934)."""
    return 1.0 if errors >= n else float(beta.isf(delta, errors + 1, n - errors))


def select(confidence: Floats, right: NDArray[np.bool_], max_risk: float, delta: float = DELTA) -> Selected:
    """Find a threshold whose risk is at most `max_risk` with probability 1 - delta over the calibration rows.

    SGR (Geifman & El-Yaniv 2017, arXiv:1705.08500): a binary search over the sorted confidences, each step bounded at
    delta/⌈log2 n⌉; the largest coverage that passed is taken. Rows are independent draws that fitted neither the head
    nor the confidence.
    """
    n, descending = len(right), -np.sort(-confidence)
    steps = max(1, int(np.ceil(np.log2(n)))) if n else 1
    low, high, best = 1, n, Selected(float("inf"), 0.0, 0.0, 1.0)
    for _ in range(steps):
        if low > high:
            break
        middle = (low + high + 1) // 2
        chosen = confidence >= descending[middle - 1]
        errors, size = int((~right[chosen]).sum()), int(chosen.sum())
        bound = clopper_pearson_upper(errors, size, delta / steps)
        if bound <= max_risk:
            if size / n > best.coverage:
                best = Selected(float(descending[middle - 1]), size / n, errors / size, bound)
            low = middle + 1
        else:
            high = middle - 1
    return best
