"""The acts of searching: neighbours, and the index that finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.acts.held import Held
from api.shapes import Query, answer_json, own_ids, search_of, with_columns
from embedder.errors import UsageError
from embedder.records import FloatMatrix
from index import build, dedupe
from index.diversify import Refinement
from index.duplicates import THRESHOLD
from index.hybrid import ensure_text_index
from index.hybrid import hybrid as search_hybrid
from index.readers import reading
from index.search import MAX_K, Answer, Where, search
from index.store import Collection
from index.view import View

DEFAULT_K = 10
MOST_QUERIES = 1000


class Searching(Held):
    """From a query to ranked neighbours."""

    def search(self, name: str, query: Query, **asked: Any) -> dict[str, Any]:
        """Find the nearest items.

        Args:
            query: one of `text`, `image` (a path, or bytes), `vector` (a list or array), `id`, or `like` with `unlike`
                (lists of ids: near to the ones and away from the others; see `index.examples`). Items that the query is
                made of are not answered.
            asked: as for `search_many`.

        Returns:
            `collection space exact index took_ms hits:[{id score item}]`, the metric, and how many were searched.
        """
        found: dict[str, Any] = self.search_many(name, [query], **asked)["results"][0]
        return found

    def search_many(
        self, name: str, queries: Sequence[Query], *, k: int | None = None, where: Where = None,
        space: str | None = None, exact: bool = False, hybrid: bool = False, columns: Sequence[str] | None = None,
        **refine: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Find the nearest items of each of several queries in one pass.

        Args:
            queries: at most 1,000, each as for `search`.
            k: how many items; 10 without it, or with `min_score` all, up to 10,000.
            where: a filter, as SQL text or as JSON.
            space: an alias, fingerprint or encoder name; none means the collection's default.
            exact: score every vector, whatever index there is.
            hybrid: join the nearest vectors with a full-text search of the same words; for queries that are texts.
            columns: the columns of each hit's `item`; None means all that are not null.
            refine: `group_by`, `unique`, `diversity`, `min_score`: see `index.diversify.Refinement`.

        Returns:
            `collection space results`, a document of `search` for each query, in their order.

        Raises:
            UsageError: a query, a filter or a number that means nothing; or hybrid search without texts.
            UnknownName: a collection, Space, id or column that is not here.
        """
        if not 1 <= len(queries) <= MOST_QUERIES:
            raise UsageError(f"{len(queries)} queries; 1 to {MOST_QUERIES} are answered at once")
        refinement = Refinement(**refine)
        k = k if k is not None else DEFAULT_K if refinement.min_score is None else MAX_K
        collection, view = self.opened(name, space)
        parsed = [search_of(query) for query in queries]
        if hybrid:
            # refused before a text is encoded
            _only_texts(parsed, refinement)
            ensure_text_index(collection)
        vectors = self.query_vectors(collection, view.space, parsed)
        if hybrid:
            results = self._hybrid(collection, view, parsed, vectors, k=k, where=where, exact=exact)
        else:
            results = self._nearest(collection, view, parsed, vectors, k, where, exact, refinement)
        if columns is not None:
            known = collection.items.schema.names
            results = [with_columns(one, columns, known) for one in results]
        return {"collection": name, "space": view.space.fingerprint, "results": results}

    def _nearest(
        self, collection: Collection, view: View, parsed: Sequence[tuple[str, Any]], vectors: FloatMatrix,
        k: int, where: Where, exact: bool, refinement: Refinement,
    ) -> list[dict[str, Any]]:  # fmt: skip
        """Answer the queries that leave out the same items in one pass."""
        groups: dict[tuple[str, ...], list[int]] = {}
        for i, (kind, value) in enumerate(parsed):
            groups.setdefault(own_ids(kind, value), []).append(i)
        found: dict[int, dict[str, Any]] = {}
        for without, rows in groups.items():
            asked = {"k": k, "where": where, "exact": exact, "without": without, "refinement": refinement}
            answers = self.nearest(view, vectors[rows], asked)
            if not exact and refinement == Refinement():
                self.sampler.offer(view, vectors[rows], k, where, answers)
            found |= {i: answer_json(collection, view.space, one) for i, one in zip(rows, answers, strict=True)}
        return [found[i] for i in range(len(parsed))]

    def nearest(self, view: View, queries: FloatMatrix, asked: Mapping[str, Any]) -> Sequence[Answer]:
        """Return the answers to queries (m, dim); `asked` is as for `index.search.search`."""
        return search(view, queries, **asked, trust=self.sampler.fallback)

    def _hybrid(
        self, collection: Collection, view: View, parsed: Sequence[tuple[str, Any]], vectors: FloatMatrix, **asked: Any
    ) -> list[dict[str, Any]]:
        results = []
        for (_, text), row in zip(parsed, vectors, strict=True):
            with reading(collection):
                fused = search_hybrid(view, str(text), row[None], trust=self.sampler.fallback, **asked)
            results.append(answer_json(collection, view.space, fused.answer, fused.ranks))
        return results

    def duplicates(
        self, name: str, *, threshold: float = THRESHOLD, space: str | None = None, where: Where = None,
        exact: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Find groups of items that are the same or nearly so; nothing is deleted.

        Args:
            threshold: least cosine of near-duplicates; items of one content are in one group whatever it is.
            exact: compare every pair, also where an index could propose them.

        Returns:
            `collection space threshold exact index compared items extra groups:[{keep extra scores same_content}]`.
        """
        collection, view = self.opened(name, space)
        with reading(collection):
            found = dedupe.find(view, threshold=threshold, where=where, exact=exact)
        return {"collection": collection.name, "space": view.space.fingerprint, **found}

    def warm(self, name: str) -> None:
        """Open a collection and read what a query in its default Space reads, so that the first one does not wait."""
        collection = self.collection(name)
        if collection.spaces():
            with reading(collection):
                self.view(collection, collection.space()).now()

    def index(self, name: str, *, space: str | None = None, **targets: Any) -> dict[str, Any]:
        """Build an index: `index kind recall_at_10 p50_ms bytes build_seconds considered`; targets as `index.build`."""
        collection = self.collection(name)
        built = build.build(collection, collection.space(space), **targets)
        return vars(built).copy()


def _only_texts(parsed: Sequence[tuple[str, Any]], refinement: Refinement) -> None:
    if any(kind != "text" for kind, _ in parsed):
        raise UsageError("hybrid search needs a text", hint="give TEXT, or leave out --hybrid")
    if given := [name for name, value in vars(refinement).items() if value is not None]:
        raise UsageError(f"hybrid search does not go with {given[0]}", hint="leave one of them out")
