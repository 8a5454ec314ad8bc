"""The acts of searching: neighbours, and the index that finds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.acts.held import Held
from api.shapes import Query, answer_json, one_of, with_columns
from index import build
from index.readers import reading
from index.search import search


class Searching(Held):
    """From a query to ranked neighbours."""

    def search(
        self,
        name: str,
        query: Query,
        *,
        k: int = 10,
        where: str | Mapping[str, Any] | None = None,
        space: str | None = None,
        exact: bool = False,
        columns: Sequence[str] | None = None,
    ) -> dict[str, Any]:
        """Find the nearest items.

        Args:
            query: one of `text`, `image` (a path, or bytes), `vector` (a list or array), `id`.
            where: a filter, as SQL text or as JSON.
            space: an alias, fingerprint or encoder name; none means the collection's default.
            columns: the columns of each hit's `item`; None means all that are not null.

        Returns:
            `collection space exact index took_ms hits:[{id score item}]`, the metric, and how many were searched.
        """
        kind, value = one_of(query)
        collection = self.collection(name)
        view = self.view(collection, collection.space(space))
        without = (str(value),) if kind == "id" else ()
        if without:
            with reading(collection):
                found = view.vector_of(*without)
        else:
            found = self.query_vector(collection, view.space, kind, value)
        answer = search(view, found, k=k, where=where, exact=exact, without=without)[0]
        return with_columns(answer_json(collection, view.space, answer), columns, collection.items.schema.names)

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
