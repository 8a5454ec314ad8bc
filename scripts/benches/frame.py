"""Contenders side by side: interleaved rounds in one process, the median of each, and the machine they ran on.

A limit is what the hardware would allow, a peer is what a user would take instead, and `us` is Permafrost through its
own verbs. All of a table do the same work on the same number of threads. Rounds are interleaved, so that what else the
machine does falls on all of them alike.
"""

from __future__ import annotations

import gc
import os
import platform
import resource
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

Role = Literal["limit", "peer", "us"]
FIGURES = ("items", "items_per_second", "wall_seconds", "cpu_seconds", "spread", "of_limit", "of_best_peer")


@dataclass(frozen=True)
class Contender:
    """One way to do the work. `run` does all of it once and returns how many items it did; `note` is shown as it is.

    Contenders of one `scope` are compared with each other only, and held against the limits that have their `group`,
    or none. What cannot run here has no `run`, and a note that says why.
    """

    role: Role
    name: str
    run: Callable[[], int] | None
    scope: str = ""
    note: str = ""
    group: str = ""


@dataclass
class Timing:
    """The rounds of one contender: items, wall seconds, and CPU seconds with those of ended child processes."""

    contender: Contender
    items: int = 0
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Items a second of wall time, in the median round; 0 for what did not run."""
        return self.items / statistics.median(self.wall) if self.wall else 0.0


def measure(contenders: Sequence[Contender], repeats: int) -> list[Timing]:
    """Run every contender once to warm up, then `repeats` interleaved rounds, each starting with another one."""
    timings = [Timing(c) for c in contenders]
    able = [(timing, timing.contender.run) for timing in timings if timing.contender.run is not None]
    for _, run in able:
        run()
    for turn in range(repeats):
        first = turn % len(able)
        for timing, run in able[first:] + able[:first]:
            gc.collect()
            cpu, wall = cpu_seconds(), time.perf_counter()
            timing.items = run()
            timing.wall.append(time.perf_counter() - wall)
            timing.cpu.append(cpu_seconds() - cpu)
    return timings


def cpu_seconds() -> float:
    """Return the CPU seconds of this process and of its ended children."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(u.ru_utime + u.ru_stime for u in used)


def rows(timings: Sequence[Timing]) -> list[dict[str, Any]]:
    """Return one plain row for each contender; ratios are of items a second, within one scope.

    A limit is the slowest of its scope, since a whole run cannot beat its slowest part.
    """
    return [_row(t, [o for o in timings if o.contender.scope == t.contender.scope]) for t in timings]


def _row(timing: Timing, same: Sequence[Timing]) -> dict[str, Any]:
    contender = timing.contender
    if not timing.wall:
        return {**dict.fromkeys(FIGURES), **_names(contender)}
    groups = (contender.group, "") if contender.group else {t.contender.group for t in same}
    limits = [t.rate for t in same if t.wall and t.contender.role == "limit" and t.contender.group in groups]
    peers = [t.rate for t in same if t.wall and t.contender.role == "peer"]
    return {
        **_names(contender),
        "items": timing.items, "items_per_second": round(timing.rate, 2),
        "wall_seconds": round(statistics.median(timing.wall), 4),
        "cpu_seconds": round(statistics.median(timing.cpu), 4),
        "spread": round(max(timing.wall) / min(timing.wall), 3),
        "of_limit": round(timing.rate / min(limits), 3) if limits else None,
        "of_best_peer": round(timing.rate / max(peers), 3) if peers else None,
    }  # fmt: skip


def _names(contender: Contender) -> dict[str, str]:
    return {
        "scope": contender.scope, "role": contender.role, "name": contender.name, "group": contender.group,
        "note": contender.note,
    }  # fmt: skip


def table(title: str, unit: str, found: Sequence[dict[str, Any]]) -> str:
    """Return the rows as text."""
    width = max(len(row["name"]) for row in found)
    lines = [
        title,
        f"  {'':5} {'':{width}} {unit + '/s':>10} {'x limit':>8} {'x peer':>7} {'wall s':>8} {'cpu s':>8} spread",
    ]
    scope = None
    for row in found:
        if row["scope"] != scope:
            scope = row["scope"]
            lines += [f"  {scope}"] if scope else []
        if row["items"] is None:
            lines.append(f"  {row['role']:5} {row['name']:{width}} {'-':>10}  {row['note']}")
            continue
        ratios = [f"{row[key]:.2f}" if row[key] is not None else "-" for key in ("of_limit", "of_best_peer")]
        lines.append(
            f"  {row['role']:5} {row['name']:{width}} {row['items_per_second']:>10,.1f} {ratios[0]:>8} {ratios[1]:>7}"
            f" {row['wall_seconds']:>8.3f} {row['cpu_seconds']:>8.3f} {row['spread']:>5.2f}  {row['note']}".rstrip()
        )
    return "\n".join(lines)


def markdown(found: Sequence[dict[str, Any]]) -> str:
    """Return the rows as tables for a document, one for each scope."""
    lines: list[str] = []
    for scope in dict.fromkeys(row["scope"] for row in found):
        lines += [
            "",
            f"{scope}:",
            "",
            "| | items/s | of the limit | of the best peer | cpu s |",
            "|---|---|---|---|---|",
        ]
        for row in (row for row in found if row["scope"] == scope):
            if row["items"] is None:
                lines.append(f"| {row['role']}: {row['name']} | {row['note']} | | | |")
                continue
            ratios = [f"{row[key]:.2f}" if row[key] is not None else "" for key in ("of_limit", "of_best_peer")]
            lines.append(
                f"| {row['role']}: {row['name']} | {row['items_per_second']:,.1f} | {' | '.join(ratios)} "
                f"| {row['cpu_seconds']:.2f} |"
            )
    return "\n".join(lines[1:])


def machine(threads: int) -> dict[str, Any]:
    """Return what the figures depend on: processor, cores, load, threads, and versions."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text().splitlines() if facts.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    names = (
        "torch",
        "timm",
        "sentence-transformers",
        "lancedb",
        "numpy",
        "pillow",
        "faiss-gpu",
        "faiss-cpu",
        "hnswlib",
        "usearch",
        "openvino",
    )
    return {
        "processor": model, "cores": os.cpu_count(), "threads": threads, "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(), "python": platform.python_version(),
        "versions": {name: found for name in names if (found := version_of(name))},
    }  # fmt: skip


def version_of(name: str) -> str | None:
    """Return a distribution's version; None where it is not installed."""
    try:
        return version(name)
    except ModuleNotFoundError:
        return None
