"""Recall and speed of an index on the vectors it was built from, against exact search.

Stored rows are the queries, each without itself among its neighbours. One half tunes, the other half judges, so that
what is reported was not chosen by looking at it.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix
from index import derived
from index.kinds.flat import Flat

PROBES = 200
TIMED = 50
NEIGHBOURS = 10
MARGIN = 0.01
TRIES = 4
SHARES = (0.9, 0.75, 0.5, 0.25, 0.1, 0.05, 0.02, 0.01)
FILTERED_PROBES = 40
FILTERED_TIMED = 7


@dataclass(frozen=True)
class HeldOut:
    """Stored rows that ask, (m,) ascending, and their exact neighbours, (m, 10), -1 where there are fewer."""

    matrix: FloatMatrix
    rows: NDArray[np.int64]
    truth: NDArray[np.int64]

    @classmethod
    def of(cls, matrix: FloatMatrix, rows: NDArray[np.int64]) -> HeldOut:
        """Find the exact neighbours of these rows."""
        return cls(matrix, rows, others(Flat(matrix), matrix, rows))

    def recall(self, engine: derived.Engine) -> float:
        """Return the share of the exact neighbours that an engine finds."""
        return overlap(others(engine, self.matrix, self.rows), self.truth)

    def p50_ms(self, engine: derived.Engine) -> float:
        """Return the median time of a single query."""
        return median_ms(engine, self.matrix[self.rows[:TIMED]], None)


def held_out(matrix: FloatMatrix, seed: int) -> tuple[HeldOut, HeldOut]:
    """Return the rows that tune and the rows that judge, 200 each where there are 400."""
    chosen = np.random.default_rng(seed).permutation(len(matrix))[: 2 * PROBES]
    half = max(1, len(chosen) // 2)
    return HeldOut.of(matrix, np.sort(chosen[:half])), HeldOut.of(matrix, np.sort(chosen[-half:]))


def others(
    engine: derived.Engine, matrix: FloatMatrix, rows: NDArray[np.int64], allowed: NDArray[np.bool_] | None = None
) -> NDArray[np.int64]:
    """Return the neighbours of stored rows, each row itself left out: (m, 10), -1 where there are fewer."""
    found, _ = engine.search(np.ascontiguousarray(matrix[rows]), NEIGHBOURS + 1, allowed)
    out = np.full((len(rows), NEIGHBOURS), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        kept = found[i][(found[i] != row) & (found[i] >= 0)][:NEIGHBOURS]
        out[i, : len(kept)] = kept
    return out


def overlap(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the share of the true neighbours that were found; 1 where there are none."""
    hits = sum(len(np.intersect1d(f[f >= 0], t[t >= 0])) for f, t in zip(found, truth, strict=True))
    wanted = int((truth >= 0).sum())
    return hits / wanted if wanted else 1.0


def median_ms(engine: derived.Engine, queries: FloatMatrix, allowed: NDArray[np.bool_] | None) -> float:
    """Return the median milliseconds of one query at a time, after one that warms up."""
    queries = np.ascontiguousarray(queries)
    engine.search(queries[:1], NEIGHBOURS, allowed)
    times = []
    for i in range(len(queries)):
        started = time.perf_counter()
        engine.search(queries[i : i + 1], NEIGHBOURS, allowed)
        times.append(time.perf_counter() - started)
    return round(float(np.median(times)) * 1000, 3)


def tuned(
    engine: derived.Engine, values: Mapping[str, tuple[int, ...]], fixed: Collection[str],
    tuning: HeldOut, judging: HeldOut, wanted: float,
) -> float:  # fmt: skip
    """Set the fastest arguments that reach a recall, and return the recall of the rows that judge.

    The arguments are found with a margin, which grows while the judging rows fall short of what was wanted.

    Args:
        values: what may be set, as a kind's `tunable` gives it.
        fixed: the arguments that the user has set, which stay.
    """
    free = {name: steps for name, steps in values.items() if name not in fixed}
    found = judging.recall(engine) if not free else 0.0
    for attempt in range(1, TRIES + 1) if free else ():
        goal = min(wanted + attempt * MARGIN, wanted + (1 - wanted) * attempt / TRIES)
        _least(engine, free, tuning, goal)
        found = judging.recall(engine)
        if found >= wanted:
            break
    return found


def _least(engine: derived.Engine, free: Mapping[str, tuple[int, ...]], tuning: HeldOut, goal: float) -> None:
    """Set each argument in turn to its least value that reaches the goal while later ones have their greatest."""
    engine.args = replace(engine.args, **{name: steps[-1] for name, steps in free.items()})
    if tuning.recall(engine) < goal:
        return
    for name, steps in free.items():
        low, high = 0, len(steps) - 1
        while low < high:
            middle = (low + high) // 2
            engine.args = replace(engine.args, **{name: steps[middle]})
            low, high = (low, middle) if tuning.recall(engine) >= goal else (middle + 1, high)
        engine.args = replace(engine.args, **{name: steps[high]})


def min_selectivity(engine: derived.Engine, judging: HeldOut, wanted: float, seed: int) -> float:
    """Return the least share of allowed rows at which the index is faster than a scan of them and keeps its recall.

    The rows that a filter leaves are drawn at random once, and once are those nearest to some stored row, as when a
    filter follows the clusters; the worse recall counts. 1 means that a scan is always better.
    """
    matrix, chance, least = judging.matrix, np.random.default_rng(seed), 1.0
    rows, flat = judging.rows[:FILTERED_PROBES], Flat(judging.matrix)
    near = np.argsort(-(matrix @ matrix[chance.integers(len(matrix))]))
    for share in SHARES:
        count = max(1, round(share * len(matrix)))
        for chosen in (chance.permutation(len(matrix))[:count], near[:count]):
            allowed = np.zeros(len(matrix), dtype=bool)
            allowed[chosen] = True
            truth = others(flat, matrix, rows, allowed)
            if overlap(others(engine, matrix, rows, allowed), truth) < wanted:
                return least
        timed = matrix[rows[:FILTERED_TIMED]]
        if median_ms(engine, timed, allowed) > median_ms(flat, timed, allowed):
            return least
        least = share
    return least
