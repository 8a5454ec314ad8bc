"""A collection on its way out: its live rows with the vectors of one Space, block after block, at one pinned moment."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedder.errors import NothingToDo, UnknownName, UsageError
from embedder.records import Medium
from embedder.space import Space, canonical_json
from index import filters, schema
from index.live import member
from index.store import Collection, scan
from index.view import matching_keys

BLOCK_BYTES = 16 << 20
MOST_BLOCK_ROWS = 8192
OUTSIDE = tuple(name for name in schema.OWN if name not in ("key", "row_crc"))


class PartWriter(Protocol):
    """The files of one part of an export."""

    def write(self, rows: Any) -> None:
        """Append an Arrow table of the export's schema."""

    def close(self) -> list[Path]:
        """Finish the files and return them."""


@dataclass(frozen=True)
class Shape:
    """What the files of an export have in common: the tables' schema, the matrices' dtype, and the items' media."""

    schema: Any
    dtype: str
    media: frozenset[str]

    def place(self, folder: Path, inside: str, name: str) -> Path:
        """Return the path of a file, in a folder that exists."""
        (folder / inside).mkdir(parents=True, exist_ok=True)
        return folder / inside / name

    def one_medium(self) -> Medium:
        """Return the medium. Raises `UsageError` where there are two: their rows could not be numbered alike."""
        if len(self.media) > 1 or "vector" not in self.schema.names:
            raise UsageError(
                "clip-retrieval's layout holds the vectors of one medium, row by row with the metadata",
                hint="--where \"media_type LIKE 'image%'\" and 'text%' to two places, or another --format",
            )
        return "text" if "text" in self.media else "image"

    def added(self, medium: Medium) -> tuple[str, ...]:
        """Return the column that readers of clip-retrieval's layout expect, where nothing of this name is there."""
        name, made_of = ("caption", "text") if medium == "text" else ("image_path", "source")
        return (name,) if name not in self.schema.names and made_of in self.schema.names else ()


class Taking:
    """What leaves: one row for each vector, by ascending key, which is the order in which they were stored.

    `schema` is that of the tables: the items' columns, `part` where an item has several vectors, and `vector`; with no
    `space`, one row for each item and no vectors. `rows`, `items` and `without_vector` are counts; an item that has no
    vector in the Space does not leave with the others, since a null is never a zero vector.
    """

    def __init__(
        self,
        collection: Collection,
        space: Space | None,
        *,
        where: str | Mapping[str, Any] | None = None,
        columns: Sequence[str] | None = None,
    ) -> None:
        """Pin the tables and count what leaves.

        Raises:
            UnknownName: a column that the collection has not.
            NothingToDo: no item, or none with a vector, passes the filter.
        """
        # the write path stores items first: what is pinned second never lacks a vector that the first asks for
        self._items = _pinned(collection, schema.ITEMS)
        self._vectors: Any = None
        self.collection, self.space = collection, space
        self._names = _columns(self._items.schema, columns, collection.name)
        keys, ids = _by_key(scan(self._items, ["key"], row_ids=True))
        if where is not None:
            keep = member(keys, matching_keys(self._items, filters.read(where)))
            keys, ids = keys[keep], ids[keep]
        self._item_keys, self._item_ids = keys, ids
        self._row_keys, self._row_ids, self.parted = keys, ids, False
        if space is not None:
            self._take_vectors(collection, space)
        self.rows, self.items = len(self._row_keys), len(np.unique(self._row_keys))
        self.without_vector = len(keys) - self.items
        if not self.rows:
            what = "with a vector in this Space " if space and len(keys) else ""
            place = f"collection {collection.name}" + (f", Space {space}" if space else "")
            said = f"no item {what}passes the filter" if where else f"there is no item {what}to export"
            raise NothingToDo(said, where=place)
        self.schema = self._schema(collection)

    def _take_vectors(self, collection: Collection, space: Space) -> None:
        collection.has_space(space)
        self._vectors = _pinned(collection, schema.VECTORS + space.fingerprint)
        found = scan(self._vectors, ["key", "part"], row_ids=True)
        keys = found["key"].to_numpy().astype(np.int64)
        order = np.lexsort((found["part"].to_numpy(), keys))
        order = order[member(keys[order], self._item_keys)]
        self._row_keys = keys[order]
        self._row_ids = found["_rowid"].to_numpy().astype(np.uint64)[order]
        self.parted = bool((np.diff(self._row_keys) == 0).any())

    def _schema(self, collection: Collection) -> Any:
        fields = [self._items.schema.field(name).remove_metadata() for name in self._names]
        metadata: dict[bytes, bytes] = {b"permafrost.export": b"1"}
        if self.space is not None:
            record = canonical_json(self.space.as_json()).encode()
            metadata[schema.SPACE_KEY] = record
            metadata[schema.GOLDEN_KEY] = json.dumps(collection.golden(self.space)).encode()
            fields += [pa.field("part", pa.int32(), nullable=False)] if self.parted else []
            fields.append(pa.field("vector", pa.list_(pa.float32(), self.space.dim), nullable=False))
        return pa.schema(fields, metadata=metadata)

    def media(self) -> frozenset[str]:
        """Return the first halves of the media types of what leaves: `image`, `text`."""
        found = scan(self._items, ["key", "media_type"])
        leaving = member(found["key"].to_numpy().astype(np.int64), np.unique(self._row_keys))
        kinds = found["media_type"].filter(pa.array(leaving)).unique().to_pylist()
        return frozenset(str(kind).partition("/")[0] for kind in kinds)

    def tables(self, sizes: Sequence[int]) -> Iterator[Any]:
        """Yield Arrow tables of `schema`; none crosses the end of a part of `sizes` rows, whose sum is `rows`."""
        width = 4 * self.space.dim if self.space else 64
        block = max(1, min(MOST_BLOCK_ROWS, BLOCK_BYTES // width))
        start = 0
        for size in sizes:
            stop = start + size
            for low in range(start, stop, block):
                yield self._table(slice(low, min(low + block, stop)))
            start = stop

    def _table(self, span: slice) -> Any:
        keys = self._row_keys[span]
        distinct, at = np.unique(keys, return_inverse=True)
        row_ids = self._item_ids[np.searchsorted(self._item_keys, distinct)]
        rows = self._items.take_row_ids(row_ids.tolist()).select(["key", *self._names]).to_arrow()
        # Lance does not keep the order that it was asked for
        rows = rows.take(np.argsort(rows["key"].to_numpy(), kind="stable")).take(at)
        columns = {name: rows[name] for name in self._names}
        if self._vectors is not None:
            taken = (
                self._vectors.take_row_ids(self._row_ids[span].tolist()).select(["key", "part", "vector"]).to_arrow()
            )
            taken = taken.take(np.lexsort((taken["part"].to_numpy(), taken["key"].to_numpy())))
            columns |= {"part": taken["part"]} if self.parted else {}
            columns["vector"] = taken["vector"]
        return pa.table(columns, schema=self.schema)


def _pinned(collection: Collection, name: str) -> Any:
    table = collection.db.open_table(name)
    table.checkout(table.version)
    return table


def _by_key(rows: Any) -> tuple[NDArray[np.int64], NDArray[np.uint64]]:
    keys = rows["key"].to_numpy().astype(np.int64)
    order = np.argsort(keys)
    return keys[order], rows["_rowid"].to_numpy().astype(np.uint64)[order]


def _columns(items: Any, wanted: Sequence[str] | None, name: str) -> list[str]:
    known = [*OUTSIDE, *(n for n in items.names if n not in schema.OWN)]
    for one in wanted or ():
        if one not in known:
            raise UnknownName.of("column", one, known, where=f"collection {name}", hint=f"columns: {', '.join(known)}")
    return [n for n in known if wanted is None or n == "id" or n in wanted]
