"""Purge: what was deleted leaves the disk.

Deleted rows stay in the files of older versions, in the fragments that still hold their neighbours, in indexes and in
lists of failures. A purge keeps readers and runs out, rewrites every table without them, drops all older versions and
whatever was derived from a dead row. It refuses while a tag would keep the bytes.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lancedb import col

from embedder.errors import Damaged, Refused
from embedder.records import Keys
from embedder.space import Space
from index import content, derived, files, ledger, migrate, readers, restoring, schema, tags, vacuum
from index.live import Live, member
from index.store import Collection, scan
from index.vacuum import Swept


@dataclass(frozen=True)
class Purged:
    """What a purge did: `indexes` were dropped because they held dead rows, as (Space, kind, arguments)."""

    swept: Swept
    edits: int
    failures: int
    indexes: list[tuple[Space, str, dict[str, Any]]]


def purge(collection: Collection, *, wait_s: float = readers.DRAIN_WAIT_S) -> Purged:
    """Erase every deleted byte of a collection.

    Raises:
        Refused: a tag (ours, or one that another program set through Lance) would keep deleted bytes; it is named.
        Locked: a run, a build or another purge is busy here, or a query did not end within `wait_s` seconds.
    """
    swept = Swept(bytes_before=vacuum.bytes_of(collection.path))
    with ExitStack() as held:
        for name in sorted(["purge", *_busy_names(collection)]):
            held.enter_context(files.lease(collection.lock_path(name), what=f"collection {collection.name}"))
        swept.finished_restore = restoring.finish(collection)
        held.enter_context(ledger.committing(collection))
        _refuse_tags(collection)
        held.enter_context(readers.drained(collection, wait_s))
        for space in collection.spaces().values():
            swept.swept += vacuum.sweep_locked(collection, schema.VECTORS + space.fingerprint)
        live = Live.read(collection)
        dropped = _drop_indexes(collection, live)
        edits = _drop_edits(collection)
        failures = _drop_failures(collection)
        for name in collection.tables():
            _rewrite(collection, name)
            swept.fragments += vacuum.fragments_of(collection.table(name))
        asides = [*vacuum.leftovers(collection), *vacuum.lance_leftovers(collection)]
        swept.leftovers = len(asides)
        # what a migration kept of the format before
        asides += collection.path.parent.glob(f"{migrate.KEPT}*/{collection.name}")
        pictures = content.orphans(collection)
        swept.pictures = len(pictures)
        for path in [*asides, *pictures]:
            vacuum.remove(path)
    swept.builds, swept.bytes_after = len(dropped), vacuum.bytes_of(collection.path)
    return Purged(swept, edits, failures, [one for one in dropped if one is not None])


def _busy_names(collection: Collection) -> list[str]:
    """Return the leases that runs and builds of indexes take."""
    return [name for f in collection.spaces() for name in (f, f"index-{f}")]


def _refuse_tags(collection: Collection) -> None:
    rows = scan(collection.items, ["key", "row_crc"])
    now = set(zip(rows["key"].to_pylist(), rows["row_crc"].to_pylist(), strict=True))
    live = Live.read(collection)
    keeping = [tag.name for tag in tags.listed(collection) if _keeps(tags.opened(collection, tag.name), now, live)]
    if keeping:
        more = ", and so on" if len(keeping) > 1 else ""
        raise Refused(
            f"nothing was purged: {'tag' if len(keeping) == 1 else 'tags'} {', '.join(keeping)} would keep rows that "
            "were deleted or changed",
            where=f"collection {collection.name}",
            hint=f"permafrost tag {collection.name} {keeping[0]} --delete{more}, then purge again",
        )
    for name in collection.tables():
        if found := collection.table(name).tags.list():
            raise Refused(
                f"nothing was purged: table {name} has tags of another program: {', '.join(sorted(found))}",
                where=str(collection.path), hint="delete them with LanceDB: table.tags.delete(NAME)",
            )  # fmt: skip


def _keeps(copy: Collection, now: set[tuple[int, int]], live: Live) -> bool:
    rows = scan(copy.items, ["key", "row_crc"])
    if not set(zip(rows["key"].to_pylist(), rows["row_crc"].to_pylist(), strict=True)) <= now:
        return True
    # an item that was deleted before the tag was made may have left its edits in it
    here = set(scan(copy.items, ["id"])["id"].to_pylist())
    if not set(scan(copy.table(schema.EDITS), ["id"])["id"].to_pylist()) <= here:
        return True
    tables = [name for name in copy.tables() if name.startswith(schema.VECTORS)]
    return any(len(vacuum.dead_keys(copy, name, live)) for name in tables)


def _drop_indexes(collection: Collection, live: Live) -> list[tuple[Space, str, dict[str, Any]] | None]:
    """Remove every build that holds a dead row; the kind of one that answered is returned, to be built again."""
    dropped: list[tuple[Space, str, dict[str, Any]] | None] = []
    for space in collection.spaces().values():
        home = derived.folder_of(collection, space)
        answering, manifest = _current(collection, space), derived.manifest_of(collection, space)
        for build in [p for p in home.glob("*") if p.is_dir()]:
            if not _holds_dead(build, live):
                continue
            if build.name == answering:
                (home / "current.json").unlink()
                dropped.append((space, manifest["kind"], manifest["args"]) if manifest else None)
            else:
                dropped.append(None)
            vacuum.remove(build)
    return dropped


def _current(collection: Collection, space: Space) -> str | None:
    try:
        return derived.current(collection, space)
    except Damaged:
        return None


def _holds_dead(build: Path, live: Live) -> bool:
    try:
        keys: Keys = np.load(build / derived.KEYS, allow_pickle=False)
    except (OSError, ValueError):
        # nobody can say what is in it, and it can be built again
        return True
    return not bool(member(keys, live.keys).all())


def _drop_edits(collection: Collection) -> int:
    """Remove what was set by hand on items that are gone."""
    edits = collection.table(schema.EDITS)
    here = set(scan(collection.items, ["id"])["id"].to_pylist())
    gone = sorted({id for id in scan(edits, ["id"])["id"].to_pylist() if id not in here})
    before = edits.count_rows()
    for start in range(0, len(gone), vacuum.KEYS_AT_ONCE):
        edits.delete(col("id").isin(gone[start : start + vacuum.KEYS_AT_ONCE]))
    return int(before - edits.count_rows())


def _drop_failures(collection: Collection) -> int:
    """Remove the lines of `failures.jsonl` about items that are not stored: they hold ids, paths and messages."""
    here = set(scan(collection.items, ["id"])["id"].to_pylist())
    removed = 0
    for path in (collection.path / "runs").glob("*/failures.jsonl"):
        lines = path.read_bytes().splitlines(keepends=True)
        kept = [line for line in lines if _id_of(line) in here]
        if len(kept) < len(lines):
            files.write_bytes(path, b"".join(kept))
            removed += len(lines) - len(kept)
    return removed


def _id_of(line: bytes) -> Any:
    try:
        return json.loads(line)["id"]
    except (ValueError, KeyError, TypeError):
        return None


def _rewrite(collection: Collection, name: str) -> None:
    """Write all rows of a table anew, so that no fragment holds a deleted one, and drop the older versions."""
    table = collection.table(name)
    for index in table.list_indices():
        table.drop_index(index.name)
    files.checkpoint("purge:rewrite")
    # an update of every row by itself: Lance moves rows out of a fragment only where a tenth of them is deleted
    column = {schema.ITEMS: "row_crc", schema.EDITS: "value"}.get(name, "row_crc")
    table.update(values_sql={column: f"`{column}`"})
    tags.drop_history(table)
