"""What is stored, as a run sees it: in columns, some hundred bytes an item, and compared a window of items at a time.

Ids are found by their hash and then compared, so that a collision costs a look and never an answer. Texts are not kept:
equal content hashes are equal texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from lancedb import col
from numpy.typing import NDArray

from embedder.records import Item, Keys
from embedder.space import Space
from index import schema
from index.edits import Edits, edits
from index.readers import reading
from index.store import Collection, scan

BEHIND = -1
NONE = np.iinfo(np.int64).min
UNREAD = ("row_crc", "text")
PLAIN = ("key", "content_hash", "size", "mtime_ns")
BOM = b"\xef\xbb\xbf"
DIGEST = hashlib.sha256().digest_size
FEW_VALUES, SAMPLE = 8, 4096

Mask = NDArray[np.bool_]
Rows = NDArray[np.int64]
Digests = NDArray[np.uint8]


class Facts:
    """Rows of `items` in columns: ids, keys, digests (n, 32), sizes, mtimes, and what a source says of each item."""

    def __init__(self, table: Any) -> None:
        """Take rows of `items` whose content hashes are bytes; a null size or time is `NONE`."""
        self.keys, self.sizes, self.mtimes = (_int64(table[name]) for name in ("key", "size", "mtime_ns"))
        self.digests = np.concatenate([np.empty((0, DIGEST), np.uint8), *map(_digests, table["content_hash"].chunks)])
        self.said = {name: _column(table[name]) for name in table.column_names if name not in PLAIN}
        each = [_hashes(chunk.to_pylist()) for chunk in table["id"].chunks]
        hashes = np.concatenate([np.empty(0, dtype=np.int64), *each])
        self._order = np.argsort(hashes, kind="stable")
        self._hashes = hashes[self._order]

    @classmethod
    def read(cls, collection: Collection, ids: Sequence[str] | None = None) -> Facts:
        """Read all items of a collection, or those with these ids."""
        items = collection.items
        query = items.search().select([n for n in items.schema.names if n not in UNREAD])
        if ids is not None:
            query = query.where(col("id").isin(list(ids)))
        batches = [_lean(batch) for batch in query.to_batches() if batch.num_rows]
        return cls(pa.Table.from_batches(batches or [_nothing(items.schema)]))

    def __len__(self) -> int:
        return len(self.keys)

    def find(self, ids: Sequence[str]) -> Rows:
        """Return the row (n,) of each id, -1 where there is none."""
        found = np.full(len(ids), -1, dtype=np.int64)
        if not len(self) or not ids:
            return found
        wanted, names = _hashes(ids), _strings(ids)
        at = np.searchsorted(self._hashes, wanted)
        left = np.arange(len(ids))
        while len(left):
            left = left[at[left] < len(self)]
            left = left[self._hashes[at[left]] == wanted[left]]
            rows = self._order[at[left]]
            same = _equal(self.said["id"].take(pa.array(rows)), names.take(pa.array(left)))
            found[left[same]] = rows[same]
            at[left] += 1
            left = left[~same]
        return found

    def same_content(self, rows: Rows, digests: Digests) -> Mask:
        """Return a mask (n,) of the rows, none being -1, that hold this content."""
        same: Mask = (self.digests[rows] == digests).all(axis=1)
        return same

    def same_files(self, rows: Rows, sizes: Sequence[int | None], mtimes: Sequence[int | None]) -> Mask:
        """Return a mask (n,) of the rows, none being -1, that hold these sizes and mtimes."""
        same: Mask = (self.sizes[rows] == _numbers(sizes)) & (self.mtimes[rows] == _numbers(mtimes))
        return same

    def agrees(self, vectors: Any) -> Mask:
        """Return a mask (n,) of the rows of a table of vectors whose key is dead, or has this id and content here."""
        order = np.argsort(self.keys)
        keys = vectors["key"].to_numpy()
        at = np.searchsorted(self.keys, keys, sorter=order)
        alive = np.flatnonzero(at < len(order))
        alive = alive[self.keys[order[at[alive]]] == keys[alive]]
        rows, found = order[at[alive]], np.ones(len(keys), dtype=bool)
        digests = np.concatenate([_digests(_unhexed(chunk)) for chunk in vectors["content_hash"].chunks])
        ids = vectors["id"].combine_chunks().take(pa.array(alive))
        found[alive] = self.same_content(rows, digests[alive]) & _equal(self.said["id"].take(pa.array(rows)), ids)
        return found

    def describe(self, rows: Rows, items: Sequence[Item], edited: Edits) -> Mask:
        """Return a mask (n,) of the rows, none being -1, whose columns are what the source says of the items."""
        same = np.ones(len(rows), dtype=bool)
        wanted: list[Mapping[str, Any]] = [item.columns for item in items]
        for name in set().union(*wanted):
            having = [i for i, columns in enumerate(wanted) if name in columns]
            values = [edited.get((items[i].id, name), wanted[i][name]) for i in having]
            same[having] &= self._holds(name, rows[having], values)
        same &= self._holds("source", rows, [item.source for item in items])
        groups = [edited.get((item.id, "group"), item.group) for item in items]
        return same & self._holds("group", rows, groups)

    def _holds(self, name: str, rows: Rows, values: Sequence[Any]) -> Mask:
        if name not in self.said:
            return np.array([value is None for value in values], dtype=bool)
        stored = self.said[name].take(pa.array(rows))
        stored = stored.dictionary_decode() if pa.types.is_dictionary(stored.type) else stored
        try:
            return _equal(stored, pa.array(values, stored.type))
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError, UnicodeEncodeError):
            return np.array([have == value for have, value in zip(stored.to_pylist(), values, strict=True)], dtype=bool)

    @property
    def nbytes(self) -> int:
        """The bytes of memory that this holds."""
        numbers = (self.keys, self.sizes, self.mtimes, self.digests, self._order, self._hashes)
        return sum(a.nbytes for a in numbers) + sum(int(c.nbytes) for c in self.said.values())


class KeySet:
    """Keys that have a vector, a byte a key: they are counted from 1 and never used again."""

    def __init__(self, keys: Keys) -> None:
        self._held = np.zeros(int(keys.max(initial=0)) + 1, dtype=bool)
        self._held[keys] = True

    @classmethod
    def read(cls, collection: Collection, space: Space) -> KeySet:
        """Read the keys that have a vector in this Space, dead ones included."""
        if not collection.has_space(space):
            return cls(np.empty(0, dtype=np.int64))
        return cls(scan(collection.vectors(space), ["key"])["key"].to_numpy().astype(np.int64))

    @property
    def keys(self) -> Keys:
        """The keys, ascending."""
        return np.flatnonzero(self._held)

    def holds(self, keys: Keys) -> Mask:
        """Return a mask (n,) of the keys that are in the set."""
        known = np.minimum(keys, len(self._held) - 1)
        held: Mask = self._held[known] & (known == keys)
        return held

    def add(self, keys: Keys) -> None:
        """Add keys."""
        short = int(keys.max(initial=0)) + 1 - len(self._held)
        if short > 0:
            self._held = np.concatenate([self._held, np.zeros(max(short, len(self._held) // 2), dtype=bool)])
        self._held[keys] = True


@dataclass
class Picture:
    """The items and edits of a collection as a run last saw them; `version` is that of `items`."""

    version: int
    facts: Facts
    edits: Edits
    edits_version: int
    written: set[str] = field(default_factory=set)

    def current(self, collection: Collection, ids: Sequence[str]) -> Facts:
        """Return what is stored of these ids now; call it under the commit lock."""
        if collection.items.version != self.version:
            # somebody else writes here: from now on this picture is behind, so every batch is looked up
            self.version = BEHIND
            self._edits_again(collection)
        if self.version != BEHIND and self.written.isdisjoint(ids):
            return self.facts
        return Facts.read(collection, ids)

    def wrote(self, collection: Collection, ids: Sequence[str]) -> None:
        """Take note of ids that were just written: what this picture holds of them is no longer so."""
        self.written.update(ids)
        if self.version != BEHIND:
            self.version = int(collection.items.version)

    def _edits_again(self, collection: Collection) -> None:
        version = int(collection.table(schema.EDITS).version)
        if version != self.edits_version:
            self.edits, self.edits_version = edits(collection), version


@dataclass
class Known:
    """The embedded keys of one Space, and the picture of all items, which the Spaces of one run share."""

    picture: Picture
    embedded: KeySet

    @classmethod
    def read(cls, collection: Collection, space: Space) -> Known:
        """Read all items and the keys that have a vector in `space`."""
        return cls.read_all(collection, [space])[0]

    @classmethod
    def read_all(cls, collection: Collection, spaces: Sequence[Space]) -> list[Known]:
        """Read all items once, and the keys that have a vector in each Space."""
        with reading(collection):
            items, changed = collection.items, collection.table(schema.EDITS)
            version, edits_version = int(items.version), int(changed.version)
            embedded = [KeySet.read(collection, space) for space in spaces]
            picture = Picture(version, Facts.read(collection), edits(collection), edits_version)
        return [cls(picture, keys) for keys in embedded]

    @classmethod
    def read_some(cls, collection: Collection, space: Space, ids: Sequence[str]) -> Known:
        """Read what is known of some ids only: for a few items, which no picture of all is kept for."""
        with reading(collection):
            items, changed = collection.items, collection.table(schema.EDITS)
            version, edits_version = int(items.version), int(changed.version)
            facts = Facts.read(collection, ids)
            keys = np.empty(0, dtype=np.int64)
            if len(facts):
                query = collection.vectors(space).search().where(col("key").isin(facts.keys.tolist()))
                keys = query.select(["key"]).to_arrow()["key"].to_numpy().astype(np.int64)
            picture = Picture(version, facts, edits(collection), edits_version)
        return cls(picture, KeySet(keys))

    def have(self, rows: Rows) -> Mask:
        """Return a mask (n,) of the rows of the picture, -1 for none, that have a vector in this Space."""
        facts = self.picture.facts
        if not len(facts):
            return np.zeros(len(rows), dtype=bool)
        return (rows >= 0) & self.embedded.holds(facts.keys[rows])

    def holds(self, item: Item) -> bool:
        """Say whether the bytes of an item, where it has some, are those that are stored and embedded."""
        rows = self.picture.facts.find([item.id])
        if item.data is None or not self.have(rows)[0]:
            return False
        return bool(self.picture.facts.same_content(rows, packed([digest(item.data, item.medium)]))[0])


class Seen:
    """The ids that a run has come across: a byte for each that is stored, the id itself for each that is not."""

    def __init__(self, facts: Facts) -> None:
        self.rows = np.zeros(len(facts), dtype=bool)
        self._others: set[str] = set()

    def admit(self, ids: Sequence[str], rows: Rows) -> Mask:
        """Return a mask (n,) of the ids that come for the first time, and remember all."""
        if len(set(ids)) == len(ids):
            first = np.ones(len(ids), dtype=bool)
            stored = rows >= 0
            first[stored] = ~self.rows[rows[stored]]
            for i in np.flatnonzero(~stored).tolist():
                first[i] = ids[i] not in self._others
            self.mark(ids, rows)
            return first
        return np.array([self.admit([id], rows[i : i + 1])[0] for i, id in enumerate(ids)], dtype=bool)

    def mark(self, ids: Sequence[str], rows: Rows) -> None:
        """Remember ids."""
        self.rows[rows[rows >= 0]] = True
        self._others.update(ids[i] for i in np.flatnonzero(rows < 0).tolist())


def digest(data: bytes, medium: str) -> bytes:
    """Return the sha256 of a file's content as `content_hash` covers it: of a text without its byte order mark."""
    return hashlib.sha256(data.removeprefix(BOM) if medium == "text" else data).digest()


def packed(digests: Sequence[bytes]) -> Digests:
    """Return digests as rows (n, 32)."""
    return np.frombuffer(b"".join(digests), dtype=np.uint8).reshape(-1, DIGEST)


def digest_of(content_hash: str) -> bytes:
    """Return the digest that a `content_hash` writes in hex; of anything else the sha256, which is as good a name."""
    try:
        found = bytes.fromhex(content_hash)
    except ValueError:
        found = b""
    return found if len(found) == DIGEST else hashlib.sha256(content_hash.encode()).digest()


def _lean(batch: Any) -> Any:
    """Return a batch with its content hashes as bytes, so that the hex is freed before the next one is read."""
    place = batch.schema.get_field_index("content_hash")
    column = _unhexed(batch["content_hash"])
    return batch.set_column(place, pa.field("content_hash", column.type), column)


def _unhexed(column: Any) -> Any:
    width = 2 * DIGEST
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int32)[column.offset :][: len(column) + 1]
    if column.null_count == 0 and (np.diff(offsets) == width).all():
        data = column.buffers()[2][int(offsets[0]) : int(offsets[-1])].to_pybytes()
        try:
            # no white space, which fromhex passes over, may move what follows
            packed = bytes.fromhex(data.decode())
        except ValueError:
            packed = b""
        if len(packed) == len(column) * DIGEST:
            return pa.Array.from_buffers(pa.binary(DIGEST), len(column), [None, pa.py_buffer(packed)])
    return pa.array([digest_of(text) for text in column.to_pylist()], pa.binary(DIGEST))


def _nothing(fields: Any) -> Any:
    fields = [f for f in fields if f.name not in UNREAD]
    types = [(f.name, pa.binary(DIGEST) if f.name == "content_hash" else f.type) for f in fields]
    return pa.RecordBatch.from_pylist([], schema=pa.schema(types))


def _digests(column: Any) -> Digests:
    return np.frombuffer(column.buffers()[1], dtype=np.uint8).reshape(-1, DIGEST)[column.offset :][: len(column)]


def _column(parts: Any) -> Any:
    """Return one array; a few strings that come again and again are kept once."""
    if not pa.types.is_string(parts.type):
        return parts.combine_chunks()
    sample = parts[:SAMPLE]
    if pc.count_distinct(sample).as_py() * FEW_VALUES < len(sample):
        return parts.dictionary_encode().combine_chunks()
    # offsets of 32 bits reach 2 GiB
    return (parts.cast(pa.large_string()) if parts.nbytes > 1 << 30 else parts).combine_chunks()


def _int64(column: Any) -> NDArray[np.int64]:
    return np.asarray(pc.fill_null(column, NONE).to_numpy(), dtype=np.int64)


def _numbers(values: Sequence[int | None]) -> NDArray[np.int64]:
    try:
        return np.array(values, dtype=np.int64)
    except TypeError:
        return np.array([NONE if value is None else value for value in values], dtype=np.int64)


def _hashes(ids: Sequence[str]) -> NDArray[np.int64]:
    return np.fromiter(map(hash, ids), dtype=np.int64, count=len(ids))


def _strings(ids: Sequence[str]) -> Any:
    try:
        return pa.array(ids, pa.string())
    except UnicodeEncodeError:
        # half of a surrogate pair: no stored id has one
        return pa.array([id.encode("utf-8", "replace").decode() for id in ids], pa.string())


def _equal(left: Any, right: Any) -> Mask:
    """Return a mask of equal values; null equals null, and NaN equals NaN."""
    right = right.cast(left.type) if right.type != left.type else right
    same = pc.fill_null(pc.equal(left, right), False)
    same = pc.or_(same, pc.and_(pc.is_null(left), pc.is_null(right)))
    if pa.types.is_floating(left.type):
        same = pc.or_(same, pc.fill_null(pc.and_(pc.is_nan(left), pc.is_nan(right)), False))
    return np.asarray(same.to_numpy(zero_copy_only=False), dtype=bool)
