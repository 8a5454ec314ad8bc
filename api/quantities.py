"""Sizes and times as people write them: `4GiB`, `10ms`."""

from __future__ import annotations

import re
from collections.abc import Mapping

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


def quantity(value: str, units: Mapping[str, float], example: str) -> float:
    """Return a number in the smallest unit. Raises `UsageError`, showing the `example`, where it is none."""
    found = QUANTITY.fullmatch(value.strip())
    if not found or found[2].lower() not in units:
        known = ", ".join(unit for unit in units if unit)
        raise UsageError(
            f"{value!r} is not a quantity", where=example.split()[0], hint=f"write {example}; units: {known}"
        )
    return float(found[1]) * units[found[2].lower()]


def most_bytes(value: str | None, option: str) -> int | None:
    """Return a size in bytes; None where none is given. Raises `UsageError` where it is none."""
    return None if value is None else int(quantity(value, UNITS, f"{option} 4GiB"))
