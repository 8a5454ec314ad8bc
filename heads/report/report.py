"""The transfer report: five questions answered from what was gathered, with every figure behind the answers.

Deterministic: the same items, labels, vectors and seed give the same document.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from heads.report import tables
from heads.report.answers import Answers, Asked, Probed
from heads.report.compare import items_needed
from heads.report.curve import Curve, fit, measure
from heads.report.domain import Reference, domain
from heads.report.freeze import Ceiling, Pilot, ceiling, freeze, pilot_cost
from heads.report.freeze import Read as Frozen
from heads.report.gather import Gathered
from heads.report.labels_saved import LabelsSaved, labels_saved
from heads.report.leakage import leakage
from heads.report.neighbours import READ, Neighbours, by_neighbours
from heads.report.noise import noise
from heads.report.pilot import pilot
from heads.report.probes import FOLDS, Plan, Probe, cross_validated, linear, linear_head, plan
from heads.report.ranking import ALL_UP_TO, rank, ridge_of, worth_probing
from heads.report.ridge import RidgeProbe
from heads.report.signs import Signs, contrasts
from heads.report.steps import Say, Step, silent
from heads.report.task import task
from heads.report.terms import TermCounts
from heads.report.transfer import Transfer, transfer
from heads.report.twins import worth_comparing
from heads.report.verdict import MARGIN, Verdict, not_enough

DISCORDANT = 0.2
DRAWS, FEW_DRAWS = 8, 3


def report(
    found: Gathered,
    asked: Asked,
    reference: Callable[[str], Reference] | None = None,
    mlp: Callable[[], Any] | None = None,
    say: Say = silent,
) -> dict[str, Any]:
    """Answer the five questions.

    Args:
        reference: returns the vectors to compare the domain with, of the encoder named; none was asked for otherwise.
        mlp: makes the non-linear head that is compared with the linear one.
        say: is told what is being done.

    Returns:
        `verdicts encoders tables figures notes`, as the contract has them, all plain values.
    """
    if found.task is None or len(set(found.task.units)) < FOLDS:
        return _too_few(found)
    on = plan(found.task.y, found.task.units, seed=asked.seed)
    probed = probe(found, on, asked, say)
    ours = probed.of("encoder", "layer")
    ranking = rank(ours, probed.candidates, on, ridge=_encoders(probed))
    voted = probed.of("encoder", head="knn")
    moved, deeper = (
        transfer([*probes, *voted], probed.controls, on, twins=probed.twins)
        for probes in (probed.of("encoder") or ours, ours)
    )
    base = max(probed.of("encoder") or ours, key=lambda p: p.accuracy)
    present = probed.probes.get(asked.default or "", base)
    control = moved.verdict.evidence["control"]
    curves = _curves([base.name, control, present.name], probed, asked, say)
    signs = _signs(found, probed, base, curves[base.name], mlp, asked, say)
    fitted = task(signs, on, delta=asked.delta)
    say(Step("domain"))
    near = domain(
        _dense(probed, base.name), on.units, None if reference is None else reference(base.name), seed=asked.seed
    )
    answers = Answers(
        asked, probed, base.name, present.name, ranking, _beside(moved, deeper), fitted, near,
        _freeze(found, probed, signs, curves[present.name], base, present, moved, asked), signs, curves[control],
        _saved(curves[base.name], curves[control], asked),
    )  # fmt: skip
    say(Step("scores"))
    return tables.document(found, answers, {name: v.as_json() for name, v in answers.verdicts.items()})


def _beside(moved: Transfer, deeper: Transfer) -> Transfer:
    """Return the comparison of encoders as they are read by default, as the untrained twins are; where layers and
    poolings among the choices would change the answer, say so."""
    its, other = moved.verdict, deeper.verdict
    evidence = {**its.evidence, "with_layers": {"value": other.value, **other.evidence}}
    sentence = its.sentence
    if other.value != its.value:
        sentence += f" With other layers and poolings among the choices the answer would be: {SAID[other.value]}."
    return replace(moved, verdict=replace(its, sentence=sentence, evidence=evidence))


def _encoders(probed: Probed) -> dict[str, RidgeProbe]:
    return {name: cheap for name, cheap in probed.cheap.items() if not probed.candidates[name].control}


def probe(found: Gathered, on: Plan, asked: Asked, say: Say) -> Probed:
    """Probe every candidate; above 2,000 rows the three best of encoders and of controls by ridge, and the default. Up
    to 2,000 rows encoders and what is raw are also read by neighbours."""
    every = [*found.encoders, *found.controls]
    cheap: dict[str, RidgeProbe] = {}
    chosen = every
    if len(on) > ALL_UP_TO:
        dense = [c for c in every if not isinstance(c.X, TermCounts) and c.kind != "majority"]
        for at, candidate in enumerate(dense):
            say(Step("ridge", candidate.name, at, len(dense)))
            cheap |= ridge_of([candidate], on)
        kept = worth_probing(found.encoders, cheap, on, asked.default)
        if not any(c.kind == "encoder" for c in kept):
            kept += [max((c for c in found.encoders if c.kind == "encoder"), key=lambda c: cheap[c.name].accuracy)]
        controls = worth_comparing([c for c in dense if c.control], cheap, len(on))
        chosen = [*kept, *controls, *(c for c in found.controls if c.name not in cheap)]
    probes = {}
    for at, candidate in enumerate(chosen):
        say(Step("probes", candidate.name, at, len(chosen)))
        probes[candidate.name] = linear(candidate, on)
    near = [by_neighbours(c) for c in chosen if c.kind in READ] if len(on) <= ALL_UP_TO else []
    probes |= {c.name: cross_validated(c, on, Neighbours, head="knn") for c in near}
    return Probed(on, {c.name: c for c in [*every, *near]}, probes, cheap)


def _dense(probed: Probed, name: str) -> Any:
    return probed.candidates[name].X


def _curves(names: Sequence[str], probed: Probed, asked: Asked, say: Say) -> dict[str, Curve]:
    """Measure and fit a curve for each, with the penalty that its own probes chose: one fit a size and draw."""
    on, found = probed.on, {}
    draws, every = DRAWS if len(on) <= ALL_UP_TO else FEW_DRAWS, list(dict.fromkeys(names))
    for at, name in enumerate(every):
        say(Step("curves", name, at, len(every)))
        it, C = probed.candidates[name], probed.probes[name].C
        make = Neighbours if it.head == "knn" else partial(linear_head, it, C)
        found[name] = fit(measure(it, on, make, draws=draws), seed=asked.seed)
    return found


def _signs(
    found: Gathered, probed: Probed, base: Probe, curve: Curve, mlp: Callable[[], Any] | None, asked: Asked, say: Say
) -> Signs:
    on, candidate = probed.on, probed.candidates[base.name]
    layers = [p for p in probed.of("layer") if found.parents.get(p.name) == base.name]
    say(Step("heads", base.name))
    return Signs(
        base, contrasts(candidate, on, mlp), layers, curve=curve, noise=noise(base, on.resampler),
        leakage=leakage(_dense(probed, base.name), on.y, on.units, seed=asked.seed),
    )  # fmt: skip


def _freeze(
    found: Gathered, probed: Probed, signs: Signs, curve: Curve, base: Probe, present: Probe, moved: Transfer,
    asked: Asked,
) -> Verdict:  # fmt: skip
    """Ask whether to stay with what is in use: every other encoder and layer, and other heads on it, may be better,
    and so may be the control, where pretraining hurts."""
    on, it = probed.on, probed.candidates[present.name]
    others: list[Probe] = [p for p in probed.of("encoder", "layer") if p is not present]
    others += [replace(p, name=f"{p.name} with {p.head}") for p in signs.contrasts]
    if moved.verdict.value == "hurts":
        others.append(probed.probes[moved.verdict.evidence["control"]])
    return freeze(Frozen(
        present.accuracy, on.resampler.interval(present.correct.mean(axis=0)), len(on), curve,
        [on.compare(p, present) for p in others], _ceiling(signs, asked), _pilot(found, probed, base, asked),
        pilot_cost(len(on), it.items_per_second), asked.delta,
    ))  # fmt: skip


def _pilot(found: Gathered, probed: Probed, base: Probe, asked: Asked) -> Pilot | None:
    """Compare a tuned encoder with the best frozen one on the items that it did not see, and say so."""
    if found.tuned is None or found.task is None:
        return None
    name, seen, free = found.tuned.name, len(found.tuned.train), len(found.tuned.test)
    measured = pilot(probed.candidates[base.name], found.tuned, probed.on.y, found.task.units, asked.seed)
    how = "is compared with frozen on" if measured else "too little is left to compare it with frozen on"
    found.notes.append(
        f"{name} was tuned on {seen:,} of these items with their labels: it is in no ranking, and {how} "
        f"the {free:,} that it did not see."
    )
    return measured


def _ceiling(signs: Signs, asked: Asked) -> Ceiling | None:
    rate = None if signs.noise is None else signs.noise.rate
    return ceiling(target=asked.target, human_disagreement=asked.human, noise=rate)


def _saved(ours: Curve, bar: Curve, asked: Asked) -> LabelsSaved:
    sizes = ours.measured.sizes.astype(float)
    return labels_saved(sizes, ours.measured.errors, bar.measured.errors, seed=asked.seed)


def _too_few(found: Gathered) -> dict[str, Any]:
    n = found.labelled
    sentence = not_enough(MARGIN, items_needed(MARGIN, DISCORDANT), n)
    evidence = {"items": n, "left_out": found.left_out, "items_needed": items_needed(MARGIN, DISCORDANT)}
    verdicts = {name: Verdict("undecided", sentence, None, evidence).as_json() for name in QUESTIONS}
    return {
        "verdicts": verdicts, "encoders": [], "tables": {},
        "figures": {"items": n, "classes": [], "left_out": found.left_out}, "notes": found.notes,
    }  # fmt: skip


SAID = {"helps": "it helps", "hurts": "it hurts", "no_difference": "no difference", "undecided": "not enough data"}
QUESTIONS: Sequence[str] = ("encoder", "transfer", "domain", "task", "freeze")
