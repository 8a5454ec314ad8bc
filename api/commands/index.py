"""`permafrost index C`: choose, build, measure and swap in an index."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option
from api.pairs import pairs
from api.quantities import TIMES, UNITS, quantity

MEASURED = (("recall_at_10", 3), ("p50_ms", 3), ("build_seconds", 1))


def run(
    call: Call,
    collection: options.Name,
    space: options.Space = None,
    kind: Annotated[
        str, option("A kind of index; auto chooses from the targets.", metavar="KIND", show_default=True)
    ] = "auto",
    recall: Annotated[
        float, option("The least recall@10 that is swapped in.", metavar="R", min=0, max=1, show_default=True)
    ] = 0.95,
    memory: Annotated[str | None, option("The most memory a search may hold, such as 4GiB.", metavar="SIZE")] = None,
    latency: Annotated[str | None, option("The most time for the median query, such as 10ms.", metavar="TIME")] = None,
    set: Annotated[
        list[str] | None,
        option("An argument of --kind, which is then not tuned; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    seed: Annotated[int, option("Which vectors are held out to measure.", metavar="N", min=0, show_default=True)] = 0,
) -> Result:
    """Build, measure and swap in an index.

    Without --kind, vectors are searched exactly up to 50,000; above that, or for a --latency or --memory that exact
    search misses, the fastest kind that meets the targets is taken. Recall is measured against exact search; what
    misses the targets is not swapped in, and the old index stays.
    """
    most_bytes = None if memory is None else int(quantity(memory, UNITS, "--memory 4GiB"))
    most_ms = None if latency is None else quantity(latency, TIMES, "--latency 10ms")
    with call.service() as service:
        built = service.index(
            collection, space=space, kind=kind, recall=recall, memory=most_bytes, latency_ms=most_ms,
            args=pairs(set or [], "--set NAME=VALUE"), seed=seed, say=_say,
        )  # fmt: skip
    return Result(built, text(collection, built))


def _say(message: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"measuring {message}\n")


def text(collection: str, built: Mapping[str, Any]) -> str:
    """Return what was built, and what was considered and not taken."""
    facts = [
        ("recall@10", f"{built['recall_at_10']:.3f}"),
        ("p50", f"{built['p50_ms']:.2f} ms"),
        ("memory", show.size(built["bytes"])),
        ("arguments", show.fields(built["args"])),
        ("damaged", ", ".join(map(show.safe, built["damaged"]))),
    ]
    seconds = show.duration(built["build_seconds"])
    title = f"{collection}: {built['kind']} over {show.count(built['rows'], 'row')}, built in {seconds}"
    considered = built["considered"] if len(built["considered"]) > 1 else []
    return "\n".join([show.block(title, facts), *_table(considered)])


def _table(considered: Sequence[Mapping[str, Any]]) -> list[str]:
    if not considered:
        return []
    rows: list[tuple[str, ...]] = [("  considered", "rows", "memory", "recall@10", "p50 ms", "build s", "why not")]
    for row in considered:
        measured = (_number(row[name], places) for name, places in MEASURED)
        verdict = "taken" if row["chosen"] else str(row["why_not"])
        rows.append((f"  {row['kind']}", _number(row["rows"], 0), show.size(row["bytes"]), *measured, verdict))
    room = show.columns()
    return [show.cut(line, room) for line in show.aligned(rows)]


def _number(value: float | None, places: int) -> str:
    return "-" if value is None else f"{value:,.{places}f}"
