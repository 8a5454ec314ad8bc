"""Question 2: does pretraining help at all, against the best of the controls?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from heads.report.compare import Comparison, holm, paired
from heads.report.probes import Plan, Probe
from heads.report.selection import Nested, nested
from heads.report.verdict import MARGIN, Direction, Verdict, not_enough, percent, plain, points, span

VALUES = {"above": "helps", "below": "hurts", "tie": "no_difference", "undecided": "undecided"}


@dataclass(frozen=True)
class Transfer:
    """The verdict, and the first encoder against each control with p adjusted for their number."""

    verdict: Verdict
    against: list[Comparison]
    adjusted: list[float]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


def transfer(encoders: Sequence[Probe], controls: Sequence[Probe], on: Plan, *, margin: float = MARGIN) -> Transfer:
    """Compare encoders with controls, both chosen inside the training rows of each fold.

    So neither the winner's luck nor the best control's enters the difference. `helps` also asks that no single control
    does as well as the encoder chosen: a control that the inner rows overlooked still counts.

    Args:
        encoders, controls: linear probes on the plan, at least one of each.
    """
    ours, bar = nested(encoders, on), nested(controls, on)
    gap = paired(ours.correct, bar.correct, on.fold, on.resampler, names=(ours.name, bar.name))
    against = [
        paired(ours.correct, c.correct, on.fold, on.resampler, names=(ours.name, c.name)) for c in controls
    ]  # fmt: skip
    found = gap.direction(margin)
    if found == "above" and min(c.difference for c in against) <= 0:
        found = "undecided"
    evidence = {
        "difference": gap, "encoder": ours.name, "control": bar.name, "accuracy": ours.accuracy,
        "control_accuracy": bar.accuracy, "picked": ours.picked, "controls_picked": bar.picked, "margin": margin,
        "negative_transfer": found == "below",
    }  # fmt: skip
    verdict = Verdict(VALUES[found], _sentence(found, ours, bar, gap, on, margin), gap.sure, evidence)
    return Transfer(verdict, against, holm([c.p for c in against]))


def _sentence(found: Direction, ours: Nested, bar: Nested, gap: Comparison, on: Plan, margin: float) -> str:
    size = f"{points(gap.difference)} points ({span(gap.sure, signed=True)})"
    if found == "above":
        own = on.resampler.interval(ours.correct.mean(axis=0))
        groups = f" in {gap.units} groups" if gap.units < gap.items else ""
        return (
            f"Pretraining helps: on {gap.items} items{groups}, {ours.name} gets {percent(ours.accuracy)} "
            f"({span(own)}), {size} over the best control ({bar.name})."
        )
    if found == "below":
        return f"{ours.name} is worse than {bar.name} by {size}: negative transfer when frozen."
    if found == "tie":
        return (
            f"{ours.name} and {bar.name}, the best control, are tied within ±{points(margin)} points "
            f"({span(gap.tie_interval, signed=True)}, 90 %): pretraining makes no difference here."
        )
    return not_enough(*gap.needed(margin), gap.items)
