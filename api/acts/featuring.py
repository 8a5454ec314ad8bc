"""The acts of reading what is stored: vectors beside columns, and the facts of one head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from api.acts.held import Held
from heads import saved
from index.features import features


class Featuring(Held):
    """From a collection to arrays."""

    def features(
        self,
        name: str,
        *,
        columns: Sequence[str] = (),
        where: str | Mapping[str, Any] | None = None,
        space: str | None = None,
    ) -> dict[str, Any]:
        """Return stored vectors with columns of their items.

        Returns:
            `collection space ids X columns`: `X` (n, dim) float32 in the order of `ids`; each column has n values.
        """
        collection = self.collection(name)
        found = features(collection, collection.space(space), columns, where)
        facts = {"collection": name, "space": found.space.fingerprint}
        return {**facts, "ids": found.ids, "X": found.X, "columns": found.columns}

    def head(self, name: str, head: str) -> dict[str, Any]:
        """Return the facts of a head, `NAME[@VERSION]`, as `train` returned them."""
        return saved.load_head(self.collection(name), head).as_json()
