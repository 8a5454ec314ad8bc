"""Copies that nobody marked: do near-duplicates on both sides of a split make the score too high?

A nearest-neighbour vote is taken twice: once leaving out what is known to belong together, once also near-copies. The
two differ only where a copy gave the answer away. Near-copies are pairs much nearer than items commonly are: their
centred cosine is at least 0.95 and their distance at most a quarter of the median distance to the 20th neighbour.
Tight classes are not taken for copies, because there the 20th neighbour is near as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.report.compare import Resampler
from heads.report.verdict import Interval, plain

COSINE, NEARNESS, NEIGHBOUR = 0.95, 0.25, 20
BLOCK, MOST_SCALED = 500, 1000

Rows32 = NDArray[np.float32]


@dataclass(frozen=True)
class Leakage:
    """The vote with copies within reach, and without.

    Attributes:
        copies: how many scored rows have a near-copy, outside what is marked, among the rows to learn from.
        pairs: (P, 2) positions of such pairs, scored row first; at most 1,000.
        naive, honest: accuracy of the nearest row's class, near-copies within reach and out of it.
        interval: of naive - honest, 95 %, over units.
        scored: how many rows were scored.
    """

    copies: int
    pairs: Ints
    naive: float
    honest: float
    interval: Interval
    scored: int

    @property
    def gap(self) -> float:
        """By how much copies raise the score."""
        return self.naive - self.honest

    def as_json(self) -> dict[str, Any]:
        """Return every figure and the first hundred pairs."""
        shown = vars(self) | {"pairs": self.pairs[:100], "gap": self.gap}
        return {name: plain(value) for name, value in shown.items()}


def leakage(X: FloatMatrix, y: Ints, units: Ints, *, split: tuple[Ints, Ints] | None = None, seed: int = 0) -> Leakage:
    """Vote for every row among all others, or for the test rows among the training rows.

    Args:
        units: (n,) codes of what is known to belong together. Without `split` they are left out of the vote, as folds
            do; with it they are not: a split that cuts through a unit leaks.
        split: (train, test) positions, as the user drew them.
    """
    rows = np.asarray(X, dtype=np.float32) - np.asarray(X, dtype=np.float32).mean(axis=0)
    bank, scored = split if split is not None else (np.arange(len(X)), np.arange(len(X)))
    near = _Near.of(rows, bank, np.random.default_rng(seed))
    found = [
        near.vote(part, y, units, split is not None)
        for part in np.array_split(scored, max(1, -(-len(scored) // BLOCK)))
    ]
    naive, honest, copied = (np.concatenate([part[k] for part in found]) for k in range(3))
    pairs = np.concatenate([part[3] for part in found])
    own = np.unique(units[scored], return_inverse=True)[1].astype(np.intp)
    interval = Resampler(own, seed=seed).interval(naive - honest)
    pairs = pairs[: 2 * BLOCK]
    return Leakage(int(copied.sum()), pairs, float(naive.mean()), float(honest.mean()), interval, len(scored))


@dataclass(frozen=True)
class _Near:
    rows: Rows32
    bank: Ints
    squares: Rows32
    radius: float

    @classmethod
    def of(cls, rows: Rows32, bank: Ints, rng: np.random.Generator) -> _Near:
        squares = np.asarray((rows**2).sum(axis=1), dtype=np.float32)
        some = rng.permutation(bank)[:MOST_SCALED]
        found = cls(rows, bank, squares, 0.0)
        k = min(NEIGHBOUR, len(bank) - 1)
        distances = [np.partition(found.squared(part), k, axis=1)[:, k] for part in np.array_split(some, 4)]
        return cls(rows, bank, squares, NEARNESS**2 * float(np.median(np.concatenate(distances))))

    def squared(self, part: Ints) -> Rows32:
        product = self.rows[part] @ self.rows[self.bank].T
        return np.asarray(np.maximum(self.squares[part, None] + self.squares[self.bank] - 2 * product, 0))

    def vote(self, part: Ints, y: Ints, units: Ints, cut: bool) -> tuple[Any, Any, Any, Ints]:
        """Return per row: right by the nearest, right without near-copies, has one; and the pairs (P, 2)."""
        distance = self.squared(part)
        norms = np.sqrt(self.squares[part, None] * self.squares[self.bank])
        cosine = (self.squares[part, None] + self.squares[self.bank] - distance) / (2 * np.maximum(norms, 1e-30))
        same = part[:, None] == self.bank
        together = units[part][:, None] == units[self.bank]
        copy = (cosine >= COSINE) & (distance <= self.radius) | (together if cut else False)
        copy &= ~(same if cut else together)
        distance[same if cut else together] = np.inf
        naive = self._right(distance, part, y)
        pairs = np.argwhere(copy)
        distance[copy] = np.inf
        both = np.stack([part[pairs[:, 0]], self.bank[pairs[:, 1]]], axis=1)
        return naive, self._right(distance, part, y), copy.any(axis=1), both

    def _right(self, distance: Rows32, part: Ints, y: Ints) -> NDArray[np.float64]:
        nearest = distance.argmin(axis=1)
        known = np.isfinite(distance[np.arange(len(part)), nearest])
        return np.asarray((y[self.bank[nearest]] == y[part]) & known, dtype=np.float64)
