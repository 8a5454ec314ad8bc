"""The write path: what is known, which keys are free, and one batch made durable: items first, then vectors.

A key names one version of an item's content. A vector is alive exactly while `items` holds its key, so a batch that
stops between its two commits leaves an item without a vector, which the next run finds and embeds; never the reverse.
"""

from __future__ import annotations

import json
import mimetypes
import os
from collections.abc import Collection as Collected
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from lancedb import col, lit
from numpy.typing import NDArray

from embedder.errors import Damaged, PermafrostError, UnknownName, UsageError
from embedder.records import Decoded, FloatMatrix, Item, Keys
from embedder.space import Space
from index import files, ledger, schema
from index.checksums import Sums
from index.edits import Edits
from index.known import Known, Mask, Picture, digest_of, packed
from index.store import Collection

KEY_GAP = 16
OPTIMIZE_AFTER = 20


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
    with ledger.committing(collection):
        items = collection.items
        added = schema.new_columns(items.schema, wanted)
        if added:
            files.checkpoint("columns")
            items.add_columns(pa.schema(added))


def set_golden(collection: Collection, space: Space, golden: Mapping[str, str]) -> None:
    """Store the golden vectors of a Space whose table was made without, on its column of vectors."""
    with ledger.committing(collection):
        files.checkpoint("golden")
        change = {"path": "vector", "metadata": {schema.GOLDEN_KEY.decode(): json.dumps(dict(golden))}}
        collection.vectors(space).update_field_metadata(change)


def commit(
    collection: Collection,
    space: Space,
    known: Known,
    batch: Sequence[Decoded],
    array: FloatMatrix,
    counts: Sequence[int] | None = None,
) -> Mask:
    """Store one batch, whose ids are distinct, and return a mask (n,) of the items that are new in this Space.

    The next `counts[i]` rows of `array` are the vectors of `batch[i]`.

    All parts of an item are added in one commit of Lance, which is whole or not at all: a key that has one vector has
    all of them, and so is embedded.

    Raises:
        PermafrostError: a vector is not finite or has zero norm, or Lance stored another number of rows than asked.
    """
    with ledger.committing(collection):
        return write(collection, space, known, batch, array, counts)


def write(
    collection: Collection,
    space: Space,
    known: Known,
    batch: Sequence[Decoded],
    array: FloatMatrix,
    counts: Sequence[int] | None = None,
    renewed: Collected[str] = frozenset(),
) -> Mask:
    """As `commit`, for a caller that holds the commit lock.

    The ids in `renewed` get a new key, and with it the given vector, also where their content is what is stored.
    """
    sizes = np.ones(len(batch), dtype=np.int64) if counts is None else np.asarray(counts, dtype=np.int64)
    _check_vectors(space, batch, array, sizes)
    keys = _write_items(collection, known.picture, batch, renewed)
    new: Mask = ~known.embedded.holds(keys)
    _write_vectors(collection, space, batch, keys, np.where(new, sizes, 0), array[np.repeat(new, sizes)])
    known.embedded.add(keys)
    return new


def are_new(collection: Collection, known: Known, ids: Sequence[str]) -> bool:
    """Say whether none of these ids is stored, nor anything edited by hand; call it under the commit lock."""
    facts = known.picture.current(collection, ids)
    return not known.picture.edits and bool((facts.find(ids) < 0).all())


def write_new(
    collection: Collection, space: Space, known: Known, columns: Mapping[str, Any], array: FloatMatrix, sums: Sums
) -> None:
    """Store items that are not here yet, given as columns of `items` with a vector each, under the commit lock.

    `sums` are the `vector_sums` of the vectors.
    """
    ids = columns["id"]
    first = reserve_keys(collection, len(ids))
    keys = np.arange(first, first + len(ids))
    rows = schema.item_columns(collection.items.schema, {**columns, "key": keys}, len(ids))
    _merge(collection, known.picture, rows, new=True)
    table = collection.vectors(space)
    rows = schema.vector_table(
        table.schema, keys, np.zeros(len(ids)), rows["id"], rows["content_hash"], array, {"vector": sums}
    )
    files.checkpoint("vectors")
    table.add(rows)
    known.embedded.add(keys)


def commit_metadata(collection: Collection, known: Known, items: Sequence[Item]) -> None:
    """Store what the source says of items whose content is unchanged; vectors are not touched."""
    with ledger.committing(collection):
        stored = _stored(collection, known.picture, [item.id for item in items])
        there = [(item, stored[item.id]) for item in items if item.id in stored]
        rows = [{**row, **_file_facts(item), **_wanted(item, known.picture.edits)} for item, row in there]
        if rows:
            _merge(collection, known.picture, schema.item_table(collection.items.schema, rows), new=False)


def edit(collection: Collection, id: str, values: Mapping[str, Any], *, by: str) -> None:
    """Set columns of one item by hand: appended to `edits`, applied to `items`, never reverted by a re-run.

    Raises:
        UnknownName: no item has this id, or no such column exists.
        UsageError: a column of ours, or a value of another type.
    """
    with ledger.committing(collection):
        table = collection.items
        found = table.search().where(col("id") == lit(id)).to_arrow().to_pylist()
        if not found:
            raise UnknownName(f"no item has the id {id!r}", where=f"collection {collection.name}")
        _check_edit(table.schema, values)
        now = datetime.now(UTC)
        records = [{"id": id, "name": n, "value": json.dumps(v), "by": by, "at": now} for n, v in values.items()]
        added = schema.item_table(schema.edits_schema(), records)
        files.checkpoint("edits")
        collection.table(schema.EDITS).add(added)
        files.checkpoint("items")
        _run_merge(table, schema.item_table(table.schema, [{**found[0], **values}]))


def delete_ids(collection: Collection, ids: Sequence[str]) -> int:
    """Delete items by id and return how many there were; they leave every answer at once, vectors are swept later."""
    removed = 0
    with ledger.committing(collection):
        items = collection.items
        for start in range(0, len(ids), 5000):
            before = items.count_rows()
            files.checkpoint("delete")
            items.delete(col("id").isin(list(ids[start : start + 5000])))
            removed += before - items.count_rows()
    return removed


def compact(collection: Collection, space: Space) -> None:
    """Merge small fragments after enough writes; versions stay for a day, so that readers keep what they hold."""
    with ledger.committing(collection):
        for table in (collection.items, collection.vectors(space)):
            if table.stats()["fragment_stats"]["num_small_fragments"] > OPTIMIZE_AFTER:
                files.checkpoint("optimize")
                table.optimize(cleanup_older_than=timedelta(days=1))


def _write_items(collection: Collection, picture: Picture, batch: Sequence[Decoded], renewed: Collected[str]) -> Keys:
    """Write the rows of a batch that are new or changed, and return the keys (n,) of all."""
    items = [d.item for d in batch]
    ids = [item.id for item in items]
    facts = picture.current(collection, ids)
    rows = facts.find(ids)
    stored = np.flatnonzero(rows >= 0).tolist()
    keys = np.zeros(len(batch), dtype=np.int64)
    keys[stored] = facts.keys[rows[stored]]
    fresh, settled = np.ones(len(batch), dtype=bool), np.zeros(len(batch), dtype=bool)
    digests = packed([digest_of(batch[i].content_hash) for i in stored])
    same = facts.same_content(rows[stored], digests)
    if renewed:
        same &= np.array([ids[i] not in renewed for i in stored], dtype=bool)
    fresh[stored] = ~same
    files_same = facts.same_files(rows[stored], [batch[i].size for i in stored], [batch[i].mtime_ns for i in stored])
    settled[stored] = same & files_same & facts.describe(rows[stored], [items[i] for i in stored], picture.edits)
    first = reserve_keys(collection, int(fresh.sum()))
    keys[fresh] = np.arange(first, first + int(fresh.sum()))
    changed = np.flatnonzero(~settled).tolist()
    if len(changed):
        before = _stored(collection, picture, [ids[i] for i in changed if rows[i] >= 0])
        table = _item_rows(collection.items.schema, [batch[i] for i in changed], keys[changed], before, picture.edits)
        _merge(collection, picture, table, new=not before)
    return keys


def _item_rows(
    table: Any, batch: Sequence[Decoded], keys: Keys, before: Mapping[str, Mapping[str, Any]], edited: Edits
) -> Any:
    """Return the rows of a batch as they shall be stored: what the source does not speak of stays as it was."""
    wanted = [_wanted(d.item, edited) for d in batch]
    columns: dict[str, Any] = {
        "id": [d.item.id for d in batch], "key": keys, "content_hash": [d.content_hash for d in batch],
        "size": [d.size for d in batch], "mtime_ns": [d.mtime_ns for d in batch],
        "media_type": [_media_type(d.item) for d in batch],     }  # fmt: skip
    kept = [before.get(d.item.id, {}) for d in batch] if before else [{}] * len(batch)
    columns["text"] = [_text(d, old) for d, old in zip(batch, kept, strict=True)]
    for name in table.names:
        if name not in columns:
            columns[name] = [row[name] if name in row else old.get(name) for row, old in zip(wanted, kept, strict=True)]
    return schema.item_columns(table, columns, len(batch))


def _wanted(item: Item, edited: Edits) -> dict[str, Any]:
    """Return the columns that the source gives for an item, with what a person edited in their place."""
    said = {**item.columns, "source": item.source, "group": item.group}
    if not edited:
        return said
    return {name: value if name == "source" else edited.get((item.id, name), value) for name, value in said.items()}


def _media_type(item: Item) -> str:
    guessed = _guessed(os.path.splitext(item.source)[1])
    return guessed if guessed.startswith(item.medium) else {"text": "text/plain", "image": "image/*"}[item.medium]


@cache
def _guessed(suffix: str) -> str:
    return mimetypes.guess_type(f"file{suffix}")[0] or ""


def _text(d: Decoded, stored: Mapping[str, Any]) -> str | None:
    text: str | None = d.item.text if d.item.text is not None else (d.value if d.item.medium == "text" else None)
    # a ready vector comes without its text: the same content has the same
    return stored.get("text") if text is None and stored.get("content_hash") == d.content_hash else text


def _file_facts(item: Item) -> dict[str, Any]:
    return {} if item.mtime_ns is None else {"size": item.size, "mtime_ns": item.mtime_ns}


def _stored(collection: Collection, picture: Picture, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the whole rows of these ids as they are now, by id."""
    if not ids:
        return {}
    picture.current(collection, ids)
    rows = collection.items.search().where(col("id").isin(list(ids))).to_arrow().to_pylist()
    return {row["id"]: row for row in rows}


def _merge(collection: Collection, picture: Picture, rows: Any, *, new: bool) -> None:
    """Write rows of items; `new` says that none of the ids is stored, so that nothing has to be looked for."""
    table = collection.items
    files.checkpoint("items")
    if new:
        table.add(rows)
    else:
        _run_merge(table, rows)
    picture.wrote(collection, rows["id"].to_pylist())


def _run_merge(table: Any, rows: Any) -> None:
    result = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all().execute(rows)
    done = result.num_updated_rows + result.num_inserted_rows
    if done != rows.num_rows:
        raise PermafrostError(f"Lance stored {done} of {rows.num_rows} items", hint="permafrost verify says which")


def _write_vectors(
    collection: Collection,
    space: Space,
    batch: Sequence[Decoded],
    keys: Keys,
    sizes: NDArray[np.int64],
    array: FloatMatrix,
) -> None:
    if not len(array):
        return
    table = collection.vectors(space)
    owners = np.repeat(np.arange(len(batch)), sizes)
    parts = np.arange(len(owners)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    at = owners.tolist()
    ids, hashes = [batch[i].item.id for i in at], [batch[i].content_hash for i in at]
    rows = schema.vector_table(table.schema, keys[owners], parts, ids, hashes, array)
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
