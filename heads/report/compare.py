"""Two ways of predicting the same items: how far apart, how surely, and how many items it would take to say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from heads.folds import Ints
from heads.report.verdict import MARGIN, Direction, Interval, direction, plain

Floats = NDArray[np.float64]

DRAWS = 2000
SMALLEST = 0.005
CHUNK = 250
LEAST_DF = 9
Z975, Z80 = 1.959963984540054, 0.8416212335729143


class Resampler:
    """The same bootstrap draws of units for every comparison in a report: rows of a unit are drawn together.

    Args:
        units: (n,) codes from 0.
    """

    def __init__(self, units: Ints, *, draws: int = DRAWS, seed: int = 0) -> None:
        self.units, self.draws = units, draws
        self.sizes = np.bincount(units).astype(np.float64)
        rng = np.random.default_rng(seed)
        n = len(self.sizes)
        self.weights: NDArray[np.uint8] = np.empty((draws, n), dtype=np.uint8)
        for start in range(0, draws, CHUNK):
            rows = self.weights[start : start + CHUNK]
            picked = rng.integers(n, size=rows.shape) + n * np.arange(len(rows))[:, None]
            rows[:] = np.minimum(np.bincount(picked.ravel(), minlength=rows.size), 255).reshape(rows.shape)

    def means(self, values: Floats, *, out_of_bag: bool = False) -> Floats:
        """Return the mean over rows of each column of `values` (n, m) in each draw: (draws, m).

        With `out_of_bag`, over the rows that were not drawn (NaN where all were).
        """
        sums = np.stack([np.bincount(self.units, column, len(self.sizes)) for column in values.T], axis=1)
        both = np.concatenate([sums, self.sizes[:, None]], axis=1)
        found = np.empty((self.draws, both.shape[1]))
        for start in range(0, self.draws, CHUNK):
            part = self.weights[start : start + CHUNK]
            found[start : start + CHUNK] = (part == 0 if out_of_bag else part).astype(np.float64) @ both
        size = found[:, -1:]
        return np.asarray(np.divide(found[:, :-1], size, out=np.full_like(found[:, :-1], np.nan), where=size > 0))

    def interval(self, values: Floats, level: float = 0.95) -> Interval:
        """Return the percentile interval of the mean of `values` (n,)."""
        return _quantiles(self.means(values[:, None])[:, 0], level)


@dataclass(frozen=True)
class NadeauBengio:
    """The t test of per-fold differences whose variance allows for training sets that overlap."""

    t: float
    df: int
    p: float
    interval: Interval


@dataclass(frozen=True)
class Comparison:
    """`a` against `b` on the same rows, folds and repeats; differences are a - b, on the scale of the scores.

    Attributes:
        interval, tie_interval: 95 % and 90 %, paired bootstrap over units; `t_interval`: 95 %, Student's t over units.
        p: two-sided, of a t test on units' sums, or Nadeau and Bengio's where `sure` reads theirs and it is larger.
        mcnemar: exact p, first repeat.
        spread: mean over rows of the squared difference: with one repeat, the share of items where only one is right.
        design: how much larger the variance is than that of so many single items (1 without groups).
    """

    a: str
    b: str
    difference: float
    interval: Interval
    tie_interval: Interval
    t_interval: Interval
    p: float
    nadeau_bengio: NadeauBengio
    mcnemar: float
    spread: float
    design: float
    items: int
    units: int

    @cached_property
    def sure(self) -> Interval:
        """The interval that verdicts read: covers the bootstrap's, Student's t over units, and Nadeau and Bengio's.

        Of a single repeat, which only large sets have, the last has too few degrees of freedom and is left out.
        """
        ends = [self.interval, self.t_interval]
        if self.nadeau_bengio.df >= LEAST_DF:
            ends.append(self.nadeau_bengio.interval)
        return min(low for low, _ in ends), max(high for _, high in ends)

    def direction(self, margin: float = MARGIN) -> Direction:
        """Return which way it points: by `sure`, or a tie by TOST within ±margin."""
        return direction(self.sure, self.tie_interval, margin)

    def needed(self, margin: float = MARGIN) -> tuple[float, float]:
        """Return (difference, items) at 80 % power: of the margin, or where that many are there, of what was seen."""
        need = items_needed(margin, self.spread) * self.design if margin > 0 else 0
        if need > self.items:
            return margin, need
        seen = max(abs(self.difference), SMALLEST)
        return seen, max(items_needed(seen, self.spread) * self.design, self.items + 1.0)

    def as_json(self) -> dict[str, Any]:
        """Return every figure as plain values."""
        facts = {k: v for k, v in vars(self).items() if k != "sure"}
        return {k: plain(v) for k, v in facts.items()} | {"sure": list(self.sure)}


def paired(
    a: NDArray[Any], b: NDArray[Any], fold: Ints, resampler: Resampler, *, names: tuple[str, str] = ("a", "b")
) -> Comparison:
    """Compare scores of rows, such as 1 where the prediction is right.

    Args:
        a, b: (R, n), higher is better, row i in repeat r predicted by a model that did not see its unit.
        fold: (R, n), which fold row i was in.
    """
    gaps = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    each = gaps.mean(axis=0)
    drawn = resampler.means(each[:, None])[:, 0]
    n, difference, spread = len(each), float(each.mean()), float((each**2).mean())
    error = _standard_error(each, resampler)
    nb = nadeau_bengio(_by_fold(gaps, fold), 1 / (int(fold.max()) or 1))
    df = max(len(resampler.sizes) - 1, 1)
    p = 1.0 if error == 0 else float(2 * stats.t.sf(abs(difference) / error, df))
    half = float(stats.t.ppf(0.975, df)) * error
    alone = spread - difference**2
    only = int((gaps[0] > 0).sum()), int((gaps[0] < 0).sum())
    return Comparison(
        *names, difference=difference, interval=_quantiles(drawn, 0.95), tie_interval=_quantiles(drawn, 0.90),
        t_interval=(difference - half, difference + half),
        p=max(p, nb.p) if nb.df >= LEAST_DF else p, nadeau_bengio=nb, mcnemar=mcnemar(*only), spread=spread,
        design=n * error**2 / alone if alone > 0 else 1.0, items=n, units=len(resampler.sizes),
    )  # fmt: skip


def _by_fold(gaps: Floats, fold: Ints) -> Floats:
    return np.array([row[at == k].mean() for row, at in zip(gaps, fold, strict=True) for k in np.unique(at)])


def _standard_error(each: Floats, resampler: Resampler) -> float:
    sums = np.bincount(resampler.units, each - each.mean(), len(resampler.sizes))
    n_units = len(sums)
    return float(np.sqrt(n_units / max(n_units - 1, 1) * (sums**2).sum()) / len(each))


def _quantiles(drawn: Floats, level: float) -> Interval:
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return low, high


def nadeau_bengio(differences: Floats, test_over_train: float) -> NadeauBengio:
    """Test whether the mean of per-fold differences is zero (Nadeau and Bengio 2003, Machine Learning 52:239).

    Args:
        differences: (J,), one a fold and repeat; of a single one nothing can be said, and p is 1.
        test_over_train: size of a test part over that of its training part.
    """
    count, mean = len(differences), float(differences.mean())
    if count == 1:
        return NadeauBengio(0.0, 0, 1.0, (-np.inf, np.inf))
    error = float(np.sqrt(differences.var(ddof=1) * (1 / count + test_over_train)))
    half = float(stats.t.ppf(0.975, count - 1)) * error
    if error == 0:
        t, p = (0.0, 1.0) if mean == 0 else (float(np.copysign(np.inf, mean)), 0.0)
    else:
        t = mean / error
        p = float(2 * stats.t.sf(abs(t), count - 1))
    return NadeauBengio(t, count - 1, p, (mean - half, mean + half))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p of McNemar's test from the items that one alone gets right."""
    return float(stats.binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def holm(p: Sequence[float], family: int | None = None) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979), in the order given.

    Args:
        family: how many comparisons there were where `p` has but some of them; the rest count as larger ones.
    """
    order, count = np.argsort(p, kind="stable"), family or len(p)
    steps = np.sort(np.asarray(p, dtype=np.float64)) * (count - np.arange(len(p)))
    adjusted = np.empty(len(p))
    adjusted[order] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return [float(v) for v in adjusted]


def items_needed(delta: float, discordance: float) -> float:
    """Return how many items show a difference at the 5 % level with 80 % power (Connor 1987, Biometrics 43:207).

    Args:
        delta: the difference of the two accuracies, > 0.
        discordance: share of items that exactly one gets right; at least `delta`.
    """
    share = max(discordance, delta)
    return float((Z975 * np.sqrt(share) + Z80 * np.sqrt(share - delta**2)) ** 2 / delta**2)
