"""Untrained twins: an encoder's architecture with random weights, which one draw cannot speak for."""

from __future__ import annotations

from collections.abc import Sequence

from heads.report.candidates import Candidate
from heads.report.gather import Gathered
from heads.report.probes import FOLDS, plan
from heads.report.ranking import ALL_UP_TO, KEPT, Ridges, ridge_of


def families(controls: Sequence[Candidate]) -> list[list[Candidate]]:
    """Return controls with all draws of one twin together, in the order given."""
    found: dict[tuple[str, str], list[Candidate]] = {}
    for control in controls:
        twin = control.kind == "random" and control.of is not None
        found.setdefault(("twin of", str(control.of)) if twin else ("", control.name), []).append(control)
    return list(found.values())


def worth_drawing(found: Gathered, draws: int, seed: int) -> str | None:
    """Return the architecture whose untrained weights should be drawn that often, None where all is said.

    Of several it is the one whose twin is best by ridge, for that one is the bar: the others would cost extractions
    and change nothing.
    """
    drawn = [family for family in families(found.controls) if family[0].kind == "random"]
    if found.task is None or not drawn or len(set(found.task.units)) < FOLDS:
        return None
    best = drawn[0]
    if len(drawn) > 1:
        on = plan(found.task.y, found.task.units, seed=seed)
        accuracy = ridge_of([family[0] for family in drawn], on)
        best = max(drawn, key=lambda family: accuracy[family[0].name].accuracy)
    return best[0].of if len(best) < draws else None


def worth_comparing(controls: Sequence[Candidate], ridge: Ridges, n: int) -> list[Candidate]:
    """Return all controls up to 2,000 rows; above, the three best by ridge, where the twin drawn most often stands for
    all twins, and comes with all of its draws."""
    if n <= ALL_UP_TO:
        return list(controls)
    every = families(controls)
    most = max((len(family) for family in every), default=1)
    bars = [family for family in every if len(family) == most or family[0].kind != "random"]
    bars.sort(key=lambda family: -sum(ridge[c.name].accuracy for c in family) / len(family))
    kept = {c.name for family in bars[:KEPT] for c in family}
    return [c for c in controls if c.name in kept]
