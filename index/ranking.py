"""From candidates to a ranking: cosines in double precision from stored vectors, ties in the order of keys.

The product of a row does not depend on how many others are scored with it, so that every kind of index, every door and
every batch size gives the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix, Keys
from index.planner import Plan, Positions

SPARE = 16
CHUNK_ROWS = 4096


@dataclass(frozen=True)
class Ranked:
    """Items of one query, nearest first: `keys` (r,), `scores` (r,) cosines, and where the vector of each is.

    `places` are rows of the index's matrix, and -2 - i for row i of the fresh vectors. An item that has several
    vectors stands once, with the nearest of them. `exact` says whether every vector was scored.
    """

    keys: Keys
    scores: NDArray[np.float64]
    places: Positions
    exact: bool

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, chosen: slice | Positions | NDArray[np.bool_]) -> Ranked:
        return Ranked(self.keys[chosen], self.scores[chosen], self.places[chosen], self.exact)


def rank(plan: Plan, queries: FloatMatrix, items: int) -> list[Ranked]:
    """Return, for each query, its `items` nearest items, or all where there are fewer.

    Where items have parts, the candidates may be many parts of few items: then more of them are fetched, until no part
    that was not fetched can be of one of the nearest items.
    """
    reach, most = items + SPARE, plan.subset.searched
    rounds = _round(plan, queries, reach)
    while plan.moment.parted and reach < most:
        short = [i for i, (one, floor) in enumerate(rounds) if len(one) < items or one.scores[items - 1] < floor]
        if not short:
            break
        reach = min(4 * reach, most)
        for i, better in zip(short, _round(plan, queries[short], reach), strict=True):
            rounds[i] = better
    return [one[:items] for one, _ in rounds]


def _round(plan: Plan, queries: FloatMatrix, reach: int) -> list[tuple[Ranked, float]]:
    base, fresh, scanned = plan.candidates(queries, reach)
    places = np.concatenate([base, np.where(fresh >= 0, -2 - fresh, -1)], axis=1) if fresh.shape[1] else base
    step = max(1, CHUNK_ROWS // max(1, places.shape[1]))
    ranked: list[tuple[Ranked, float]] = []
    for start in range(0, len(queries), step):
        part = slice(start, start + step)
        ranked += _rescored(plan, queries[part], places[part], scanned[part].tolist(), base.shape[1])
    return ranked


def _rescored(
    plan: Plan, queries: FloatMatrix, places: Positions, scanned: list[bool], split: int
) -> list[tuple[Ranked, float]]:
    keys = keys_at(plan, places)
    rows = vectors_at(plan, places).astype(np.float64)
    scores = np.vecdot(rows, queries.astype(np.float64)[:, None, :])
    scores[places == -1] = -np.inf
    floors = _floors(plan, scores, split) if plan.moment.parted else [-np.inf] * len(scores)
    order = np.lexsort((keys, -scores))
    row = np.arange(len(order))[:, None]
    keys, scores, places = keys[row, order], scores[row, order], places[row, order]
    counts = (places != -1).sum(axis=1).tolist()
    ranked = [Ranked(keys[i, :n], scores[i, :n], places[i, :n], scanned[i]) for i, n in enumerate(counts)]
    if plan.moment.parted:
        ranked = [one[_firsts(one.keys)] for one in ranked]
    return list(zip(ranked, floors, strict=True))


def _floors(plan: Plan, scores: NDArray[np.float64], split: int) -> list[float]:
    """Return, for each query, the highest score that a vector outside the candidates may have."""
    floors = np.full(len(scores), -np.inf)
    fresh = len(plan.moment.fresh_keys) if plan.subset.fresh is None else len(plan.subset.fresh)
    for part, possible in ((scores[:, :split], plan.subset.searched - fresh), (scores[:, split:], fresh)):
        found = np.isfinite(part).sum(axis=1)
        worst = np.where(np.isfinite(part), part, np.inf).min(axis=1, initial=np.inf)
        floors = np.maximum(floors, np.where(found < possible, worst, -np.inf))
    return [float(floor) for floor in floors]


def _firsts(keys: Keys) -> Positions:
    return np.sort(np.unique(keys, return_index=True)[1])


def keys_at(plan: Plan, places: Positions) -> Keys:
    """Return the keys of the vectors at `places`, in the same shape; 0 where there is none."""
    return _at(places, plan.moment.fresh_keys, plan.moment.base.keys if plan.moment.base else None)


def vectors_at(plan: Plan, places: Positions) -> FloatMatrix:
    """Return the unit vectors at `places`: the shape of `places` and one axis more; zeros where there is none."""
    return _at(places, plan.moment.fresh, plan.moment.base.matrix if plan.moment.base else None)


def _at(places: Positions, fresh: NDArray[Any], base: NDArray[Any] | None) -> NDArray[Any]:
    # a plain array: indexing a memory map of NumPy costs more
    base = None if base is None else np.asarray(base)
    if base is not None and (places >= 0).all():
        return base[places]
    found = np.zeros(places.shape + fresh.shape[1:], dtype=fresh.dtype)
    if base is not None:
        found[places >= 0] = base[places[places >= 0]]
    found[places <= -2] = fresh[-2 - places[places <= -2]]
    return found
