"""Question 4: does the task fit the features? The first rule that holds answers; each reads intervals only.

1. `leaking`: near-copies across the split raise a neighbour vote by more than 2 points, interval above 0.
2. `absent`: no head knows the labels better than permuted ones (Holm, 5 %), and none can be 10 points over the
   commonest class.
3. `nonlinear`: an MLP or neighbours beat the linear probe by more than 3 points, interval above 0 (Holm).
4. `other_layer`: another layer or pooling beats the default, interval above 0 (Holm), twice as far as it reaches.
5. `too_few_labels`: the probe fits its training rows, is 10 points worse on others, and twice the labels gain 2 points
   (`undecided` where they may, or where it is 5 points worse).
6. `noisy_labels`: 5 to 30 % of labels are confidently contradicted, by predictions about as sure as others are, the
   probe is 10 points over the commonest class, and the curve does not fall. Noise beyond that looks like overlap.
   Where the predictions are almost that sure, `undecided`.
7. `linear`: there is information, and no other head can be 3 points better (one-sided 95 %).
8. `undecided`, with the number of items that would do.

`nonlinear` and `linear` ask for information at 1 %, `absent` for none at 5 %; noise leaves a band open, and so does a
layer that is surely but barely better: other folds of the same items move what is read a little, and must not turn one
of these words into another.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from heads.report.compare import Comparison
from heads.report.curve import DELTA
from heads.report.probes import Plan
from heads.report.signs import PERMUTATIONS, Gap, Layer, Signs, gaps, information, over_majority, profile
from heads.report.verdict import LEVEL, MARGIN, Interval, Verdict, not_enough, percent, plain, points, rounded, span

ABSENT_MARGIN = 0.10
FITTED, OVERFITTED = 0.98, 0.10
NOISY, TOO_NOISY, SURE, ALMOST_SURE, READABLE = 0.05, 0.30, 0.35, 0.31, 0.10
FIRM = 0.01

Answer = tuple[str, str, Interval | None]


@dataclass(frozen=True)
class Task:
    """The verdict, and the layer profile (the default first; empty where no other layer was probed)."""

    verdict: Verdict
    layers: list[Layer]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Read:
    """Everything that the rules read."""

    signs: Signs
    accuracy: float
    interval: Interval
    train_accuracy: float
    informed: dict[str, float]
    over_majority: Comparison
    best_over_majority: Comparison
    heads: list[Gap]
    layers: list[Gap]
    delta: float

    @property
    def knows(self) -> bool:
        """Whether any head knows something of the labels."""
        return min(self.informed.values()) <= LEVEL

    @property
    def firm(self) -> float:
        """The level that is firm: 1 %, or the least that so many permutations and probes can show."""
        return max(FIRM, len(self.informed) / (PERMUTATIONS + 1))

    @property
    def surely(self) -> bool:
        """Whether a head firmly knows something of the labels."""
        return min(self.informed.values()) <= self.firm

    @property
    def seen(self) -> bool:
        """Whether the linear probe firmly does."""
        return self.informed["linear"] <= self.firm


def task(signs: Signs, on: Plan, *, delta: float = DELTA) -> Task:
    """Apply the rules in order.

    Args:
        delta: the smallest gain that is worth paying for, a share.
    """
    read = measure(signs, on, delta)
    value, sentence, interval = next(answer for rule in RULES if (answer := rule(read)) is not None)
    control = None if signs.control is None else signs.linear.accuracy - signs.control.accuracy
    evidence = plain({
        "accuracy": read.accuracy, "accuracy_interval": read.interval, "train_accuracy": read.train_accuracy,
        "p_information": read.informed, "best_over_majority": read.best_over_majority, "heads": read.heads,
        "layers": read.layers, "selectivity": control, "curve": signs.curve and signs.curve.trend(delta),
        "noise": signs.noise, "leakage": signs.leakage, "delta": delta, "margin": MARGIN,
    })  # fmt: skip
    layers = profile([signs.linear, *signs.layers], on) if signs.layers else []
    return Task(Verdict(value, sentence, interval, evidence), layers)


def measure(signs: Signs, on: Plan, delta: float) -> Read:
    """Run the tests that the rules read."""
    base, heads = signs.linear, [probe.head for probe in signs.contrasts]
    every = [base, *signs.contrasts, *signs.layers]
    names = ["linear", *heads, *(probe.name for probe in signs.layers)]
    informed = dict(zip(names, information(every, on), strict=True))
    best = max(every, key=lambda probe: probe.accuracy)
    return Read(
        signs, base.accuracy, on.resampler.interval(base.correct.mean(axis=0)), float(base.train_accuracy.mean()),
        informed, over_majority(base, on), over_majority(best, on), gaps(signs.contrasts, heads, base, on),
        gaps(signs.layers, names[1 + len(heads) :], base, on), delta,
    )  # fmt: skip


def leaking(read: Read) -> Answer | None:
    """Rule 1."""
    leak = read.signs.leakage
    if leak is None or leak.interval[0] <= 0 or leak.gap <= DELTA:
        return None
    return "leaking", (
        f"Scores leak: {leak.copies} of {leak.scored} items have a near-copy on the other side of the split, which "
        f"raises a neighbour's score by {points(leak.gap)} points ({span(leak.interval)}); give copies one group, and "
        "ask again."
    ), leak.interval  # fmt: skip


def absent(read: Read) -> Answer | None:
    """Rule 2."""
    over = read.best_over_majority
    if read.knows or over.sure[1] >= ABSENT_MARGIN:
        return None
    return "absent", (
        f"No information about the label was found in {read.signs.linear.name}: no head does better than on permuted "
        f"labels (p = {min(read.informed.values()):.2g}), and the best is at most {max(0.0, 100 * over.sure[1]):.1f} "
        "points over the commonest class; try other encoders, or check that the label belongs to these items."
    ), over.sure  # fmt: skip


def nonlinear(read: Read) -> Answer | None:
    """Rule 3."""
    found = [gap for gap in read.heads if gap.sure and gap.compared.difference > MARGIN]
    if not found or not read.surely:
        return None
    best = max(found, key=lambda gap: gap.compared.difference)
    return "nonlinear", (
        f"The information is there, but not linearly: {best.name} gets {points(best.compared.difference)} points more "
        f"({span(best.compared.sure)}) than the linear probe; use that head, or fine-tune."
    ), best.compared.sure  # fmt: skip


def other_layer(read: Read) -> Answer | None:
    """Rule 4."""
    found = [gap for gap in read.layers if gap.sure and gap.far]
    if not found:
        return None
    best = max(found, key=lambda gap: gap.compared.difference)
    return "other_layer", (
        f"Read {best.name}: it gets {points(best.compared.difference)} points more ({span(best.compared.sure)}) than "
        f"{read.signs.linear.name}."
    ), best.compared.sure  # fmt: skip


def too_few_labels(read: Read) -> Answer | None:
    """Rule 5."""
    curve = read.signs.curve
    if curve is None or curve.gain <= read.delta or curve.trend(read.delta) == "flat":
        return None
    lost = read.train_accuracy - read.interval[1]
    if read.train_accuracy < FITTED or lost < OVERFITTED / 2:
        return None
    if lost < OVERFITTED or curve.trend(read.delta) != "falling":
        return "undecided", (
            f"Not enough data to say: the probe gets {percent(read.train_accuracy)} of its training items right and "
            f"{percent(read.accuracy)} ({span(read.interval)}) of others, and twice the labels may gain "
            f"{points(curve.gain)} points ({span(curve.gain_interval, signed=True)}), by the fitted curve."
        ), curve.gain_interval  # fmt: skip
    return "too_few_labels", (
        f"Too few labels: the probe gets {percent(read.train_accuracy)} of its training items right and "
        f"{percent(read.accuracy)} ({span(read.interval)}) of others; twice the labels should gain "
        f"{points(curve.gain)} points ({span(curve.gain_interval)}), by the fitted curve."
    ), curve.gain_interval  # fmt: skip


def noisy_labels(read: Read) -> Answer | None:
    """Rule 6."""
    noise, curve = read.signs.noise, read.signs.curve
    if noise is None or noise.interval[0] <= NOISY or noise.rate >= TOO_NOISY:
        return None
    if noise.sureness_interval[0] <= ALMOST_SURE:
        return None
    if read.over_majority.sure[0] <= READABLE:
        return None
    if curve is not None and curve.trend(read.delta) == "falling":
        return None
    if noise.sureness_interval[0] <= SURE:
        return "undecided", (
            f"Not enough data to say: held-out predictions contradict about {percent(noise.rate)} of the labels "
            f"({span(noise.interval)}), almost as surely as they confirm the rest. Labels are wrong, or classes "
            f"overlap: look through the {len(noise.order)} items of the review list."
        ), noise.interval  # fmt: skip
    return "noisy_labels", (
        f"About {percent(noise.rate)} of the labels ({span(noise.interval)}) are hard or mislabelled: held-out "
        f"predictions contradict them as surely as they confirm the rest; look through the {len(noise.order)} items "
        "of the review list first."
    ), noise.interval  # fmt: skip


def almost_other_layer(read: Read) -> Answer | None:
    """Rule 4 where the difference is too near to nothing: nobody is told that the default will do."""
    found = [gap for gap in read.layers if gap.sure]
    if not found:
        return None
    best = max(found, key=lambda gap: gap.compared.difference)
    return "undecided", (
        f"Not enough data to say: {best.name} gets {points(best.compared.difference)} points more "
        f"({span(best.compared.sure)}) than {read.signs.linear.name}, which other folds of the same items may not show."
    ), best.compared.sure  # fmt: skip


def linearly(read: Read) -> Answer | None:
    """Rule 7."""
    if not read.seen or not read.heads or any(gap.compared.tie_interval[1] >= MARGIN for gap in read.heads):
        return None
    names = " and ".join(gap.name for gap in read.heads)
    most = max(100 * gap.compared.tie_interval[1] for gap in read.heads)
    one = len(read.heads) == 1
    beside = (
        f"{'gains' if one else 'gain'} at most {most:.1f} points" if most > 0 else "does worse" if one else "do worse"
    )
    return "linear", (
        f"A linear head is enough to read the label: it gets {percent(read.accuracy)} ({span(read.interval)}), and "
        f"{names} {beside} (95 %)."
    ), read.interval  # fmt: skip


def undecided(read: Read) -> Answer:
    """Rule 8."""
    over = read.best_over_majority
    if not read.knows:
        need = over.items * _times(ABSENT_MARGIN - over.difference, over.sure[1] - over.difference)
        return "undecided", (
            f"Not enough data to say: no head does surely better than chance, and ruling out that one is "
            f"{points(ABSENT_MARGIN)} points over the commonest class needs about {rounded(need)} items; you have "
            f"{over.items}."
        ), over.sure  # fmt: skip
    if not read.surely:
        return "undecided", (
            f"Not enough data to say: a head knows the labels better than permuted ones, but not more than one useless "
            f"encoder in a hundred would (p = {min(read.informed.values()):.2g}); label more items."
        ), over.sure  # fmt: skip
    if not read.heads:
        return "undecided", "The label can be read, but no other head was compared with the linear one.", read.interval
    open_gap = max((gap.compared for gap in read.heads), key=lambda c: c.tie_interval[1])
    return "undecided", not_enough(*open_gap.needed(MARGIN), open_gap.items), open_gap.sure


def _times(gap: float, half: float) -> float:
    """Return by what factor rows must grow until a half-width (as 1/√n) has shrunk to `gap`; at least 1.1."""
    return max(1.1, (half / gap) ** 2) if gap > 0 else float("inf")


RULES: tuple[Callable[[Read], Answer | None], ...] = (
    leaking, absent, nonlinear, other_layer, too_few_labels, noisy_labels, almost_other_layer, linearly, undecided,
)  # fmt: skip
