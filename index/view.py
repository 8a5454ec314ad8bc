"""What one collection holds in one Space, now: live keys, the index, and the rows written since it was built.

Everything is cached by table version. A query first looks whether anything was committed since, by this process or by
another one, so that it sees fresh rows and never deleted ones.
"""

from __future__ import annotations

import difflib
import logging
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock
from typing import Any, NoReturn

import numpy as np
from lancedb import col, lit
from numpy.typing import NDArray

from embedder.errors import Damaged, UnknownName
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import audit, derived, filters, freshness, schema
from index.live import Live, member
from index.planner import Subset
from index.readers import reading
from index.rowcache import Row, RowCache
from index.store import Collection, scan

log = logging.getLogger("permafrost.index")
CACHED_FILTERS = 64
COMPARED_IDS = 20_000
CACHED_BYTES = 256 << 20


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
        self._token: tuple[Any, ...] = ()
        self._items = freshness.versions(collection.path / f"{schema.ITEMS}.lance")
        self._vectors = freshness.versions(collection.path / f"{schema.VECTORS}{space.fingerprint}.lance")
        self._current = derived.folder_of(collection, space) / "current.json"
        self._subsets: OrderedDict[str, Subset] = OrderedDict()
        self._groups: dict[tuple[int, str], NDArray[np.int64]] = {}
        self._cache = RowCache(collection)

    def now(self) -> Moment:
        """Return the state of this moment, reading only what changed since the last call."""
        with self._lock:
            # taken before the tables are read: what is committed meanwhile makes the next call read again
            committed = self._items.token(), self._vectors.token()
            token = (*committed, freshness.file_token(self._current))
            if self._moment is not None and token == self._token and None not in committed:
                return self._moment
            vectors = self.collection.vectors(self.space)
            stamp = (self.collection.items.version, vectors.version, derived.current(self.collection, self.space))
            if self._moment is None:
                self._sample()
            if self._moment is None or stamp != self._stamp or committed != self._token[:2]:
                same = self._moment is not None and committed[0] == self._token[0] is not None
                self._moment = self._read(vectors, self._moment, same_items=same)
                self._subsets.clear()
                self._groups.clear()
                self._stamp = stamp
            self._token = token
            return self._moment

    def _sample(self) -> None:
        """Check a few rows at the first use; damage is said and never in the way of an answer."""
        damaged = audit.sample(self.collection, self.space)
        if damaged:
            name = self.collection.name
            log.warning("%d sampled vectors of %s are damaged: permafrost verify %s --mend", damaged, name, name)

    def _read(self, vectors: Any, before: Moment | None, *, same_items: bool) -> Moment:
        live = before.live if before is not None and same_items else Live.read(self.collection)
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

    def subset(self, where: str | Mapping[str, Any] | None, moment: Moment) -> Subset:
        """Return what a filter leaves of a moment; kept, with the vectors that were put together for it."""
        tree, stamp = _read_text(where) if isinstance(where, str) else _read(where)
        with self._lock:
            if moment is self._moment and stamp in self._subsets:
                self._subsets.move_to_end(stamp)
                return self._subsets[stamp]
        if tree is None:
            found = Subset.of(moment, None, None)
        else:
            keys = self._matching(tree, moment)
            base = moment.base_alive if moment.base is None else member(moment.base.keys, keys)
            found = Subset.of(moment, base, member(moment.fresh_keys, keys))
        with self._lock:
            if moment is self._moment:
                self._subsets[stamp] = found
                self._forget_subsets()
        return found

    def _matching(self, tree: filters.Filter, moment: Moment) -> Keys:
        held = self._cache.table(moment.live, ["key", *filters.columns(tree)])
        if held is None:
            return matching_keys(self.collection.items, tree)
        return np.sort(held.filter(filters.expression(tree, held.schema))["key"].to_numpy().astype(np.int64))

    def _forget_subsets(self) -> None:
        held = sum(s.gathered.nbytes for s in self._subsets.values() if s.gathered is not None)
        while len(self._subsets) > CACHED_FILTERS or (held > CACHED_BYTES and len(self._subsets) > 1):
            _, gone = self._subsets.popitem(last=False)
            held -= 0 if gone.gathered is None else gone.gathered.nbytes

    def keys_in(self, subset: Subset, moment: Moment) -> Keys:
        """Return the keys of a subset, ascending; an item of several parts may stand more than once."""
        base = np.empty(0, dtype=np.int64) if moment.base is None else moment.base.keys
        fresh = moment.fresh_keys if subset.fresh is None else moment.fresh_keys[subset.fresh]
        return np.sort(np.concatenate([base if subset.rows is None else base[subset.rows], fresh]))

    def rows_of(self, keys: Sequence[int], live: Live) -> dict[int, Row]:
        """Return the items of keys as they are answered; a key deleted meanwhile is left out."""
        return self._cache.rows(live, keys)

    def groups(self, column: str, moment: Moment) -> NDArray[np.int64]:
        """Return a number for each distinct value of a column, beside `moment.live.keys`; -1 where it is null.

        Raises:
            UnknownName: a column that `items` lacks.
        """
        stamp = (moment.live.version, column)
        with self._lock:
            if stamp in self._groups:
                return self._groups[stamp]
        items = self.collection.items
        if column not in items.schema.names:
            known = [name for name in items.schema.names if name not in schema.RESERVED]
            raise UnknownName.of("column", column, known, hint=f"columns: {', '.join(known)}")
        rows = self._cache.table(moment.live, ["key", column]) or scan(items, ["key", column])
        codes = rows[column].combine_chunks().dictionary_encode().indices.fill_null(-1).to_numpy().astype(np.int64)
        keys = rows["key"].to_numpy()
        order = np.argsort(keys)
        ascending, found = keys[order], np.full(len(moment.live.keys), -1, dtype=np.int64)
        here = member(moment.live.keys, ascending)
        found[here] = codes[order][np.searchsorted(ascending, moment.live.keys[here])]
        with self._lock:
            self._groups[stamp] = found
        return found

    def keys_of(self, ids: Sequence[str]) -> Keys:
        """Return the keys of those of the ids that are stored."""
        live = self.now().live
        held = [key for id in ids if (key := self._cache.key(live, id)) is not None]
        if len(held) == len(ids):
            return np.array(held, dtype=np.int64)
        found = self.collection.items.search().where(col("id").isin(list(ids))).select(["key"]).to_arrow()
        keys: Keys = found["key"].to_numpy().astype(np.int64)
        return keys

    def key_of(self, id: str) -> int:
        """Return the key of an item. Raises `UnknownName` where no item has this id."""
        if (held := self._cache.key(self.now().live, id)) is not None:
            return held
        found = self.collection.items.search().where(col("id") == lit(id)).select(["key"]).to_arrow()
        if not found.num_rows:
            self._no_item(id)
        return int(found["key"][0].as_py())

    def _no_item(self, id: str) -> NoReturn:
        items = self.collection.items
        known = scan(items, ["id"])["id"].to_pylist() if items.count_rows() <= COMPARED_IDS else []
        near = difflib.get_close_matches(id, known, n=3)
        raise UnknownName(
            f"no item has the id {id!r}",
            where=f"collection {self.collection.name}",
            hint=f"did you mean {' or '.join(map(repr, near))}?" if near else "permafrost search shows ids",
        )

    def vector_of(self, id: str) -> FloatMatrix:
        """Return an item's stored vector, the mean where it has several parts, as (1, dim).

        Raises:
            UnknownName: it has none in this Space.
        """
        with reading(self.collection):
            moment, key = self.now(), self.key_of(id)
            if (held := self._held(moment, key)) is not None:
                return held
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

    def _held(self, moment: Moment, key: int) -> FloatMatrix | None:
        """Return the vector of an item from memory, where it is as it is stored: one, and of unit length."""
        if moment.parted or not self.space.identity.get("normalize"):
            return None
        held = [(moment.fresh_keys, moment.fresh)]
        held += [(moment.base.keys, moment.base.matrix)] if moment.base else []
        for keys, rows in held:
            at = np.flatnonzero(keys == key)[:1]
            if len(at):
                return np.array(rows[at])
        return None


def _read(where: str | Mapping[str, Any] | None) -> tuple[filters.Filter | None, str]:
    tree = None if where is None else filters.read(where)
    # by its text, since 1, 1.0 and True are equal and do not pass the same columns
    return tree, repr(tree)


_read_text = lru_cache(maxsize=256)(_read)


def matching_keys(items: Any, tree: filters.Filter) -> Keys:
    """Return the keys, ascending, of the rows of `items` that pass a filter."""
    test = filters.expression(tree, items.schema)
    rows = scan(items, sorted({"key", *filters.columns(tree)}))
    return np.sort(rows.filter(test)["key"].to_numpy().astype(np.int64))


def _repeats(ascending: Keys) -> bool:
    return bool((ascending[1:] == ascending[:-1]).any())


def unit(vectors: FloatMatrix) -> FloatMatrix:
    """Return the rows scaled to unit length, float32."""
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norms > 0, norms, 1), dtype=np.float32)
