"""What else `info` says of a collection: versions, tags, locks, and of each Space what is stale."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedder.space import Space
from index import files, restoring, tags, vacuum
from index.live import Live
from index.store import Collection, scan


def standing(collection: Collection) -> dict[str, Any]:
    """Return `bytes` (each file once), `versions` by table, `tags`, `locks` with their holders, and `unfinished`."""
    versions = {name: len(collection.table(name).list_versions()) for name in collection.tables()}
    return {
        "bytes": vacuum.bytes_of(collection.path),
        "versions": versions,
        "tags": [tag.as_json() for tag in tags.listed(collection)],
        "locks": locks(collection),
        "unfinished": ["restore"] if restoring.unfinished(collection) else [],
    }


def locks(collection: Collection) -> list[dict[str, Any]]:
    """Return the leases that live processes hold: `lock`, and `what pid host started` of the holder as far as known."""
    found = []
    for path in sorted((collection.path / "locks").glob("*.lock")):
        if path.stem in ("commit", "settings", "gate", "readers") or not files.is_leased(path):
            continue
        holder: dict[str, Any] = {}
        with contextlib.suppress(OSError, ValueError):
            holder = json.loads(path.with_suffix(".owner.json").read_bytes())
        found.append({"lock": path.stem, **{name: holder.get(name) for name in ("what", "pid", "host", "started")}})
    return found


def stale(collection: Collection, space: Space, live: Live) -> int:
    """Return how many items have in this Space only a vector of what they were before."""
    table = collection.vectors(space)
    if live.holds(scan(table, ["key"])["key"].to_numpy().astype(np.int64)).all():
        return 0
    rows = scan(table, ["key", "id"])
    alive = live.holds(rows["key"].to_numpy().astype(np.int64))
    dead = pc.unique(rows.filter(pa.array(~alive))["id"])
    now = rows.filter(pa.array(alive))["id"]
    lacking = dead.filter(pc.invert(pc.is_in(dead, value_set=now.combine_chunks())))
    return int(pc.sum(pc.is_in(lacking, value_set=scan(collection.items, ["id"])["id"].combine_chunks())).as_py() or 0)


def spaces(collection: Collection) -> dict[str, dict[str, int]]:
    """Return, by fingerprint, the `stale` items of each Space."""
    live = Live.read(collection)
    return {f: {"stale": stale(collection, space, live)} for f, space in collection.spaces().items()}
