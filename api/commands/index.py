"""`permafrost index C`: choose, build, measure and swap in an index."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option
from embedder.errors import UsageError

UNITS = {
    "": 1,
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 1 << 10,
    "mib": 1 << 20,
    "gib": 1 << 30,
    "tib": 1 << 40,
}
TIMES = {"": 1.0, "us": 1e-3, "ms": 1.0, "s": 1e3}
QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


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
) -> Result:
    """Build, measure and swap in an index.

    Its recall is measured against exact search; what misses the targets is not swapped in, and the old index stays.
    """
    most_bytes = None if memory is None else int(_quantity(memory, UNITS, "--memory 4GiB"))
    most_ms = None if latency is None else _quantity(latency, TIMES, "--latency 10ms")
    with call.service() as service:
        built = service.index(collection, space=space, kind=kind, recall=recall, memory=most_bytes, latency_ms=most_ms)
    return Result(built, text(collection, built))


def _quantity(value: str, units: Mapping[str, float], example: str) -> float:
    found = QUANTITY.fullmatch(value.strip())
    if not found or found[2].lower() not in units:
        known = ", ".join(unit for unit in units if unit)
        raise UsageError(
            f"{value!r} is not a quantity", where=example.split()[0], hint=f"write {example}; units: {known}"
        )
    return float(found[1]) * units[found[2].lower()]


def text(collection: str, built: Mapping[str, Any]) -> str:
    """Return what was built, and why what was considered was not."""
    facts = [
        ("recall@10", f"{built['recall_at_10']:.3f}"),
        ("p50", f"{built['p50_ms']:.2f} ms"),
        ("memory", show.size(built["bytes"])),
        *(("not taken", f"{row['kind']}: {row['why_not']}") for row in built["considered"] if row.get("why_not")),
        ("damaged", ", ".join(map(show.safe, built["damaged"]))),
    ]
    seconds = show.duration(built["build_seconds"])
    return show.block(f"{collection}: {built['kind']} over {show.count(built['rows'], 'row')} in {seconds}", facts)
