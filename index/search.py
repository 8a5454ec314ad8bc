"""One query path: vectors in, ranked items out, with filters, fresh rows and deletions always included.

The scores are cosines, recomputed in double precision from stored vectors whatever found the candidates, so that every
kind of index, every door and every batch size gives the same numbers.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from index.diversify import Refinement, select
from index.planner import Plan, Subset, plan
from index.ranking import Ranked, rank
from index.readers import reading
from index.view import Moment, View

MAX_K = 10_000
SCAN_BEYOND = 1000
PLAIN = Refinement()
Where = str | Mapping[str, Any] | None
Trust = Callable[[Moment, Subset, View], str | None]


class Hit(NamedTuple):
    """One neighbour: `score` is the cosine, higher is nearer; `item` holds the columns that are not null."""

    id: str
    score: float
    item: dict[str, Any]


@dataclass(frozen=True)
class Answer:
    """The neighbours of one query, nearest first, and how they were found.

    `exact` says whether every vector was scored; `index` is the kind that answered; `searched` counts the vectors
    that the filter left, `rows` all live ones, and `selectivity` is their quotient. `filter_ms` is what the filter
    took, kept for the next query with the same one. `more` says that items within `min_score` were cut off at `k`.
    `index_damage` says why an index was not used, `fallback` why it was not trusted.
    """

    hits: list[Hit]
    exact: bool
    index: str
    searched: int
    rows: int
    took_ms: float
    filter_ms: float = 0.0
    more: bool = False
    fallback: str | None = None
    index_damage: str | None = None

    @property
    def selectivity(self) -> float:
        """The share of the live vectors that the filter left."""
        return self.searched / self.rows if self.rows else 1.0


def search(
    view: View,
    queries: FloatMatrix,
    *,
    k: int = 10,
    where: Where = None,
    exact: bool = False,
    without: Sequence[str] = (),
    refinement: Refinement = PLAIN,
    trust: Trust | None = None,
) -> list[Answer]:
    """Find the nearest items of each query.

    Args:
        queries: (m, dim) float32 of the view's Space; any length but zero.
        k: how many items, 1 to 10,000.
        where: a filter, in either form of `index.filters`.
        exact: score every vector, whatever index there is.
        without: ids that are not answered (the query's own item).
        refinement: what is passed over; `k` items come back whenever so many are left.
        trust: says why the index is not to be trusted here, if so; then every vector is scored.

    Raises:
        UsageError: a query of another dimension, not finite or of zero length; or a number out of range.
        UnknownName: a column that the collection lacks.
    """
    started = time.perf_counter()
    queries = check_queries(queries, view.space.dim)
    if not 1 <= k <= MAX_K:
        raise UsageError(f"k is 1 to {MAX_K}, not {k}")
    refinement.check(k)
    with reading(view.collection):
        return _answers(view, queries, k, where, exact, set(without), refinement, trust, started)


def _answers(
    view: View, queries: FloatMatrix, k: int, where: Where, exact: bool, without: set[str], refinement: Refinement,
    trust: Trust | None, started: float,
) -> list[Answer]:  # fmt: skip
    moment = view.now()
    filtering = time.perf_counter()
    subset = view.subset(where, moment)
    why_not = trust(moment, subset, view) if trust else None
    chosen = plan(moment, subset, exact=exact or refinement.min_score is not None, fallback=why_not)
    filter_ms = (time.perf_counter() - filtering) * 1000 if where is not None else 0.0
    found = _found(view, chosen, queries, k, without, refinement)
    rows = view.rows_of(list(dict.fromkeys(key for one, _ in found for key in one.keys.tolist())), moment.live)
    took = round((time.perf_counter() - started) * 1000, 3)
    answers = []
    for one, more in found:
        pairs = zip(one.keys.tolist(), one.scores.tolist(), strict=True)
        hits = [Hit(rows[key].id, score, dict(rows[key].item)) for key, score in pairs if key in rows]
        how = one.exact, "flat" if one.exact else chosen.index, subset.searched, moment.rows
        answers.append(Answer(hits, *how, took, round(filter_ms, 3), more, chosen.fallback, moment.damage))
    return answers


def check_queries(queries: FloatMatrix, dim: int) -> FloatMatrix:
    """Return queries of unit length. Raises `UsageError` for another shape, NaN, infinity or zero length."""
    array = np.asarray(queries)
    if array.ndim != 2 or array.shape[1] != dim or array.dtype.kind not in "fiu":
        shape = array.shape[1:] if array.ndim > 1 else array.shape
        raise UsageError(f"a query of shape {shape} does not fit vectors of {dim} dimensions")
    exact = np.ascontiguousarray(array, dtype=np.float64)
    norms = np.sqrt(np.vecdot(exact, exact))
    if not (np.isfinite(norms) & (norms > 0)).all():
        raise UsageError(
            "a query vector is not finite or has zero length", hint="a null is never a zero vector; leave it out"
        )
    return np.asarray(exact / norms[:, None], dtype=np.float32)


def _found(
    view: View, chosen: Plan, queries: FloatMatrix, k: int, without: set[str], refinement: Refinement
) -> list[tuple[Ranked, bool]]:
    """Return the ranking of each query, and whether there was more than `k` within `min_score`."""
    own = view.keys_of(sorted(without)) if without else np.empty(0, dtype=np.int64)
    depth = refinement.needed(k) + len(own) + (refinement.min_score is not None)
    ranked = rank(chosen, queries, depth)
    if refinement.selects:
        groups = view.groups(refinement.group_by, chosen.moment) if refinement.group_by else None
        ask = _Selection(chosen, own, refinement, k, groups)
        return [ask.of(queries[i : i + 1], one, depth) for i, one in enumerate(ranked)]
    return [_cut(_others(one, own), k, refinement.min_score) for one in ranked]


def _others(ranked: Ranked, own: NDArray[np.int64]) -> Ranked:
    return ranked[~np.isin(ranked.keys, own)] if len(own) else ranked


def _cut(ranked: Ranked, k: int, min_score: float | None) -> tuple[Ranked, bool]:
    if min_score is None:
        return ranked[:k], False
    within = ranked[ranked.scores >= min_score]
    return within[:k], len(within) > k


@dataclass(frozen=True)
class _Selection:
    """Takes from a ranking that is made longer until `k` items are left or there are no more."""

    plan: Plan
    own: NDArray[np.int64]
    refinement: Refinement
    k: int
    groups: NDArray[np.int64] | None

    def of(self, query: FloatMatrix, ranked: Ranked, depth: int) -> tuple[Ranked, bool]:
        # the shortlist is as long as it can be before anything is chosen for its diversity
        wanted = self.refinement.needed(self.k)
        while True:
            others, _ = _cut(_others(ranked, self.own), len(ranked), self.refinement.min_score)
            groups = None
            if self.groups is not None:
                groups = self.groups[np.searchsorted(self.plan.moment.live.keys, others.keys)]
            long = select(self.plan, others, Refinement(unique=self.refinement.unique), wanted, groups)
            if len(long) >= wanted or len(ranked) < depth or len(others) + len(self.own) < len(ranked):
                break
            depth *= 4
            deeper = self.plan if depth < SCAN_BEYOND else self.plan.scanned()
            (ranked,) = rank(deeper, query, depth)
        return select(self.plan, long, Refinement(diversity=self.refinement.diversity), self.k, None), False
