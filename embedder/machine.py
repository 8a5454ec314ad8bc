"""What this machine has, as far as a run's speed depends on it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

HALF = ("avx512_bf16", "amx_bf16")


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def fast_half(device: str) -> bool:
    """Say whether bfloat16 is computed faster than float32 there: on every GPU, and on CPUs with such instructions."""
    return device.startswith("cuda") or (device == "cpu" and _has_half(Path("/proc/cpuinfo")))


@cache
def _has_half(facts: Path) -> bool:
    if not facts.exists():
        return False
    flags = next((line for line in facts.read_text().splitlines() if line.startswith("flags")), "").split()
    return any(name in flags for name in HALF)
