"""Question 3: are the items like a reference collection of the same Space, and which are strangest?

The rule: `shifted` where MMD, energy distance or a classifier rejects "drawn alike" (Holm, 5 %) and the difference is
not shown to be small; `fits` where it is: the 95 % intervals of the AUC and of the share of items beyond the
reference's own 5 % lie below 0.60 and 0.10. A test that does not reject shows nothing by itself: else `undecided`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.report import strange
from heads.report.compare import holm
from heads.report.strange import Strange
from heads.report.twosample import (
    ClassifierTest,
    PermutationTest,
    Sample,
    classifier,
    describe,
    mmd_and_energy,
)  # fmt: skip
from heads.report.verdict import LEVEL, Interval, Verdict, percent, plain, rounded, span

MOST_TESTED = 1000
LEAST_UNITS = 40
AUC_MARGIN, OUTSIDE_MARGIN = 0.60, 0.10


@dataclass(frozen=True)
class Reference:
    """Another collection's vectors X (m, d), of the same Space as the items; `units` (m,) as in `Plan`."""

    name: str
    X: FloatMatrix
    units: Ints


@dataclass(frozen=True)
class Compared:
    """What the rule reads, and `described`, which it does not. `p` are Holm's, by the name of the test."""

    mmd: PermutationTest
    energy: PermutationTest
    classifier: ClassifierTest
    p: dict[str, float]
    described: dict[str, Any]
    items_used: int
    reference_used: int

    @property
    def rejected(self) -> list[str]:
        """Names of the tests that reject at 5 % after Holm."""
        return [name for name, p in self.p.items() if p <= LEVEL]


@dataclass(frozen=True)
class Domain:
    """The answer; `order` has positions of items, the strangest first, and `strange` their percentiles."""

    verdict: Verdict
    order: Ints
    tests: Compared | None = None
    strange: Strange | None = None

    def as_json(self) -> dict[str, Any]:
        """Return plain values; of the items, only the twenty strangest positions and percentiles."""
        first = self.order[:20]
        percentile = None if self.strange is None else self.strange.percentile[first]
        shown = {"verdict": self.verdict, "tests": self.tests, "strangest": first, "percentile": percentile}
        return {name: plain(value) for name, value in shown.items()}


def domain(X: FloatMatrix, units: Ints, reference: Reference | None, *, seed: int = 0) -> Domain:
    """Compare items with a reference.

    Tests read at most 1,000 rows of each side, whole units drawn by `seed`; percentiles are of every item.

    Args:
        X: (n, d), of the reference's Space.
        units: (n,) codes from 0, equal where rows belong together: permuted, halved and bootstrapped whole.

    Raises:
        UsageError: the reference has vectors of another length.
    """
    rng = np.random.default_rng(seed)
    if reference is None:
        return Domain(_without("no_reference", _NO_REFERENCE), strange.within(X, units, rng))
    if reference.X.shape[1] != X.shape[1]:
        raise UsageError(
            f"vectors of {reference.X.shape[1]} dimensions cannot be compared with vectors of {X.shape[1]}",
            where=f"reference {reference.name!r}", hint="name a collection that was embedded into the same Space",
        )  # fmt: skip
    items, other = Sample.of(X, units), Sample.of(reference.X, reference.units)
    fewest = min(items.n_units, other.n_units)
    if fewest < LEAST_UNITS:
        sentence = f"Not enough data to say: both sides need about {LEAST_UNITS} items or groups; one has {fewest}."
        return Domain(_without("undecided", sentence), strange.within(X, units, rng))
    tests = compare(items, other, rng)
    found = strange.against(X, units, other, rng)
    return Domain(decide(tests, found, reference.name), found.order, tests, found)


_NO_REFERENCE = (
    "No reference was named, so the domain was not tested; name a collection of the same Space to compare with."
)


def _without(value: str, sentence: str) -> Verdict:
    return Verdict(value, sentence, None, {})


def compare(items: Sample, reference: Sample, rng: np.random.Generator) -> Compared:
    """Run the three tests, on about 1,000 rows of each side at most, and the distances that only describe."""
    x, y = items.at_most(MOST_TESTED, rng), reference.at_most(MOST_TESTED, rng)
    mmd, energy = mmd_and_energy(x, y, rng)
    told = classifier(x, y, rng)
    adjusted = holm([mmd.p, energy.p, told.p])
    p = dict(zip(("mmd", "energy", "classifier"), adjusted, strict=True))
    return Compared(mmd, energy, told, p, describe(x.X, y.X), len(x), len(y))


def decide(tests: Compared, found: Strange, name: str) -> Verdict:
    """Apply the rule; `name` is the reference's."""
    auc, small = tests.classifier, _small(tests.classifier.interval, found.interval)
    figures = f"AUC {auc.auc:.2f} ({auc.interval[0]:.2f} to {auc.interval[1]:.2f}), p = {min(tests.p.values()):.2g}"
    outside = f"{percent(found.outside)} of them ({span(found.interval)}) lie beyond its own outermost 5 %"
    evidence = plain({
        "tests": tests, "rejected": tests.rejected, "outside": found.outside, "outside_interval": found.interval,
        "auc_margin": AUC_MARGIN, "outside_margin": OUTSIDE_MARGIN,
    })  # fmt: skip
    if small:
        beside = "differ measurably but little from" if tests.rejected else "are drawn much like"
        return Verdict("fits", f"Your items {beside} {name} ({figures}); {outside}.", auc.interval, evidence)
    if tests.rejected:
        return Verdict("shifted", f"Your items differ from {name} ({figures}); {outside}.", auc.interval, evidence)
    need = items_needed(auc, found, min(tests.items_used, tests.reference_used))
    sentence = f"Not enough data to say: about {rounded(need)} items on each side are needed to tell ({figures})."
    return Verdict("undecided", sentence, auc.interval, evidence | {"items_needed": need})


def _small(auc: Interval, outside: Interval) -> bool:
    return auc[1] < AUC_MARGIN and outside[1] < OUTSIDE_MARGIN


def items_needed(told: ClassifierTest, found: Strange, n: int) -> float:
    """Return how many items on each side would settle the rule if the figures stayed: intervals shrink as 1/√n.

    An AUC above its margin must leave 0.5, one below must stay under the margin; so must the share outside.
    """
    low, high = told.interval
    gap, half = (told.auc - 0.5, told.auc - low) if told.auc >= AUC_MARGIN else (AUC_MARGIN - told.auc, high - told.auc)
    aims = [(gap, half)]
    if found.outside < OUTSIDE_MARGIN:
        aims.append((OUTSIDE_MARGIN - found.outside, found.interval[1] - found.outside))
    return max(n * (half / gap) ** 2 for gap, half in aims)
