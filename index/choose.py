"""Which kind of index answers fastest within a budget, found by measuring on the user's own vectors.

Estimates come first and rule out what would not fit. With many rows the rest is built on a sample, where a kind that
misses the recall is dropped and the others are put in order; the first that meets the targets in full is taken. A
sample is easier than the whole: nothing is taken for a figure that was measured on one.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from embedder import kinds
from embedder.errors import Refused, UsageError
from embedder.records import FloatMatrix
from index import derived, measure
from index.kinds._cost import Estimate
from index.memory import available

EXACT_UP_TO = 50_000
SAMPLE = 50_000
SLACK = 2.0


def silent(message: str) -> None:
    """Tell nobody."""


@dataclass(frozen=True)
class Targets:
    """Least recall@10; most bytes that a search holds and most milliseconds of the median query, where there is one."""

    recall: float
    memory: int | None = None
    latency_ms: float | None = None


@dataclass
class Candidate:
    """A kind with arguments, what it is estimated to cost, and what was measured on `rows` rows, once it was."""

    name: str
    kind: derived.IndexKind
    args: Any
    fixed: frozenset[str]
    cost: Estimate
    rows: int | None = None
    recall: float | None = None
    p50_ms: float | None = None
    seconds: float | None = None
    why_not: str | None = None
    chosen: bool = False

    def as_row(self) -> dict[str, Any]:
        """Return it as people and programs are shown it."""
        return {
            "kind": self.name, "args": asdict(self.args), "rows": self.rows, "bytes": self.cost.bytes,
            "build_bytes": self.cost.build_bytes, "recall_at_10": self.recall, "p50_ms": self.p50_ms,
            "build_seconds": self.seconds, "chosen": self.chosen, "why_not": self.why_not,
        }  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """The candidate whose files lie in the folder, what its manifest is to say of it, and all candidates."""

    won: Candidate
    min_selectivity: float
    measured: dict[str, Any]
    considered: list[Candidate]


def choose(
    matrix: FloatMatrix, folder: Path, kind: str, values: Mapping[str, Any], targets: Targets,
    *, seed: int, where: str, say: Callable[[str], None] = silent,
) -> Choice:  # fmt: skip
    """Build the fastest kind that meets the targets in `folder`; of equally fast ones, the smaller.

    Raises:
        Refused: there is none.
    """
    found = candidates(len(matrix), matrix.shape[1], kind, values, targets)
    free = available()
    for candidate in found:
        candidate.why_not = too_big(candidate.cost, targets, free)
    left = [c for c in found if c.why_not is None]
    tuning, judging = measure.held_out(matrix, seed) if left else (None, None)
    if len(left) > 1 and len(matrix) > SAMPLE:
        left = _sampled(matrix, folder, left, targets, seed, say)
    won: Candidate | None = None
    for candidate in left:
        if won is not None and len(matrix) > SAMPLE:
            candidate.why_not = "slower on the sample"
            continue
        assert tuning is not None and judging is not None  # noqa: PT018
        _trial(candidate, folder / candidate.name, tuning, judging, targets.recall, say)
        candidate.why_not = _misses(candidate, targets)
        if candidate.why_not is None:
            won = _better(won, candidate)
    if won is None or judging is None:
        raise _refusal(found, matrix, targets, where)
    won.chosen = True
    _settle(folder, won, found)
    least = 0.0
    if not won.kind.EXACT:
        engine = won.kind.load(folder, matrix, won.args)
        least = measure.min_selectivity(engine, judging, targets.recall, seed)
    return Choice(won, least, _facts(won, judging, targets, seed), found)


def candidates(n: int, dim: int, kind: str, values: Mapping[str, Any], targets: Targets) -> list[Candidate]:
    """Return what is considered, the fastest by estimate first.

    Raises:
        UsageError: arguments without a kind that they are for.
    """
    if kind != "auto":
        return [_candidate(kind, n, dim, values)]
    if values:
        raise UsageError("arguments are for one kind of index", hint="say which: --kind K --set NAME=VALUE")
    flat = _candidate("flat", n, dim, {})
    if n <= EXACT_UP_TO and targets.latency_ms is None and too_big(flat.cost, targets, None) is None:
        return [flat]
    every = [_candidate(name, n, dim, {}) for name in offered()]
    return sorted(every, key=lambda c: c.cost.query_ms)


def offered() -> list[str]:
    """Return the kinds that are chosen from on this machine."""
    known = {name: derived.kind_of(name) for name in kinds.names("index.kinds")}
    return [name for name, kind in known.items() if kind.AUTO and missing(kind) is None]


def missing(kind: derived.IndexKind) -> str | None:
    """Return what this machine lacks for a kind; None where nothing."""
    says: Callable[[], str | None] | None = getattr(kind, "missing", None)
    return says() if says else None


def _candidate(name: str, n: int, dim: int, values: Mapping[str, Any]) -> Candidate:
    kind = derived.kind_of(name)
    args = derived.make_args(kind, values)
    return Candidate(name, kind, args, frozenset(values), kind.estimate(n, dim, args))


def too_big(cost: Estimate, targets: Targets, free: int | None) -> str | None:
    """Return why an estimate rules a candidate out; None where it does not."""
    if targets.memory is not None and cost.bytes > targets.memory:
        return f"needs {cost.bytes:,} bytes, {targets.memory:,} allowed"
    if free is not None and cost.build_bytes > free:
        return f"building needs {cost.build_bytes:,} bytes, {free:,} are free on this machine"
    return None


def _trial(
    candidate: Candidate, folder: Path, tuning: measure.HeldOut, judging: measure.HeldOut, wanted: float,
    say: Callable[[str], None],
) -> None:  # fmt: skip
    matrix = judging.matrix
    say(f"{candidate.name} over {len(matrix):,} rows")
    folder.mkdir(exist_ok=True)
    started = time.monotonic()
    candidate.kind.build(matrix, folder, candidate.args)
    candidate.seconds = round(time.monotonic() - started, 3)
    engine = candidate.kind.load(folder, matrix, candidate.args)
    values = candidate.kind.tunable(len(matrix), candidate.args)
    candidate.recall = round(measure.tuned(engine, values, candidate.fixed, tuning, judging, wanted), 4)
    candidate.args, candidate.rows, candidate.p50_ms = engine.args, len(matrix), judging.p50_ms(engine)


def _sampled(
    matrix: FloatMatrix, folder: Path, left: list[Candidate], targets: Targets, seed: int, say: Callable[[str], None]
) -> list[Candidate]:
    """Measure the candidates on a sample and return those worth building, the one likely fastest first.

    A median on a sample becomes one of all rows by the ratio of the kind's own estimates.
    """
    rows = np.sort(np.random.default_rng(seed).permutation(len(matrix))[:SAMPLE])
    sample = np.ascontiguousarray(matrix[rows])
    tuning, judging = measure.held_out(sample, seed)
    likely: dict[str, float] = {}
    for candidate in left:
        begun = candidate.args
        _trial(candidate, folder / "sample", tuning, judging, targets.recall, say)
        shutil.rmtree(folder / "sample")
        ratio = (
            candidate.kind.estimate(len(matrix), matrix.shape[1], candidate.args).query_ms
            / candidate.kind.estimate(len(sample), matrix.shape[1], candidate.args).query_ms
        )
        likely[candidate.name] = (candidate.p50_ms or 0.0) * ratio
        found = candidate.recall or 0.0
        if found < targets.recall:
            candidate.why_not = f"recall@10 {found:.3f} on a sample, {targets.recall:g} wanted"
        elif targets.latency_ms is not None and likely[candidate.name] > SLACK * targets.latency_ms:
            candidate.why_not = (
                f"p50 about {likely[candidate.name]:.2f} ms by a sample, {targets.latency_ms:g} ms wanted"
            )
        candidate.args = begun if candidate.why_not is None else candidate.args
    return sorted((c for c in left if c.why_not is None), key=lambda c: likely[c.name])


def _misses(candidate: Candidate, targets: Targets) -> str | None:
    recall, p50 = candidate.recall or 0.0, candidate.p50_ms or 0.0
    if recall < targets.recall:
        return f"recall@10 {recall:.3f}, {targets.recall:g} wanted"
    if targets.latency_ms is not None and p50 > targets.latency_ms:
        return f"p50 {p50:.2f} ms, {targets.latency_ms:g} ms wanted"
    return None


def _better(won: Candidate | None, other: Candidate) -> Candidate:
    if won is None:
        return other
    first, second = sorted((won, other), key=lambda c: (c.p50_ms or 0.0, c.cost.bytes))
    second.why_not = f"slower: p50 {second.p50_ms:.3f} ms, {first.name} {first.p50_ms:.3f} ms"
    return first


def _settle(folder: Path, won: Candidate, considered: list[Candidate]) -> None:
    """Move the winner's files up and remove the rest."""
    for path in sorted((folder / won.name).iterdir()):
        path.rename(folder / path.name)
    for candidate in considered:
        shutil.rmtree(folder / candidate.name, ignore_errors=True)


def _facts(won: Candidate, judging: measure.HeldOut, targets: Targets, seed: int) -> dict[str, Any]:
    return {
        "recall_at_10": won.recall, "p50_ms": won.p50_ms, "probes": len(judging.rows), "seed": seed,
        "wanted": asdict(targets), "bytes": won.cost.bytes, "build_seconds": won.seconds,
    }  # fmt: skip


def _refusal(considered: list[Candidate], matrix: FloatMatrix, targets: Targets, where: str) -> Refused:
    """Return the refusal with everything considered, and the nearest choice that is possible."""
    table = "; ".join(f"{c.name}: {c.why_not}" for c in considered)
    measured = [c for c in considered if c.recall is not None]
    if not measured:
        every = [_candidate(name, len(matrix), matrix.shape[1], {}) for name in offered()]
        fits = [c for c in every if too_big(c.cost, targets, available()) is None]
        small = min(fits or every, key=lambda c: c.cost.query_ms if fits else c.cost.bytes)
        said = f"{small.name} needs {small.cost.bytes:,} bytes"
        hint = f"{said}: --kind {small.name}" if fits else f"{said}, the least of all: --memory {small.cost.bytes}"
    else:
        best = max(measured, key=lambda c: (min(c.recall or 0.0, targets.recall), -(c.p50_ms or 0.0)))
        rows = "" if best.rows == len(matrix) else f" on {best.rows:,} rows"
        hint = f"the nearest is {best.name}: recall@10 {best.recall:.3f} at {best.p50_ms:.2f} ms{rows}"
        hint += "; lower --recall or raise the budget"
    return Refused(f"no index meets the targets: {table}", where=f"collection {where}", hint=hint)
