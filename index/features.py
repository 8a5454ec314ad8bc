"""Stored vectors and columns side by side: what heads and reports read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from embedder.errors import NothingToDo, UnknownName
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import filters, schema
from index.live import Live, member
from index.readers import reading
from index.spill import Spilled
from index.store import Collection, scan
from index.view import matching_keys

ROWS = 4096


@dataclass(frozen=True)
class Features:
    """The live items that have a vector in one Space, by ascending key.

    `X[i]` (n, dim) float32 is the stored vector of item `ids[i]` with key `keys[i]`; an item of several parts has their
    mean. `columns[name][i]` is its value in a column of `items`, or None. Where `spilled` is there, `X` is its mapped
    file.
    """

    space: Space
    keys: Keys
    ids: list[str]
    X: FloatMatrix
    columns: dict[str, list[Any]]
    spilled: Spilled | None = None

    def __len__(self) -> int:
        return len(self.ids)


def features(
    collection: Collection, space: Space, columns: Sequence[str] = (), where: str | Mapping[str, Any] | None = None,
    *, held_up_to: int | None = None,
) -> Features:  # fmt: skip
    """Read stored vectors with columns of their items.

    Args:
        held_up_to: how many bytes of vectors are held in memory; more of them go to a file beside the collection.

    Raises:
        UnknownName: a column that `items` lacks.
        NothingToDo: no live item has a vector here (or none passes the filter).
    """
    with reading(collection):
        return _features(collection, space, columns, where, held_up_to)


def _features(
    collection: Collection, space: Space, columns: Sequence[str], where: str | Mapping[str, Any] | None,
    held_up_to: int | None,
) -> Features:  # fmt: skip
    items = collection.items
    require_columns(collection, columns)
    wanted = None if where is None else np.asarray(matching_keys(items, filters.read(where)))
    if held_up_to is not None and collection.vectors(space).count_rows() * space.dim * 4 > held_up_to:
        keys, spilled = _spilled(collection, space, wanted)
        X = spilled.array
    else:
        (keys, X), spilled = _vectors(collection, space), None
        if wanted is not None:
            keep = member(keys, wanted)
            keys, X = keys[keep], X[keep]
    if not len(keys):
        raise NothingToDo("no item here has a vector", where=f"collection {collection.name}, Space {space}")
    rows = scan(items, ["key", "id", *columns])
    order = np.argsort(rows["key"].to_numpy())
    at = order[np.searchsorted(rows["key"].to_numpy()[order], keys)]
    taken = rows.take(at)
    values = {name: taken[name].to_pylist() for name in columns}
    return Features(space, keys, taken["id"].to_pylist(), X, values, spilled)


def _spilled(collection: Collection, space: Space, wanted: Keys | None) -> tuple[Keys, Spilled]:
    """Write the live vectors to a file, by ascending key; an item of several parts gets their mean."""
    table = collection.vectors(space)
    keys = scan(table, ["key"])["key"].to_numpy().astype(np.int64)
    keep = Live.read(collection).holds(keys)
    if wanted is not None:
        keep &= member(keys, wanted)
    distinct, counts = np.unique(keys[keep], return_counts=True)
    found = Spilled((len(distinct), space.dim), collection.path)
    for batch in table.search().select(["key", "vector"]).to_batches(ROWS):
        rows = pa.Table.from_batches([batch])
        own = rows["key"].to_numpy().astype(np.int64)
        here = member(own, distinct)
        places, vectors = np.searchsorted(distinct, own[here]), schema.vectors_of(rows)[here]
        if len(distinct) == keep.sum():
            found.write(places, vectors)
        else:
            np.add.at(found.array, places, vectors / counts[places, None].astype(np.float32))
    return distinct, found


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
