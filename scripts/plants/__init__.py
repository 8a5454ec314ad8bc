"""Planted cases of the transfer report: data whose right answer is known, and how often the report may miss it.

A file here with a list `CASES` is run by `scripts/planted` over 200 seeds, and by the tests over few.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.stats import binom, binomtest, t

SURE = 0.001


@dataclass(frozen=True)
class Case:
    """One planted case.

    Attributes:
        name: what is planted, and what is counted.
        run: from a seed to whether it happened, or to a figure.
        low, high: what the share of seeds, or the mean of the figure, must lie between.
        share: whether `run` says yes or no.
        seeds: how many seeds the full run takes.
    """

    name: str
    run: Callable[[int], float]
    low: float
    high: float
    share: bool = True
    seeds: int = 200

    def band(self, values: list[float]) -> str:
        """Return the exact 95 % interval of the share (Clopper and Pearson 1934), or of the mean by Student's t."""
        n = len(values)
        if self.share:
            low, high = binomtest(int(sum(values)), n).proportion_ci(method="exact")
            return f"{low:.1%} to {high:.1%}"
        half = float(t.ppf(0.975, n - 1) * np.std(values, ddof=1) / np.sqrt(n)) if n > 1 else float("inf")
        return f"{np.mean(values) - half:.3f} to {np.mean(values) + half:.3f}"

    def passes(self, values: list[float]) -> bool:
        """Say whether the values fit; of a share, unless chance alone would explain them less than once in 1,000."""
        if not self.share:
            return self.low <= float(np.mean(values)) <= self.high
        count, n = sum(values), len(values)
        return bool(binom.ppf(SURE, n, self.low) <= count <= binom.ppf(1 - SURE, n, self.high))
