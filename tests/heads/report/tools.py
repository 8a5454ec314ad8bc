"""Oracles, and probes made of nothing but which rows are right."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from heads.report.probes import FOLDS, Plan, Probe, plan

ORACLES: dict[str, Any] = json.loads((Path(__file__).parent / "oracles.json").read_text(encoding="utf-8"))


def even(n: int, repeats: int = 2, seed: int = 0, copies: int = 1) -> Plan:
    """Two classes in turn by unit, `copies` rows a unit."""
    y = np.repeat(np.arange(n // copies) % 2, copies)
    return plan(y, [f"u{i // copies}" for i in range(n)], repeats=repeats, seed=seed)


def probe(on: Plan, right: ArrayLike, name: str = "a", inner: float = 0.0) -> Probe:
    """A probe that is right on the rows given by a mask (n,) or (R, n), and looked so good inside every fold."""
    correct = np.broadcast_to(np.asarray(right, dtype=bool), on.fold.shape)
    said = np.where(correct, on.y, 1 - on.y)
    p = np.where(np.arange(2) == said[..., None], 0.9, 0.1).astype(np.float32)
    scores = np.full((len(on.fold), FOLDS), inner)
    return Probe(name, "linear", on.y, p, scores, np.ones_like(scores), 0.0)


def share(on: Plan, accuracy: float, seed: int) -> np.ndarray:
    """A mask of rows, each right with that probability."""
    return np.random.default_rng(seed).random(len(on)) < accuracy
