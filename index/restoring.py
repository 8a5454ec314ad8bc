"""Back to a tag or to an earlier version: new versions with the old contents, so that nothing is lost.

Items and edits become what they were, each in one commit. Vectors that were swept since are added again; none is
removed, for a vector is alive exactly while `items` holds its key. Keys are never used again: the counter stays as it
is, and so do aliases. The state before is tagged, so that a restore can itself be undone. A killed restore leaves a
note, and the next one, a vacuum or the doctor finishes it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa

from embedder.errors import UnknownName
from index import files, ledger, schema, tags
from index.live import member
from index.store import Collection, scan

NOTE = "restoring.json"
ROWS = 8192
UNDO = "before-restore"


@dataclass(frozen=True)
class Restored:
    """What a restore did: to `source`, from version `before` to `after`; `undo` is the tag to go back.

    `changed` counts the items that came back, went away or are otherwise now; `vectors` those that were added again.
    """

    source: str
    before: int
    after: int
    undo: str
    items: int
    changed: int
    vectors: int


@dataclass(frozen=True)
class _Source:
    """Where the old rows are read: a table by name, None where there was none; `names` are those that there were."""

    names: list[str]
    table: Callable[[str], Any]


def to_tag(collection: Collection, name: str) -> Restored:
    """Make a collection what it was at a tag. Raises `UnknownName` where there is none."""
    with ledger.committing(collection):
        _finish(collection)
        return _restore(collection, {"tag": tags.find(collection, name).name})


def to_version(collection: Collection, version: int) -> Restored:
    """Make a collection what it was at a version of its `items`, as `info` shows it.

    Raises:
        UnknownName: it is not there: clean-up keeps versions for an hour or more, and for ever only those of tags.
    """
    with ledger.committing(collection):
        _finish(collection)
        return _restore(collection, {"versions": _versions_at(collection, version), "version": version})


def unfinished(collection: Collection) -> bool:
    """Say whether a restore was killed before its end."""
    return (collection.path / NOTE).exists()


def finish(collection: Collection) -> bool:
    """Finish a restore that was killed; say whether there was one."""
    with ledger.committing(collection):
        return _finish(collection)


def _finish(collection: Collection) -> bool:
    path = collection.path / NOTE
    if not path.exists():
        return False
    _apply(collection, files.read_json(path))
    path.unlink()
    return True


def _restore(collection: Collection, target: dict[str, Any]) -> Restored:
    before = _crcs(collection)
    version = int(collection.items.version)
    undo = tags.create_locked(collection, tags.free_name(collection, UNDO), why="what was there before a restore")
    files.write_json(collection.path / NOTE, target)
    vectors = _apply(collection, target)
    (collection.path / NOTE).unlink()
    after = _crcs(collection)
    changed = sum(before.get(id) != after.get(id) for id in before.keys() | after.keys())
    name = f"tag {target['tag']}" if "tag" in target else f"version {target['version']}"
    return Restored(name, version, int(collection.items.version), undo.name, len(after), changed, vectors)


def _apply(collection: Collection, target: dict[str, Any]) -> int:
    source = _source(collection, target)
    added = 0
    for name in source.names:
        if name.startswith(schema.VECTORS):
            added += _add_missing(collection, name, source)
    files.checkpoint("restore:edits")
    _replace(collection.table(schema.EDITS), source.table(schema.EDITS), ["id", "name", "at"])
    files.checkpoint("restore:items")
    _replace(collection.items, source.table(schema.ITEMS), ["id"])
    return added


def _source(collection: Collection, target: dict[str, Any]) -> _Source:
    if "tag" in target:
        copy = tags.opened(collection, target["tag"])
        return _Source(copy.tables(), copy.table)
    versions = target["versions"]

    def old(name: str) -> Any:
        if versions.get(name) is None:
            return None
        handle = collection.db.open_table(name)
        handle.checkout(versions[name])
        return handle

    return _Source(sorted(versions), old)


def _versions_at(collection: Collection, version: int) -> dict[str, int | None]:
    """Return the versions of all tables when `items` had `version`: its vectors follow it, its edits go before it."""
    history = _history(collection.items)
    times = dict(history)
    if version not in times:
        known = ", ".join(str(v) for v, _ in history[-5:])
        raise UnknownName(
            f"version {version} of {collection.name!r} is not there any more, or was never",
            hint=f"the last ones are {known}; permafrost tag {collection.name} lists the tags",
        )
    at, later = times[version], min((t for v, t in history if v > version), default=None)
    found: dict[str, int | None] = {schema.ITEMS: version}
    for name in collection.tables():
        if name != schema.ITEMS:
            limit = at if name == schema.EDITS else later
            past = [v for v, t in _history(collection.table(name)) if limit is None or t <= limit]
            found[name] = max(past, default=None)
    return found


def _history(table: Any) -> list[tuple[int, datetime]]:
    return sorted((int(v["version"]), v["timestamp"]) for v in table.list_versions())


def _replace(table: Any, source: Any, on: list[str]) -> None:
    """Make the rows of a table those of another one, in one commit; a column that came later is null in them."""
    rows = source.search().to_arrow() if source is not None else table.schema.empty_table()
    columns = [
        rows[field.name].cast(field.type) if field.name in rows.schema.names else pa.nulls(rows.num_rows, field.type)
        for field in table.schema
    ]
    merge = table.merge_insert(on).when_matched_update_all().when_not_matched_insert_all()
    merge.when_not_matched_by_source_delete().execute(pa.table(columns, schema=table.schema))


def _add_missing(collection: Collection, name: str, source: _Source) -> int:
    """Add the vectors of the source whose key is not here any more; all parts of a key go or stay together."""
    old = source.table(name)
    if old is None:
        return 0
    if name not in collection.tables():
        collection.db.create_table(name, schema=old.schema)
    table = collection.table(name)
    here = np.unique(scan(table, ["key"])["key"].to_numpy().astype(np.int64))
    missing = ~member(scan(old, ["key"])["key"].to_numpy().astype(np.int64), here)
    if not missing.any():
        return 0
    files.checkpoint("restore:vectors")
    table.add(pa.RecordBatchReader.from_batches(table.schema, _missing(old, here, table.schema)))
    return int(missing.sum())


def _missing(old: Any, here: Any, wanted: Any) -> Iterator[Any]:
    for batch in old.search().select(wanted.names).to_batches(ROWS):
        keep = ~member(batch["key"].to_numpy().astype(np.int64), here)
        rows = pa.Table.from_batches([batch]).filter(pa.array(keep))
        yield from pa.table([rows[name] for name in wanted.names], schema=wanted).to_batches()


def _crcs(collection: Collection) -> dict[str, int]:
    rows = scan(collection.items, ["id", "row_crc"])
    return dict(zip(rows["id"].to_pylist(), rows["row_crc"].to_pylist(), strict=True))
