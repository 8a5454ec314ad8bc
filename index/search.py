"""One query path: vectors in, ranked items out, with filters, fresh rows and deletions always included.

The scores are cosines, recomputed in double precision from stored vectors whatever found the candidates, so that every
kind of index, every door and every batch size gives the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.records import FloatMatrix, Keys
from index import schema
from index.derived import Engine
from index.kinds.flat import Flat
from index.readers import reading
from index.view import Moment, View, member, unit

MAX_K = 10_000
SPARE = 16


@dataclass(frozen=True)
class Hit:
    """One neighbour: `score` is the cosine, higher is nearer; `item` holds the columns that are not null."""

    id: str
    score: float
    item: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The neighbours of one query, nearest first, and how they were found.

    `exact` says whether every candidate was scored; `index` is the kind that answered; `searched` counts the vectors
    that the filter left, `rows` all live ones. `index_damage` says why an index was not used.
    """

    hits: list[Hit]
    exact: bool
    index: str
    searched: int
    rows: int
    took_ms: float
    index_damage: str | None = None


def search(
    view: View,
    queries: FloatMatrix,
    *,
    k: int = 10,
    where: str | Mapping[str, Any] | None = None,
    exact: bool = False,
    without: Sequence[str] = (),
) -> list[Answer]:
    """Find the nearest items of each query.

    Args:
        queries: (m, dim) float32 of the view's Space; any length but zero.
        k: how many items, 1 to 10,000.
        where: a filter, in either form of `index.filters`.
        exact: score every vector, whatever index there is.
        without: ids that are not answered (the query's own item).

    Raises:
        UsageError: a query of another dimension, not finite or of zero length; or `k` out of range.
    """
    started = time.perf_counter()
    queries = check_queries(queries, view.space.dim)
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k is 1 to {MAX_K}, not {k}")
    with reading(view.collection):
        moment = view.now()
        wanted = view.matching(where)
        plan = _plan(moment, wanted, exact=exact)
        found = _nearest(plan, queries, k + len(without))
        rows = view.rows_of(sorted({int(key) for keys, _ in found for key in keys}), moment.live)
    took = (time.perf_counter() - started) * 1000
    return [_answer(moment, plan, keys, scores, rows, k, set(without), took) for keys, scores in found]


def check_queries(queries: FloatMatrix, dim: int) -> FloatMatrix:
    """Return queries of unit length. Raises `UsageError` for another shape, NaN, infinity or zero length."""
    array = np.asarray(queries)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind not in "fiu":
        shape = array.shape[1:] if array.ndim > 1 else array.shape
        raise UsageError(f"a query of shape {shape} does not fit vectors of {dim} dimensions")
    norms = np.linalg.norm(array.astype(np.float64), axis=1)
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise UsageError(
            "a query vector is not finite or has zero length", hint="a null is never a zero vector; leave it out"
        )
    return unit(np.ascontiguousarray(array, dtype=np.float32))


@dataclass(frozen=True)
class _Plan:
    """Which engine reads the indexed rows, and the mask of rows that it may answer (None: all)."""

    moment: Moment
    engine: Engine | None
    name: str
    exact: bool
    allowed: NDArray[np.bool_] | None
    fresh_allowed: NDArray[np.bool_]
    searched: int

    def most_rows(self) -> int:
        """Return the most candidates that either of the two engines can give."""
        base = 0 if self.moment.base is None else len(self.moment.base.matrix)
        return max(base if self.allowed is None else int(self.allowed.sum()), len(self.fresh_allowed))


def _plan(moment: Moment, wanted: Keys | None, *, exact: bool) -> _Plan:
    fresh_allowed = np.ones(len(moment.fresh_keys), dtype=bool) if wanted is None else member(moment.fresh_keys, wanted)
    base = moment.base
    if base is None:
        return _Plan(moment, None, "flat", True, None, fresh_allowed, int(fresh_allowed.sum()))
    allowed = moment.base_alive if wanted is None else moment.base_alive & member(base.keys, wanted)
    count = int(allowed.sum())
    scan = exact or base.kind.EXACT or count < base.kind.MIN_SELECTIVITY * len(allowed)
    engine = Flat(base.matrix) if scan else base.engine
    name = "flat" if scan else str(base.manifest["kind"])
    mask = None if count == len(allowed) else allowed
    return _Plan(moment, engine, name, scan, mask, fresh_allowed, count + int(fresh_allowed.sum()))


Ranked = tuple[list[int], list[float]]


def _nearest(plan: _Plan, queries: FloatMatrix, k: int) -> list[Ranked]:
    """Return, for each query, the keys and scores of the `k` nearest items; the best part of an item counts.

    Where items have parts, the candidates may be many parts of few items: then more of them are fetched, until they
    are of enough items or there are no more.
    """
    wanted = k + SPARE
    found = _round(plan, queries, k, wanted)
    reach, most = k + SPARE, plan.most_rows()
    while plan.moment.parted and reach < most:
        short = [i for i, (keys, _) in enumerate(found) if len(keys) < wanted]
        if not short:
            break
        reach = min(4 * reach, most)
        for i, better in zip(short, _round(plan, queries[short], reach - SPARE, wanted), strict=True):
            found[i] = better
    return [(keys[:k], scores[:k]) for keys, scores in found]


def _round(plan: _Plan, queries: FloatMatrix, rows: int, items: int) -> list[Ranked]:
    candidates = _candidates(plan, queries, rows)
    return [_rescored(plan.moment, q, c, items) for q, c in zip(queries, candidates, strict=True)]


def _candidates(plan: _Plan, queries: FloatMatrix, k: int) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Return, for each query, candidate rows of the matrix and of the fresh vectors: `k` and some more."""
    moment, n = plan.moment, len(queries)
    base: list[NDArray[np.int64]] = [np.empty(0, dtype=np.int64)] * n
    if plan.engine is not None and moment.base is not None:
        reach = min(k + SPARE, len(moment.base.matrix))
        positions, _ = plan.engine.search(queries, reach, plan.allowed)
        base = [row[row >= 0] for row in positions]
        possible = int(plan.allowed.sum()) if plan.allowed is not None else len(moment.base.matrix)
        short = [i for i, row in enumerate(base) if len(row) < min(k, possible)]
        if short and not plan.exact:
            again, _ = Flat(moment.base.matrix).search(queries[short], reach, plan.allowed)
            for i, row in zip(short, again, strict=True):
                base[i] = row[row >= 0]
    fresh, _ = Flat(moment.fresh).search(queries, min(k + SPARE, max(1, len(moment.fresh))), plan.fresh_allowed)
    return [(b, f[f >= 0]) for b, f in zip(base, fresh, strict=True)]


def _rescored(
    moment: Moment, query: NDArray[np.float32], candidates: tuple[NDArray[np.int64], NDArray[np.int64]], k: int
) -> Ranked:
    base_rows, fresh_rows = candidates
    keys = [moment.fresh_keys[fresh_rows]]
    vectors = [moment.fresh[fresh_rows]]
    if moment.base is not None:
        keys.insert(0, moment.base.keys[base_rows])
        vectors.insert(0, np.asarray(moment.base.matrix[base_rows]))
    all_keys = np.concatenate(keys)
    rows = np.concatenate(vectors).astype(np.float64)
    # one product a row, not a matrix product: its sum does not depend on how many rows there are
    scores = np.einsum("ij,j->i", rows, query.astype(np.float64)) if len(rows) else np.empty(0)
    order = np.lexsort((all_keys, -scores))
    best: dict[int, float] = {}
    for i in order:
        best.setdefault(int(all_keys[i]), float(scores[i]))
        if len(best) == k:
            break
    return list(best), list(best.values())


def _answer(
    moment: Moment, plan: _Plan, keys: list[int], scores: list[float], rows: dict[int, dict[str, Any]],
    k: int, without: set[str], took: float,
) -> Answer:  # fmt: skip
    hits = [
        Hit(rows[key]["id"], score, visible(rows[key]))
        for key, score in zip(keys, scores, strict=True)
        if key in rows and rows[key]["id"] not in without
    ]
    return Answer(hits[:k], plan.exact, plan.name, plan.searched, moment.rows, round(took, 3), moment.damage)


def visible(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the columns of an item that people and programs are shown: no nulls, no bookkeeping."""
    hidden = {"id", "key", "row_crc", "content_hash", "size", "mtime_ns"} & set(schema.OWN)
    return {name: value for name, value in row.items() if value is not None and name not in hidden}
