"""A tuned encoder against the frozen one, on rows whose labels the tuned one never saw.

Every row of the Space of a tuned encoder that was trained on carries its own label: a probe that is cross-validated
there scores memory. So both probes are fitted to the rows that it saw, and both predict the rows that it did not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from heads.folds import Ints
from heads.kinds.linear import Linear
from heads.report.candidates import Candidate
from heads.report.compare import Comparison, Resampler, paired
from heads.report.freeze import Pilot
from heads.report.terms import TermCounts
from heads.report.verdict import LEVEL, Interval
from index.features import Features

LEAST = 10


@dataclass(frozen=True)
class TunedSpace:
    """A tuned encoder's Space, and the contents (sha256) that it saw with their labels."""

    space: Space
    seen: frozenset[str]


@dataclass(frozen=True)
class TunedRows:
    """Its vectors of a report's n items: `X` (n, d), zero where there are none; `train` and `test` are positions."""

    name: str
    X: FloatMatrix
    train: Ints
    test: Ints


def rows_of(found: TunedSpace, its: Features, keys: Keys, units: Sequence[str], hashes: Sequence[str]) -> TunedRows:
    """Align a tuned Space with the items of a report, and part those that it saw from those that it did not."""
    at = np.searchsorted(its.keys, keys).clip(0, len(its.keys) - 1)
    here = its.keys[at] == keys
    X: FloatMatrix = np.where(here[:, None], its.X[at], np.float32(0))
    train, test = parts(units, hashes, found.seen)
    return TunedRows(found.space.encoder, X, train[here[train]], test[here[test]])


def pilot(frozen: Candidate, tuned: TunedRows, y: Ints, units: Sequence[str], seed: int) -> Pilot | None:
    """Measure what a tuned encoder gains over a frozen one; None where too few items are left to say."""
    if min(len(tuned.test), len(tuned.train)) < LEAST or len(np.unique(y[tuned.train])) < 2:
        return None
    assert not isinstance(frozen.X, TermCounts)
    names = tuned.name, frozen.name
    return Pilot(measure(frozen.X, tuned.X, y, units, tuned.train, tuned.test, names, seed).gain)


@dataclass(frozen=True)
class Measured:
    """`gain` is the tuned probe's accuracy minus the frozen one's, on the test rows."""

    gain: Comparison
    frozen: float
    tuned: float


def parts(units: Sequence[str], hashes: Sequence[str], seen: frozenset[str]) -> tuple[Ints, Ints]:
    """Return the rows that were seen, and those of units of which no row was: neither a copy nor of the same group."""
    known = np.array([one in seen for one in hashes], dtype=bool)
    touched = {unit for unit, one in zip(units, known, strict=True) if one}
    free = np.array([unit not in touched for unit in units], dtype=bool)
    return np.flatnonzero(known), np.flatnonzero(free)


def measure(
    frozen: FloatMatrix, tuned: FloatMatrix, y: Ints, units: Sequence[str], train: Ints, test: Ints,
    names: tuple[str, str], seed: int = 0,
) -> Measured:  # fmt: skip
    """Fit a linear probe in both Spaces to the same rows and compare them on the same others.

    Args:
        frozen, tuned: (n, d) vectors of the same rows; y: (n,) codes; train, test: positions, of no common unit.
        names: of the tuned and of the frozen encoder.
    """
    right = [predicted(X, y, units, train, test, seed) == y[test] for X in (tuned, frozen)]
    gain = compared(right[0], right[1], [units[i] for i in test], names, seed)
    return Measured(gain, float(right[1].mean()), float(right[0].mean()))


def predicted(X: FloatMatrix, y: Ints, units: Sequence[str], train: Ints, test: Ints, seed: int) -> Ints:
    """Return the class that a linear probe gives each row of `test`; its C is chosen inside `train`."""
    model = Linear(seed=seed).fit(X[train], y[train], groups=[units[i] for i in train])
    return np.asarray(model.predict(X[test]), dtype=np.intp)


def compared(
    a: NDArray[np.bool_], b: NDArray[np.bool_], units: Sequence[str], names: tuple[str, str], seed: int
) -> Comparison:
    """Compare two predictors on one test set; its interval excludes zero only where McNemar's exact test does."""
    codes = np.unique(np.asarray(units, dtype=str), return_inverse=True)[1].astype(np.intp)
    found = paired(a[None], b[None], np.zeros((1, len(a)), dtype=np.intp), Resampler(codes, seed=seed), names=names)
    only = int((a & ~b).sum()), int((b & ~a).sum())
    sure, tie = exact(*only, len(a), LEVEL), exact(*only, len(a), 2 * LEVEL)
    return replace(
        found, t_interval=_around(found.t_interval, sure), tie_interval=_around(found.tie_interval, tie),
        p=max(found.p, found.mcnemar),
    )  # fmt: skip


def _around(one: Interval, other: Interval) -> Interval:
    return min(one[0], other[0]), max(one[1], other[1])


def exact(only_a: int, only_b: int, n: int, level: float) -> Interval:
    """Return the interval, wrong in a share `level` of cases, of a difference of accuracies: McNemar's test inverted.

    Given that a + b of n items are told apart, the share that favours `a` has Clopper and Pearson's interval. Where
    none is, the share of items that would be is below 1 - (level/2)^(1/n).
    """
    apart = only_a + only_b
    if not apart:
        most = 1 - float((level / 2) ** (1 / n))
        return -most, most
    low, high = stats.binomtest(only_a, apart).proportion_ci(1 - level, method="exact")
    return (2 * float(low) - 1) * apart / n, (2 * float(high) - 1) * apart / n
