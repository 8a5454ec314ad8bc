"""What people read: escaped, aligned, and no wider than the terminal. Nothing here is parsed by a program."""

from __future__ import annotations

import json
import math
import shutil
import sys
import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

WIDE = ("W", "F")


def safe(value: Any) -> str:
    """Return a value as one line in which nothing controls the terminal: no escapes, line ends or bidi marks."""
    text = value if isinstance(value, str) else str(value)
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode("ascii") for c in text)


def width(text: str) -> int:
    """Return how many terminal cells a text takes."""
    if text.isascii():
        return len(text)
    return sum(0 if unicodedata.combining(c) else 1 + (unicodedata.east_asian_width(c) in WIDE) for c in text)


def columns() -> int | None:
    """Return the width of the terminal, or None where the output is not one and need not be cut."""
    return shutil.get_terminal_size().columns if sys.__stdout__ is not None and sys.__stdout__.isatty() else None


def cut(text: str, cells: int | None) -> str:
    """Return a text of at most so many cells, ending in `...` where it was cut."""
    if cells is None or width(text) <= cells:
        return text
    kept, used = [], 0
    for c in text:
        used += width(c)
        if used > max(0, cells - 3):
            break
        kept.append(c)
    return "".join(kept) + "..."[: max(0, cells)]


def aligned(rows: Sequence[Sequence[str]], *, gap: str = "  ") -> list[str]:
    """Return rows of cells as lines in which all columns but the last are padded to one width."""
    if not rows:
        return []
    widths = [max(width(row[i]) for row in rows) for i in range(len(rows[0]) - 1)]
    return [
        gap.join([*(cell + " " * (w - width(cell)) for cell, w in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    ]


def block(title: str, facts: Sequence[tuple[str, str]]) -> str:
    """Return a title and indented facts, those with an empty value left out, cut to the terminal."""
    room = columns()
    lines = aligned([(f"  {name}", value) for name, value in facts if value])
    return "\n".join(cut(line, room) for line in [title, *lines])


def count(n: int, noun: str = "") -> str:
    """Return `7,388`, or with a noun `7,388 items` and `1 item`."""
    return f"{n:,}" if not noun else f"{n:,} {noun}{'' if n == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Return `5.4 s`, `3 min 10 s` or `2 h 5 min`."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def size(n: float) -> str:
    """Return bytes as `512 B` or `21.3 MiB`."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if n < 1024:
            return f"{n:.0f} B" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} TiB"


def shares(stages: Mapping[str, float]) -> list[tuple[str, float]]:
    """Return the stages of a run with their shares of its time, the largest first; empty before any was spent.

    What the forward pass waited for is shared out as reading and decoding took, which run beside it.
    """
    before = stages["read"] + stages["decode"]
    reading = stages["wait"] * (stages["read"] / before if before else 0.0)
    own = {
        "read": reading, "decode": stages["wait"] - reading, "encode": stages["encode"], "write": stages["write"],
    }  # fmt: skip
    total = sum(own.values())
    return sorted(((name, spent / total) for name, spent in own.items()), key=lambda pair: -pair[1]) if total else []


def percent(pairs: Sequence[tuple[str, float]]) -> str:
    """Return `encode 62%, decode 31%, write 7%`."""
    return ", ".join(f"{name} {share:.0%}" for name, share in pairs)


def fields(item: Mapping[str, Any], *, without: Sequence[str] = ()) -> str:
    """Return an item's columns as `name=value`, texts quoted only where they hold a blank."""
    return "  ".join(f"{safe(name)}={_value(value)}" for name, value in item.items() if name not in without)


def _value(value: Any) -> str:
    text = safe(value)
    return json.dumps(text, ensure_ascii=False) if isinstance(value, str) and (" " in text or not text) else text
