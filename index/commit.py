"""The write path: what is known, which keys are free, and one batch made durable: items first, then vectors.

A key names one version of an item's content. A vector is alive exactly while `items` holds its key, so a batch that
stops between its two commits leaves an item without a vector, which the next run finds and embeds; never the reverse.
"""

from __future__ import annotations

import hashlib
import json
import mimetypes
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
from lancedb import col, lit
from numpy.typing import NDArray

from embedder.errors import Damaged, PermafrostError, UnknownName, UsageError
from embedder.records import Decoded, FloatMatrix, Item
from embedder.space import Space
from index import files, schema
from index.readers import reading
from index.store import Collection, scan

KEY_GAP = 16
BEHIND = -1
OPTIMIZE_AFTER = 20


@dataclass
class Stored:
    """What `items` holds of one id: its key, content hash, and the whole row."""

    key: int
    content_hash: str
    row: dict[str, Any]


@dataclass
class Picture:
    """The items and edits of a collection as a run last saw them; `version` is that of `items`."""

    version: int
    rows: dict[str, Stored]
    edits: dict[tuple[str, str], Any]

    def take(self, table: Any) -> None:
        """Remember the rows of an Arrow table of items."""
        for row in table.to_pylist():
            self.rows[row["id"]] = Stored(row["key"], row["content_hash"], row)


@dataclass
class Known:
    """The embedded keys of one Space, and the picture of all items, which the Spaces of one run share."""

    picture: Picture
    embedded: set[int]

    @classmethod
    def read(cls, collection: Collection, space: Space) -> Known:
        """Read all items and the keys that have a vector in `space`."""
        return cls.read_all(collection, [space])[0]

    @classmethod
    def read_all(cls, collection: Collection, spaces: Sequence[Space]) -> list[Known]:
        """Read all items once, and the keys that have a vector in each Space."""
        with reading(collection):
            items = collection.items
            picture = Picture(items.version, {}, edits(collection))
            found = [cls(picture, embedded_keys(collection, space)) for space in spaces]
            picture.take(items.search().to_arrow())
        return found

    @property
    def rows(self) -> dict[str, Stored]:
        """The items by id."""
        return self.picture.rows

    def refresh(self, collection: Collection, ids: Sequence[str]) -> None:
        """Look these ids up again where another process has written since."""
        items = collection.items
        if items.version != self.picture.version:
            # somebody else writes here: from now on this picture is behind, so every batch is looked up
            self.picture.version = BEHIND
            for name in ids:
                self.rows.pop(name, None)
            self.picture.take(items.search().where(col("id").isin(list(ids))).to_arrow())

    def unchanged(self, item: Item) -> bool:
        """Say, without opening or decoding anything, whether an item is stored and embedded as it is now."""
        stored = self.rows.get(item.id)
        if stored is None or stored.key not in self.embedded:
            return False
        row = stored.row
        if item.text is not None:
            return bool(row["text"] == item.text)
        if item.data is not None and item.mtime_ns is None:
            return self.holds(item)
        same = row["size"] == item.size and row["mtime_ns"] == item.mtime_ns
        return bool(item.mtime_ns is not None and item.size is not None and same)

    def holds(self, item: Item) -> bool:
        """Say whether the bytes of an item, where it has some, are those that are stored and embedded."""
        stored = self.rows.get(item.id)
        if stored is None or item.data is None or stored.key not in self.embedded:
            return False
        return stored.content_hash == hashlib.sha256(item.data).hexdigest()

    def wanted_row(self, item: Item) -> dict[str, Any]:
        """Return the columns that the source gives for an item, with what a person edited in their place."""
        columns = {name: self.picture.edits.get((item.id, name), value) for name, value in item.columns.items()}
        return {**columns, "source": item.source, "group": self.picture.edits.get((item.id, "group"), item.group)}

    def describes(self, item: Item) -> bool:
        """Say whether the stored metadata already are what the source says."""
        stored = self.rows[item.id].row
        return all(stored.get(name) == value for name, value in self.wanted_row(item).items())


def embedded_keys(collection: Collection, space: Space) -> set[int]:
    """Return the keys that have a vector in this Space, dead ones included."""
    if not collection.has_space(space):
        return set()
    return set(scan(collection.vectors(space), ["key"])["key"].to_pylist())


def edits(collection: Collection) -> dict[tuple[str, str], Any]:
    """Return what was set by a person or a head, by (id, column); the latest wins."""
    rows = sorted(
        scan(collection.table(schema.EDITS), ["id", "name", "value", "at"]).to_pylist(), key=lambda r: r["at"]
    )
    return {(row["id"], row["name"]): json.loads(row["value"]) for row in rows}


def reserve_keys(collection: Collection, n: int) -> int:
    """Reserve `n` keys for ever and return the first; call it under the commit lock.

    The counter stands beside the tables, so that a delete, a restore or a killed writer never frees a key.
    """
    if n == 0:
        return 0
    path = collection.path / "keys.json"
    if not path.exists():
        raise Damaged(
            "the counter of keys is gone", where=str(path), hint="permafrost doctor makes it again from the tables"
        )
    first = int(files.read_json(path)["next"])
    files.write_json(path, {"next": first + n + KEY_GAP})
    return first


def ensure_columns(collection: Collection, wanted: Mapping[str, str]) -> None:
    """Add user columns to `items`. Raises `UsageError` for a reserved name or another type."""
    with files.lock(collection.lock_path("commit")):
        items = collection.items
        added = schema.new_columns(items.schema, wanted)
        if added:
            files.checkpoint("columns")
            items.add_columns(pa.schema(added))


def commit(
    collection: Collection,
    space: Space,
    known: Known,
    batch: Sequence[Decoded],
    array: FloatMatrix,
    counts: Sequence[int] | None = None,
) -> None:
    """Store one batch: the next `counts[i]` rows of `array` are the vectors of `batch[i]`; its ids are distinct.

    All parts of an item are added in one commit of Lance, which is whole or not at all: a key that has one vector has
    all of them, and so is embedded.

    Raises:
        PermafrostError: a vector is not finite or has zero norm, or Lance stored another number of rows than asked.
    """
    sizes = np.ones(len(batch), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
    _check_vectors(space, batch, array, sizes)
    with files.lock(collection.lock_path("commit")):
        known.refresh(collection, [d.item.id for d in batch])
        keys = _write_items(collection, known, batch)
        new = np.array([key not in known.embedded for key in keys], dtype=bool)
        _write_vectors(collection, space, batch, keys, np.where(new, sizes, 0), array[np.repeat(new, sizes)])
        known.embedded.update(keys)


def commit_metadata(collection: Collection, known: Known, items: Sequence[Item]) -> None:
    """Store what the source says of items whose content is unchanged; vectors are not touched."""
    with files.lock(collection.lock_path("commit")):
        known.refresh(collection, [item.id for item in items])
        rows = [{**known.rows[i.id].row, **_file_facts(i), **known.wanted_row(i)} for i in items if i.id in known.rows]
        _merge(collection, known, rows)


def edit(collection: Collection, id: str, values: Mapping[str, Any], *, by: str) -> None:
    """Set columns of one item by hand: appended to `edits`, applied to `items`, never reverted by a re-run.

    Raises:
        UnknownName: no item has this id, or no such column exists.
        UsageError: a column of ours, or a value of another type.
    """
    with files.lock(collection.lock_path("commit")):
        table = collection.items
        found = table.search().where(col("id") == lit(id)).to_arrow().to_pylist()
        if not found:
            raise UnknownName(f"no item has the id {id!r}", where=f"collection {collection.name}")
        _check_edit(table.schema, values)
        now = datetime.now(UTC)
        records = [{"id": id, "name": n, "value": json.dumps(v), "by": by, "at": now} for n, v in values.items()]
        files.checkpoint("edits")
        collection.table(schema.EDITS).add(pa.Table.from_pylist(records, schema=schema.edits_schema()))
        files.checkpoint("items")
        _run_merge(table, schema.item_table(table.schema, [{**found[0], **values}]))


def delete_ids(collection: Collection, ids: Sequence[str]) -> int:
    """Delete items by id and return how many there were; they leave every answer at once, vectors are swept later."""
    removed = 0
    with files.lock(collection.lock_path("commit")):
        items = collection.items
        for start in range(0, len(ids), 5000):
            before = items.count_rows()
            files.checkpoint("delete")
            items.delete(col("id").isin(list(ids[start : start + 5000])))
            removed += before - items.count_rows()
    return removed


def compact(collection: Collection, space: Space) -> None:
    """Merge small fragments after enough writes; versions stay for a day, so that readers keep what they hold."""
    with files.lock(collection.lock_path("commit")):
        for table in (collection.items, collection.vectors(space)):
            if table.stats()["fragment_stats"]["num_small_fragments"] > OPTIMIZE_AFTER:
                files.checkpoint("optimize")
                table.optimize(cleanup_older_than=timedelta(days=1))


def _write_items(collection: Collection, known: Known, batch: Sequence[Decoded]) -> list[int]:
    fresh = [d for d in batch if (s := known.rows.get(d.item.id)) is None or s.content_hash != d.content_hash]
    first = reserve_keys(collection, len(fresh))
    new_keys = {d.item.id: first + i for i, d in enumerate(fresh)}
    keys, rows = [], []
    for d in batch:
        stored = known.rows.get(d.item.id)
        key = new_keys.get(d.item.id) or (stored.key if stored else 0)
        row = _item_row(d, key, stored.row if stored else {}, known)
        keys.append(key)
        if stored is None or any(stored.row.get(name) != value for name, value in row.items()):
            rows.append(row)
    _merge(collection, known, rows)
    return keys


def _item_row(d: Decoded, key: int, stored: Mapping[str, Any], known: Known) -> dict[str, Any]:
    facts = {"size": d.size, "mtime_ns": d.mtime_ns}
    guessed = mimetypes.guess_type(d.item.source)[0] or ""
    media_type = (
        guessed if guessed.startswith(d.item.medium) else {"text": "text/plain", "image": "image/*"}[d.item.medium]
    )
    text = d.item.text if d.item.text is not None else (d.value if d.item.medium == "text" else None)
    kept = {name: value for name, value in stored.items() if name not in schema.OWN}
    own = {"id": d.item.id, "key": key, "content_hash": d.content_hash, "media_type": media_type, "text": text, **facts}
    return {**kept, **known.wanted_row(d.item), **own}


def _file_facts(item: Item) -> dict[str, Any]:
    return {} if item.mtime_ns is None else {"size": item.size, "mtime_ns": item.mtime_ns}


def _merge(collection: Collection, known: Known, rows: Sequence[dict[str, Any]]) -> None:
    if not rows:
        return
    table = collection.items
    files.checkpoint("items")
    _run_merge(table, schema.item_table(table.schema, rows))
    if known.picture.version != BEHIND:
        known.picture.version = table.version
    for row in rows:
        known.rows[row["id"]] = Stored(row["key"], row["content_hash"], dict(row))


def _run_merge(table: Any, rows: Any) -> None:
    result = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
    done = result.num_updated_rows + result.num_inserted_rows
    if done != rows.num_rows:
        raise PermafrostError(f"Lance stored {done} of {rows.num_rows} items", hint="permafrost verify says which")


def _write_vectors(
    collection: Collection,
    space: Space,
    batch: Sequence[Decoded],
    keys: Sequence[int],
    sizes: NDArray[np.int64],
    array: FloatMatrix,
) -> None:
    if not len(array):
        return
    table = collection.vectors(space)
    at = [(i, part) for i, size in enumerate(sizes) for part in range(size)]
    ids, hashes = [batch[i].item.id for i, _ in at], [batch[i].content_hash for i, _ in at]
    rows = schema.vector_table(table.schema, [keys[i] for i, _ in at], [part for _, part in at], ids, hashes, array)
    files.checkpoint("vectors")
    table.add(rows)


def _check_vectors(space: Space, batch: Sequence[Decoded], array: FloatMatrix, sizes: NDArray[np.int64]) -> None:
    fitting = sizes.shape == (len(batch),) and bool((sizes > 0).all()) and array.shape == (sizes.sum(), space.dim)
    if not fitting or len({d.item.id for d in batch}) != len(batch):
        raise PermafrostError(
            f"a batch of {len(batch)} items came with vectors of shape {array.shape}, or repeats an id"
        )
    norms = np.linalg.norm(array, axis=1)
    bad = np.flatnonzero(~(np.isfinite(norms) & (norms > 0)))
    if bad.size:
        owner = int(np.repeat(np.arange(len(batch)), sizes)[bad[0]])
        raise PermafrostError("a vector is not finite or has zero norm", where=batch[owner].item.id)


def _check_edit(table_schema: Any, values: Mapping[str, Any]) -> None:
    for name, value in values.items():
        if name in schema.RESERVED:
            raise UsageError(f"{name!r} is Permafrost's own column and cannot be edited")
        if name not in table_schema.names:
            raise UnknownName.of("column", name, table_schema.names)
        try:
            pa.array([value], type=table_schema.field(name).type)
        except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
            raise UsageError(f"{value!r} does not fit column {name!r}: {error}") from error
