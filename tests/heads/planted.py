"""Data with a known answer, and how often a right test may be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax
from scipy.stats import binom

ORACLES = Path(__file__).parents[1] / "golden" / "heads.json"


def oracle(name: str) -> Any:
    return json.loads(ORACLES.read_text(encoding="utf-8"))[name]


def most(n: int, rate: float) -> int:
    """How many of n alarms a test of this rate exceeds with probability below 0.1 %."""
    return int(binom.isf(0.001, n, rate))


def drawn(
    n: int, C: int, seed: int, heat: float = 1.0, spread: float = 1.5
) -> tuple[NDArray[Any], NDArray[np.float64]]:
    """Labels drawn from softmax(z), predicted as softmax(heat·z): calibrated when heat is 1."""
    rng = np.random.default_rng(seed)
    z = spread * rng.normal(size=(n, C))
    true = softmax(z, axis=1)
    return (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1), softmax(heat * z, axis=1)


def alone(n: int) -> list[str]:
    """Units of one row each."""
    return [f"u{i}" for i in range(n)]
