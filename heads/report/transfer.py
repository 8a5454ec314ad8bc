"""Question 2: does pretraining help at all, against the best of the controls?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from heads.report.compare import Comparison, holm, paired
from heads.report.probes import Plan, Probe
from heads.report.selection import Nested, drawn, nested
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


def transfer(
    encoders: Sequence[Probe],
    controls: Sequence[Probe],
    on: Plan,
    *,
    twins: Mapping[str, str] | None = None,
    margin: float = MARGIN,
) -> Transfer:
    """Compare encoders with controls, both chosen inside the training rows of each fold.

    So neither the winner's luck nor the best control's enters the difference. Untrained twins of one architecture are
    one control, drawn several times: the encoder is compared with their mean, and the interval covers how much draws
    differ. `helps` also asks that no single control, no single draw either, does as well as the encoder chosen: a
    control that the inner rows overlooked still counts.

    Args:
        encoders, controls: linear probes on the plan, at least one of each.
        twins: the architecture of each control with random weights. Those drawn fewer times than another are no choice
            for the bar, and count as single controls only.
    """
    ours, bars = nested(encoders, on), drawn(bar_of(controls, twins or {}), on)
    bar = bars[0]
    gap = paired(
        ours.correct, np.stack([b.correct for b in bars]), on.fold, on.resampler, names=(ours.name, bar.name)
    )  # fmt: skip
    against = [
        paired(ours.correct, c.correct, on.fold, on.resampler, names=(ours.name, c.name)) for c in controls
    ]  # fmt: skip
    found = gap.direction(margin)
    if found == "above" and min(c.difference for c in against) <= 0:
        found = "undecided"
    evidence = {
        "difference": gap, "encoder": ours.name, "control": bar.name, "accuracy": ours.accuracy,
        "control_accuracy": float(np.mean([b.accuracy for b in bars])), "picked": ours.picked,
        "controls_picked": bar.picked, "control_draws": [b.accuracy for b in bars] if gap.draw_error else [],
        "margin": margin, "negative_transfer": found == "below",
    }  # fmt: skip
    again = len(bars) > 1 and bar.name in (twins or {})
    sentence = _sentence(found, ours, bar, gap, on, margin, again=again)
    verdict = Verdict(VALUES[found], sentence, gap.sure, evidence)
    return Transfer(verdict, against, holm([c.p for c in against]))


def bar_of(controls: Sequence[Probe], twins: Mapping[str, str]) -> list[list[Probe]]:
    """Return the controls to choose the bar from, all draws of a twin together; in the order given."""
    families: dict[str, list[Probe]] = {}
    for probe in controls:
        families.setdefault(f"untrained {twins[probe.name]}" if probe.name in twins else probe.name, []).append(probe)
    most = max((len(family) for family in families.values()), default=1)
    return [family for family in families.values() if len(family) == most or family[0].name not in twins]


def _sentence(
    found: Direction, ours: Nested, bar: Nested, gap: Comparison, on: Plan, margin: float, *, again: bool
) -> str:
    """Return the answer in words; `again`: whether the control that it names was drawn more than once."""
    size = f"{points(gap.difference)} points ({span(gap.sure, signed=True)})"
    control = bar.name + (f", mean of {gap.draws} seeds" if again else "")
    if found == "above":
        own = on.resampler.interval(ours.correct.mean(axis=0))
        groups = f" in {gap.units} groups" if gap.units < gap.items else ""
        return (
            f"Pretraining helps: on {gap.items} items{groups}, {ours.name} gets {percent(ours.accuracy)} "
            f"({span(own)}), {size} over the best control ({control})."
        )
    if found == "below":
        return f"{ours.name} is worse than {control} by {size}: negative transfer when frozen."
    if found == "tie":
        return (
            f"{ours.name} and {bar.name}, the best control, are tied within ±{points(margin)} points "
            f"({span(gap.tie_sure, signed=True)}, 90 %): pretraining makes no difference here."
        )
    return _small(gap, margin) + not_enough(*gap.needed(margin), gap.items)


def _small(gap: Comparison, margin: float) -> str:
    """Return what is known all the same where the difference is surely smaller than the margin."""
    low, high = gap.tie_sure
    if not -margin < low <= high < margin:
        return ""
    return (
        f"Whatever {gap.a} gains or loses against {gap.b} is less than {points(margin)} points "
        f"({span(gap.tie_sure, signed=True)}, 90 %). "
    )
