"""Stored vectors and columns side by side: what heads and reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from embedder.errors import NothingToDo, UnknownName
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import filters, schema
from index.live import Live, member
from index.readers import reading
from index.store import Collection, scan
from index.view import matching_keys


@dataclass(frozen=True)
class Features:
    """The live items that have a vector in one Space, by ascending key.

    `X[i]` (n, dim) float32 is the stored vector of item `ids[i]` with key `keys[i]`; an item of several parts has their
    mean. `columns[name][i]` is its value in a column of `items`, or None.
    """

    space: Space
    keys: Keys
    ids: list[str]
    X: FloatMatrix
    columns: dict[str, list[Any]]

    def __len__(self) -> int:
        return len(self.ids)


def features(
    collection: Collection, space: Space, columns: Sequence[str] = (), where: str | Mapping[str, Any] | None = None
) -> Features:
    """Read stored vectors with columns of their items.

    Raises:
        UnknownName: a column that `items` lacks.
        NothingToDo: no live item has a vector here (or none passes the filter).
    """
    with reading(collection):
        return _features(collection, space, columns, where)


def _features(
    collection: Collection, space: Space, columns: Sequence[str], where: str | Mapping[str, Any] | None
) -> Features:
    items = collection.items
    require_columns(collection, columns)
    keys, X = _vectors(collection, space)
    if where is not None:
        keep = member(keys, matching_keys(items, filters.read(where)))
        keys, X = keys[keep], X[keep]
    if not len(keys):
        raise NothingToDo("no item here has a vector", where=f"collection {collection.name}, Space {space}")
    rows = scan(items, ["key", "id", *columns])
    order = np.argsort(rows["key"].to_numpy())
    at = order[np.searchsorted(rows["key"].to_numpy()[order], keys)]
    taken = rows.take(at)
    return Features(space, keys, taken["id"].to_pylist(), X, {name: taken[name].to_pylist() for name in columns})


def _vectors(collection: Collection, space: Space) -> tuple[Keys, FloatMatrix]:
    table = scan(collection.vectors(space), ["key", "vector"])
    keys, vectors = table["key"].to_numpy().astype(np.int64), schema.vectors_of(table)
    alive = Live.read(collection).holds(keys)
    keys, vectors = keys[alive], vectors[alive]
    distinct, inverse, counts = np.unique(keys, return_inverse=True, return_counts=True)
    if len(distinct) == len(keys):
        return distinct, vectors[np.argsort(keys)]
    sums = np.zeros((len(distinct), space.dim), dtype=np.float64)
    np.add.at(sums, inverse, vectors)
    return distinct, (sums / counts[:, None]).astype(np.float32)


def require_columns(collection: Collection, names: Sequence[str]) -> None:
    """Refuse columns that `items` lacks. Raises `UnknownName` with the nearest ones."""
    present = collection.items.schema.names
    known = [name for name in present if name not in schema.RESERVED]
    for name in names:
        if name not in present:
            raise UnknownName.of(
                "column", name, known, where=f"collection {collection.name}", hint=f"columns: {', '.join(known)}"
            )
