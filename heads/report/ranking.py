"""Question 1: which encoder, layer and pooling helps most, with ties as ties and cost beside."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from heads.report.candidates import Candidate
from heads.report.compare import Comparison, holm
from heads.report.probes import Plan, Probe
from heads.report.ridge import FoldRidge, RidgeProbe
from heads.report.selection import bias_corrected, nested
from heads.report.verdict import LEVEL, MARGIN, Interval, Verdict, not_enough, percent, plain, points, span

KEPT, ALL_UP_TO = 3, 2000
Ridges = Mapping[str, RidgeProbe]


@dataclass(frozen=True)
class Ranked:
    """One line of the ranking.

    Attributes:
        accuracy, interval: of the probe on held-out rows, 95 % by bootstrap over units.
        behind: how far behind the first, None for the first itself; `p`: adjusted for all comparisons (Holm).
        standing: `first`; `tied` (within ±margin by TOST); `not told apart`; `behind`.
        ridge: accuracy of the cheap probe that orders the queue, None where it was not needed.
    """

    name: str
    accuracy: float
    interval: Interval
    behind: Comparison | None
    p: float | None
    standing: str
    items_per_second: float | None
    bytes_per_vector: int | None
    ridge: float | None

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


@dataclass(frozen=True)
class Ranking:
    """The verdict, the lines best first, and those left out after the cheap probe (name → its accuracy)."""

    verdict: Verdict
    ranked: list[Ranked]
    left_out: dict[str, float]

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return {name: plain(value) for name, value in vars(self).items()}


def ridge_of(candidates: Iterable[Candidate], on: Plan) -> dict[str, RidgeProbe]:
    """Probe dense candidates with ridge on the first repeat's folds: seconds each, and honest."""
    return {c.name: FoldRidge(c.X, on.fold[0]).probe(on.y, on.n_classes) for c in candidates}  # type: ignore[arg-type]


def worth_probing(
    candidates: Sequence[Candidate], ridge: Mapping[str, RidgeProbe], on: Plan, default: str | None = None
) -> list[Candidate]:
    """Return all candidates up to 2,000 rows; above, the three best by ridge, and `default`.

    The cheap choice reads all labels. At those sizes what it adds to the winner's score is far below a point; on
    smaller sets, where it would not be, nothing is left out.
    """
    if len(on) <= ALL_UP_TO:
        return list(candidates)
    best = sorted(candidates, key=lambda c: -ridge[c.name].accuracy)[:KEPT]
    return [c for c in candidates if c in best or c.name == default]


def rank(
    probes: Sequence[Probe],
    candidates: Mapping[str, Candidate],
    on: Plan,
    *,
    ridge: Mapping[str, RidgeProbe] | None = None,
    margin: float = MARGIN,
) -> Ranking:
    """Rank probes of encoders and layers on one plan.

    The confidence set holds what is not behind the first at the 5 % level. The first is itself picked by these data,
    so Holm's correction counts all pairs: with the pairs of the first alone, 20 useless encoders raised an alarm in 10
    of 40 runs. The set contains the best with at least 95 % confidence; `best` is said of a set of one alone.

    Args:
        probes: one a candidate, at least one.
        ridge: of all candidates, the ones without a probe included.
    """
    order = sorted(probes, key=lambda p: -p.accuracy)
    gaps = [on.compare(order[0], p) for p in order[1:]]
    adjusted = holm([gap.p for gap in gaps], len(probes) * (len(probes) - 1) // 2)
    cheap = ridge or {}
    ranked = [_line(order[0], candidates, on, cheap, "first", None, None)]
    for probe, gap, p in zip(order[1:], gaps, adjusted, strict=True):
        ranked.append(_line(probe, candidates, on, cheap, _standing(gap, p, margin), gap, p))
    names = {p.name for p in probes}
    left_out = {name: found.accuracy for name, found in cheap.items() if name not in names}
    return Ranking(_verdict(ranked, order, on, margin, left_out), ranked, left_out)


def _standing(gap: Comparison, p: float, margin: float) -> str:
    if p < LEVEL and gap.sure[0] > 0:
        return "behind"
    low, high = gap.tie_interval
    return "tied" if -margin < low and high < margin else "not told apart"


def _line(
    probe: Probe, candidates: Mapping[str, Candidate], on: Plan, ridge: Mapping[str, RidgeProbe], standing: str,
    gap: Comparison | None, p: float | None,
) -> Ranked:  # fmt: skip
    it, cheap = candidates[probe.name], ridge.get(probe.name)
    interval = on.resampler.interval(probe.correct.mean(axis=0))
    return Ranked(
        probe.name, probe.accuracy, interval, gap, p, standing, it.items_per_second, it.bytes_per_vector,
        cheap.accuracy if cheap else None,
    )  # fmt: skip


def _verdict(
    ranked: list[Ranked], order: list[Probe], on: Plan, margin: float, left_out: Mapping[str, float]
) -> Verdict:
    whole = nested(order, on)
    interval = on.resampler.interval(whole.correct.mean(axis=0))
    first, rest = ranked[0], [line for line in ranked[1:] if line.standing != "behind"]
    evidence = {
        "nested_accuracy": whole.accuracy, "picked": whole.picked, "apparent_accuracy": first.accuracy,
        "bias_corrected_accuracy": bias_corrected(order, on.resampler), "compared": len(ranked), "margin": margin,
        "items": len(on), "units": len(on.resampler.sizes), "left_out": left_out,
    }  # fmt: skip
    sentence = f"{first.name} gets {percent(whole.accuracy)} ({span(interval)}) of {len(on):,} items right, held out"
    sentence += " and corrected for choosing it; " if len(ranked) > 1 else ". "
    tied = tuple(line.name for line in rest)
    return Verdict(first.name, sentence + _remainder(ranked, rest, margin), interval, evidence, tied)


def _remainder(ranked: list[Ranked], rest: list[Ranked], margin: float) -> str:
    """Return how the others stand: behind, tied, or not told apart, with what it would take; and which is cheaper."""
    if len(ranked) == 1:
        return "Nothing else was compared."
    if not rest:
        nearest = min(float(line.behind.difference) for line in ranked[1:] if line.behind)
        return f"it is the best of {len(ranked)}: the next is {points(nearest)} points behind."
    said = []
    worded = {"tied": f"tied with it within ±{points(margin)} points", "not told apart": "not told apart from it"}
    for standing, words in worded.items():
        names = [line.name for line in rest if line.standing == standing]
        if names:
            said.append(f"{_listed(names)} {'is' if len(names) == 1 else 'are'} {words}")
    unsure = [line.behind for line in rest if line.standing == "not told apart" and line.behind]
    sentence = "; ".join(said) + "."
    if unsure:
        widest = max(unsure, key=lambda gap: gap.needed(margin)[1])
        sentence += " " + not_enough(*widest.needed(margin), widest.items)
    fastest = max([ranked[0], *rest], key=lambda line: line.items_per_second or 0)
    if fastest.name != ranked[0].name and fastest.items_per_second and ranked[0].items_per_second:
        times = fastest.items_per_second / ranked[0].items_per_second
        sentence += f" Of these {fastest.name} is the fastest, {times:.1f} times as fast as {ranked[0].name}."
    return sentence


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
