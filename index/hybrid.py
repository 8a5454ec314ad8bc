"""Words and vectors together: Lance's full-text search (BM25) and the nearest vectors, joined by their ranks.

Reciprocal rank fusion (Cormack, Clarke & Büttcher 2009): an item's score is the sum over both lists of
`1 / (60 + its rank)`, ranks counted from 1, nothing where it is in neither. Scores of the two need not be comparable.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

import numpy as np

from embedder.errors import UsageError
from embedder.records import FloatMatrix, Keys
from index import files, ledger
from index.live import member
from index.planner import Subset
from index.search import Answer, Hit, Trust, Where, search
from index.store import Collection
from index.view import Moment, View

RRF = 60
DEPTH = 100
INDEX_NAME = "text_idx"


@dataclass(frozen=True)
class Ranks:
    """Where an item stands in each list, from 1; None where it is not in it."""

    vector: int | None
    text: int | None


@dataclass(frozen=True)
class Fused:
    """The answer of the vectors, with hits by fused score, and beside each hit its ranks."""

    answer: Answer
    ranks: list[Ranks]


def hybrid(
    view: View,
    text: str,
    query: FloatMatrix,
    *,
    k: int = 10,
    where: Where = None,
    exact: bool = False,
    trust: Trust | None = None,
) -> Fused:
    """Find the items nearest to a query vector (1, dim) and to the words of its text.

    Items without a vector in the view's Space are not answered, as in `search`.

    Raises:
        UsageError: the collection has no texts, or the query has no words.
    """
    started = time.perf_counter()
    if not text.strip():
        raise UsageError("the query has no words", hint="hybrid search needs a text")
    depth = max(DEPTH, 2 * k)
    near = search(view, query, k=min(depth, 10_000), where=where, exact=exact, trust=trust)[0]
    moment = view.now()
    wordy = by_words(view, moment, view.subset(where, moment), text, depth)
    rows = view.rows_of(wordy.tolist(), moment.live)
    items = {hit.id: hit.item for hit in near.hits} | {row.id: dict(row.item) for row in rows.values()}
    ranks = fuse([hit.id for hit in near.hits], [rows[key].id for key in wordy.tolist() if key in rows])
    best = sorted(ranks, key=lambda id: (-score(ranks[id]), id))[:k]
    hits = [Hit(id, score(ranks[id]), items[id]) for id in best]
    took = round((time.perf_counter() - started) * 1000, 3)
    return Fused(replace(near, hits=hits, took_ms=took), [ranks[id] for id in best])


def fuse(near: list[str], wordy: list[str]) -> dict[str, Ranks]:
    """Return the ranks of every id of two lists."""
    vector = {id: rank for rank, id in enumerate(near, 1)}
    words = {id: rank for rank, id in enumerate(wordy, 1)}
    return {id: Ranks(vector.get(id), words.get(id)) for id in dict.fromkeys([*near, *wordy])}


def score(ranks: Ranks) -> float:
    """Return the fused score of an item."""
    return sum(1 / (RRF + rank) for rank in (ranks.vector, ranks.text) if rank is not None)


def by_words(view: View, moment: Moment, subset: Subset, text: str, k: int) -> Keys:
    """Return the keys of at most `k` items of a subset by BM25, best first."""
    from lancedb.query import MatchQuery

    ensure_text_index(view.collection)
    allowed = view.keys_in(subset, moment)
    table, reach = view.collection.items, k
    while True:
        asked = table.search(MatchQuery(text, "text"), query_type="fts").limit(reach)
        rows = asked.select(["key", "_score"]).to_arrow()
        keys = rows["key"].to_numpy().astype(np.int64)
        keys = keys[np.lexsort((keys, -rows["_score"].to_numpy()))]
        kept: Keys = keys[member(keys, allowed)]
        if len(kept) >= k or len(keys) < reach:
            return kept[:k]
        reach *= 4


def ensure_text_index(collection: Collection) -> None:
    """Build the full-text index of `items.text` where there is none; rows written later are found without it too.

    Raises:
        UsageError: no item has a text.
    """
    if _has_text_index(collection):
        return
    if not collection.items.count_rows("text IS NOT NULL"):
        raise UsageError(
            "hybrid search needs texts, and no item here has one",
            where=f"collection {collection.name}",
            hint="leave out --hybrid, or embed texts",
        )
    from lancedb.index import FTS

    with ledger.committing(collection):
        if not _has_text_index(collection):
            files.checkpoint("text-index")
            collection.items.create_index("text", config=FTS(), name=INDEX_NAME)


def _has_text_index(collection: Collection) -> bool:
    return any(index.name == INDEX_NAME for index in collection.items.list_indices())
