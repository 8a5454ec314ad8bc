"""Question 5, second half: stay frozen, or what next? The first rule that holds answers; each reads intervals only.

0. `fine_tune`: a fine-tuned Space was measured on items that it did not see, its gain over the best frozen one is
   surely more than δ, and where a shifted set was scored too, it surely loses less than δ there.
1. `stay_frozen`: the target is reached; or the measured gain of fine-tuning is surely less than δ and more labels
   would not help.
2. `switch`: another encoder, layer, pooling or head is surely better than the present one (Holm).
3. `label_more`: twice the labels surely gain more than δ, by the fitted curve.
4. `pilot`: they surely gain less, and surely more than δ is left to gain: the target, or what people agree on, or what
   is not hard or mislabelled. Stored features cannot tell that fine-tuning wins (Newell and Deng 2020).
5. `undecided`, with the number of items that would do.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from heads.report.compare import Comparison, holm
from heads.report.curve import DELTA, Curve
from heads.report.verdict import LEVEL, Interval, Verdict, percent, plain, points, rounded, span

PILOT_SHARES, PILOT_SEEDS, PILOT_EPOCHS = (0.25, 0.5, 1.0), 3, 10
PASSES_OF_A_STEP = 3

Answer = tuple[str, str, Interval | None]


@dataclass(frozen=True)
class Ceiling:
    """An accuracy that could be reached, and whose word that is, such as `your target`; `reachable`: it may be met."""

    accuracy: float
    source: str
    reachable: bool


@dataclass(frozen=True)
class Pilot:
    """A fine-tuned Space, against the best frozen one on the items that it did not see.

    Attributes:
        gain: fine-tuned minus frozen.
        shifted_loss: frozen minus fine-tuned on a set from elsewhere, None where there is none.
    """

    gain: Comparison
    shifted_loss: Comparison | None = None


@dataclass(frozen=True)
class Cost:
    """What a pilot costs: `passes` through the encoder (a training step counts as three), and seconds, if known."""

    passes: float
    seconds: float | None


@dataclass(frozen=True)
class Read:
    """Everything that the rules read; accuracies and δ are shares.

    Attributes:
        accuracy, interval: of what is used now, held out.
        switches: cheap alternatives against it (a: the alternative, b: the present one).
    """

    accuracy: float
    interval: Interval
    items: int
    curve: Curve | None = None
    switches: Sequence[Comparison] = ()
    ceiling: Ceiling | None = None
    pilot: Pilot | None = None
    cost: Cost | None = None
    delta: float = DELTA

    @property
    def trend(self) -> str:
        """Of the curve at δ; `undecided` without one."""
        return "undecided" if self.curve is None else self.curve.trend(self.delta)

    @property
    def left(self) -> Interval:
        """What is left to gain up to the ceiling."""
        top = float("nan") if self.ceiling is None else self.ceiling.accuracy
        return top - self.interval[1], top - self.interval[0]


def ceiling(
    *, target: float | None = None, human_disagreement: float | None = None, noise: float | None = None
) -> Ceiling | None:
    """Return the first that is known: a target, 1 - disagreement of people, 1 - share of hard or mislabelled items."""
    if target is not None:
        return Ceiling(target, "your target", True)
    if human_disagreement is not None:
        return Ceiling(1 - human_disagreement, "what people agree on", True)
    return None if noise is None else Ceiling(1 - noise, "what is not hard or mislabelled", False)


def pilot_cost(items: int, items_per_second: float | None) -> Cost:
    """Return the cost of LP-FT at n/4, n/2 and n with 3 seeds, 10 epochs each, and of embedding all items again."""
    passes = items * (sum(PILOT_SHARES) * PILOT_SEEDS * PILOT_EPOCHS * PASSES_OF_A_STEP + 1)
    return Cost(passes, passes / items_per_second if items_per_second else None)


def freeze(read: Read) -> Verdict:
    """Apply the rules in order."""
    value, sentence, interval = next(answer for rule in RULES if (answer := rule(read)) is not None)
    evidence = plain({k: v for k, v in vars(read).items() if k != "switches"} | {
        "switches": read.switches, "switches_p": holm([s.p for s in read.switches]), "trend": read.trend,
        "left": None if read.ceiling is None else read.left,
    })  # fmt: skip
    return Verdict(value, sentence, interval, evidence)


def fine_tune(read: Read) -> Answer | None:
    """Rule 0."""
    if read.pilot is None or read.pilot.gain.sure[0] <= read.delta:
        return None
    gain, loss = read.pilot.gain, read.pilot.shifted_loss
    if loss is not None and loss.sure[1] >= read.delta:
        return None
    beside = "" if loss is None else f", and loses at most {max(0.0, 100 * loss.sure[1]):.1f} points elsewhere"
    return "fine_tune", (
        f"Fine-tuning pays: {gain.a} gets {points(gain.difference)} points ({span(gain.sure)}) more than {gain.b}, "
        f"frozen, as measured{beside}."
    ), gain.sure  # fmt: skip


def stay_frozen(read: Read) -> Answer | None:
    """Rule 1."""
    top, gain = read.ceiling, None if read.pilot is None else read.pilot.gain
    if top is not None and top.reachable and read.left[1] <= 0:
        return "stay_frozen", (
            f"Stay frozen: {percent(read.accuracy)} ({span(read.interval)}) reaches {top.source}, "
            f"{percent(top.accuracy)}."
        ), read.left  # fmt: skip
    if gain is None or gain.sure[1] >= read.delta or read.trend != "flat":
        return None
    return "stay_frozen", (
        f"Stay frozen: fine-tuning was measured and gains less than {points(read.delta)} points "
        f"({span(gain.sure, signed=True)}), and so would twice the labels."
    ), gain.sure  # fmt: skip


def switch(read: Read) -> Answer | None:
    """Rule 2."""
    adjusted = holm([s.p for s in read.switches])
    found = [s for s, p in zip(read.switches, adjusted, strict=True) if p <= LEVEL and s.sure[0] > 0]
    if not found:
        return None
    best = max(found, key=lambda s: s.difference)
    return "switch", (
        f"Switch first: {best.a} gets {points(best.difference)} points ({span(best.sure)}) more than {best.b}, and "
        "nothing needs training but a head."
    ), best.sure  # fmt: skip


def label_more(read: Read) -> Answer | None:
    """Rule 3."""
    if read.curve is None or read.trend != "falling":
        return None
    return "label_more", (
        f"Label more: from {read.curve.n} to {2 * read.curve.n} labels the error should fall by "
        f"{points(read.curve.gain)} points ({span(read.curve.gain_interval)}), by the fitted curve, which is a model."
    ), read.curve.gain_interval  # fmt: skip


def pilot(read: Read) -> Answer | None:
    """Rule 4."""
    if read.trend != "flat" or read.ceiling is None or read.left[0] <= read.delta or read.pilot is not None:
        return None
    cost = "" if read.cost is None else f" A pilot takes about {_said(read.cost)}."
    return "pilot", (
        f"Frozen has levelled off {points(read.ceiling.accuracy - read.accuracy)} points ({span(read.left)}) below "
        f"{read.ceiling.source}; try a fine-tuning pilot; stored features cannot tell that it will win.{cost}"
    ), read.left  # fmt: skip


def _said(cost: Cost) -> str:
    if cost.seconds is None:
        return f"{rounded(cost.passes)} passes through the encoder"
    hours = cost.seconds / 3600
    time = f"{hours:.1f} hours" if hours >= 1 else f"{max(1, round(60 * hours))} minutes"
    return f"{time} at the speed measured here ({rounded(cost.passes)} passes)"


def undecided(read: Read) -> Answer:
    """Rule 5: intervals that contain what they are compared with must shrink, as 1/√n, until they do not."""
    if read.curve is None:
        return "undecided", "The learning curve was not measured, so nothing can be said of more labels.", read.interval
    if read.trend == "flat" and read.ceiling is None:
        return "undecided", (
            f"Twice the labels would gain less than {points(read.delta)} points; whether that is enough depends on a "
            "target, and none was given."
        ), read.curve.gain_interval  # fmt: skip
    times = [_times(read.curve.gain, read.curve.gain_interval, read.delta)]
    if read.ceiling is not None:
        times.append(_times(read.ceiling.accuracy - read.accuracy, read.left, read.delta))
    if read.pilot is not None:
        times.append(_times(read.pilot.gain.difference, read.pilot.gain.sure, read.delta))
    if max(times) <= 1:
        return "undecided", _settled(read), read.left
    need = rounded(read.items * max(times))
    return "undecided", (
        f"Not enough data to say: to tell a gain of {points(read.delta)} points from less needs about {need} items; "
        f"you have {read.items}."
    ), read.curve.gain_interval  # fmt: skip


def _settled(read: Read) -> str:
    """Return what to say where every interval is narrow and still no rule holds."""
    if read.pilot is not None:
        gain = f"{points(read.pilot.gain.difference)} points ({span(read.pilot.gain.sure)})"
        return f"Fine-tuning gains {gain}, but may lose {points(read.delta)} or more on the shifted set: weigh the two."
    return (
        f"Nothing to do is left that surely gains {points(read.delta)} points: twice the labels gain less, and "
        f"{percent(read.accuracy)} is within that of {read.ceiling.source if read.ceiling else 'the ceiling'}."
    )


def _times(point: float, interval: Interval, bar: float) -> float:
    """Return by what factor items must grow until the interval leaves `bar`; 1 where it has."""
    low, high = interval
    if not low <= bar <= high:
        return 1.0
    half = point - low if point > bar else high - point
    return (half / abs(point - bar)) ** 2 if point != bar else float("inf")


RULES: tuple[Callable[[Read], Answer | None], ...] = (
    fine_tune, stay_frozen, switch, label_more, pilot, undecided,
)  # fmt: skip
