"""What one collection holds in one Space, now: live keys, the index, and the rows written since it was built.

Everything is cached by table version. A query first asks the tables for their versions, so that it sees fresh rows and
never deleted ones.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
from lancedb import col, lit
from numpy.typing import NDArray

from embedder.errors import Damaged, UnknownName
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import audit, derived, filters, schema
from index.store import Collection, scan

log = logging.getLogger("permafrost.index")
CACHED_FILTERS = 64


@dataclass(frozen=True)
class Live:
    """The keys of `items` at one version, ascending, with the row id of each."""

    version: int
    keys: Keys
    row_ids: NDArray[np.uint64]

    @classmethod
    def read(cls, collection: Collection) -> Live:
        """Read the keys and row ids of all items."""
        table = collection.items
        rows = scan(table, ["key"], row_ids=True)
        keys = rows["key"].to_numpy().astype(np.int64)
        order = np.argsort(keys)
        return cls(int(table.version), keys[order], rows["_rowid"].to_numpy().astype(np.uint64)[order])

    def holds(self, keys: Keys) -> NDArray[np.bool_]:
        """Return a mask (n,) of the keys that are alive."""
        return member(keys, self.keys)


@dataclass(frozen=True)
class Moment:
    """A consistent picture for one query. `base` is the index, if any; `fresh` rows are in no index.

    `parted` says that some item has several vectors.
    """

    live: Live
    base: derived.Loaded | None
    base_alive: NDArray[np.bool_]
    fresh_keys: Keys
    fresh: FloatMatrix
    damage: str | None = None
    parted: bool = False

    @property
    def rows(self) -> int:
        """How many vectors can be answered."""
        return int(self.base_alive.sum()) + len(self.fresh_keys)


class View:
    """The read side of one collection and Space; safe to share between threads."""

    def __init__(self, collection: Collection, space: Space) -> None:
        self.collection, self.space = collection, space
        self._lock = Lock()
        self._moment: Moment | None = None
        self._stamp: tuple[Any, ...] = ()
        self._filters: OrderedDict[tuple[int, str], Keys] = OrderedDict()

    def now(self) -> Moment:
        """Return the state of this moment, reading only what changed since the last call."""
        with self._lock:
            vectors = self.collection.vectors(self.space)
            stamp = (self.collection.items.version, vectors.version, derived.current(self.collection, self.space))
            if self._moment is None:
                self._sample()
            if self._moment is None or stamp != self._stamp:
                self._moment = self._read(vectors, self._moment)
                self._stamp = stamp
            return self._moment

    def _sample(self) -> None:
        """Check a few rows at the first use; damage is said and never in the way of an answer."""
        damaged = audit.sample(self.collection, self.space)
        if damaged:
            name = self.collection.name
            log.warning("%d sampled vectors of %s are damaged: permafrost verify %s --mend", damaged, name, name)

    def _read(self, vectors: Any, before: Moment | None) -> Moment:
        live = Live.read(self.collection)
        base, damage = self._index(before)
        empty = np.empty(0, dtype=np.int64)
        known = base.keys if base else empty
        ordered = np.sort(known)
        rows = scan(vectors, ["key"], row_ids=True)
        keys = rows["key"].to_numpy().astype(np.int64)
        wanted = live.holds(keys) & ~member(keys, ordered)
        fresh = self._fetch(
            vectors, keys[wanted], rows["_rowid"].to_numpy()[wanted], before, all_rows=bool(wanted.all())
        )
        parted = _repeats(ordered) or _repeats(np.sort(keys[wanted]))
        return Moment(live, base, live.holds(known), keys[wanted], fresh, damage, parted)

    def _index(self, before: Moment | None) -> tuple[derived.Loaded | None, str | None]:
        name = derived.current(self.collection, self.space)
        if before and before.base and before.base.name == name:
            return before.base, None
        try:
            return derived.load(self.collection, self.space), None
        except Damaged as error:
            log.warning(
                "the index of %s is damaged; searching exactly until it is rebuilt: %s",
                self.collection.name,
                error.what,
            )
            return None, error.what

    def _fetch(
        self, vectors: Any, keys: Keys, row_ids: NDArray[Any], before: Moment | None, *, all_rows: bool
    ) -> FloatMatrix:
        if before is not None and np.array_equal(keys, before.fresh_keys):
            return before.fresh
        if not len(keys):
            return np.empty((0, self.space.dim), dtype=np.float32)
        columns = ["key", "vector"]
        table = (
            scan(vectors, columns) if all_rows else vectors.take_row_ids(row_ids.tolist()).select(columns).to_arrow()
        )
        fresh = np.empty((len(keys), self.space.dim), dtype=np.float32)
        # Lance does not keep the order that it was asked for
        fresh[np.argsort(keys, kind="stable")] = schema.vectors_of(table)[
            np.argsort(table["key"].to_numpy(), kind="stable")
        ]
        return unit(fresh)

    def matching(self, where: str | Mapping[str, Any] | None) -> Keys | None:
        """Return the live keys, ascending, that pass a filter; None where there is no filter."""
        if where is None:
            return None
        tree = filters.read(where)
        items = self.collection.items
        stamp = (int(items.version), repr(tree))
        with self._lock:
            if stamp in self._filters:
                self._filters.move_to_end(stamp)
                return self._filters[stamp]
        keys = matching_keys(items, tree)
        with self._lock:
            self._filters[stamp] = keys
            while len(self._filters) > CACHED_FILTERS:
                self._filters.popitem(last=False)
        return keys

    def rows_of(self, keys: Sequence[int], live: Live) -> dict[int, dict[str, Any]]:
        """Return the rows of `items` by key; a key deleted meanwhile is left out."""
        at = np.searchsorted(live.keys, np.asarray(keys, dtype=np.int64))
        row_ids = live.row_ids[np.clip(at, 0, max(0, len(live.keys) - 1))].tolist() if len(live.keys) else []
        if not row_ids:
            return {}
        rows = self.collection.items.take_row_ids(row_ids).to_arrow().to_pylist()
        return {row["key"]: row for row in rows}

    def key_of(self, id: str) -> int:
        """Return the key of an item. Raises `UnknownName` where no item has this id."""
        found = self.collection.items.search().where(col("id") == lit(id)).select(["key"]).to_arrow()
        if not found.num_rows:
            raise UnknownName(
                f"no item has the id {id!r}", where=f"collection {self.collection.name}", hint="permafrost info"
            )
        return int(found["key"][0].as_py())

    def vector_of(self, id: str) -> FloatMatrix:
        """Return an item's stored vector, the mean where it has several parts, as (1, dim).

        Raises:
            UnknownName: it has none in this Space.
        """
        key = self.key_of(id)
        table = self.collection.vectors(self.space)
        found = table.search().where(col("key") == lit(key)).select(["vector"]).to_arrow()
        if not found.num_rows:
            raise UnknownName(
                f"item {id!r} has no vector in Space {self.space}",
                hint=f"permafrost embed {self.collection.name} --encoder E",
            )
        vectors = schema.vectors_of(found)
        mean = vectors.mean(axis=0, keepdims=True, dtype=np.float64).astype(np.float32)
        # parts that point against each other may cancel out
        return mean if np.linalg.norm(mean) > 0 else vectors[:1]


def matching_keys(items: Any, tree: filters.Filter) -> Keys:
    """Return the keys, ascending, of the rows of `items` that pass a filter."""
    test = filters.expression(tree, items.schema)
    rows = scan(items, sorted({"key", *filters.columns(tree)}))
    return np.sort(rows.filter(test)["key"].to_numpy().astype(np.int64))


def _repeats(ascending: Keys) -> bool:
    return bool((ascending[1:] == ascending[:-1]).any())


def member(keys: Keys, ascending: Keys) -> NDArray[np.bool_]:
    """Return a mask (n,) of the `keys` that are among the `ascending` ones."""
    if not len(ascending):
        return np.zeros(len(keys), dtype=bool)
    at = np.searchsorted(ascending, keys)
    found: NDArray[np.bool_] = ascending[np.clip(at, 0, len(ascending) - 1)] == keys
    return found


def unit(vectors: FloatMatrix) -> FloatMatrix:
    """Return the rows scaled to unit length, float32."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
