"""What is really there: `describe` counts it; `verify` and `mend` are those of `audit`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from embedder.space import Space
from index import derived, files, schema
from index.audit import Problem, Verdict, mend, verify
from index.live import Live, member
from index.store import Collection, scan

__all__ = ["Problem", "Verdict", "busy", "describe", "mend", "verify"]


def describe(collection: Collection) -> dict[str, Any]:
    """Return the counts of a collection: items, columns, Spaces with their vectors and index, versions and bytes."""
    items, live = collection.items, Live.read(collection)
    settings = collection.settings
    default = settings["aliases"].get("default")
    spaces = [
        _describe_space(collection, s, live) | {"default": s.fingerprint == default}
        for s in collection.spaces().values()
    ]
    user = {f.name: schema.type_name(f.type) for f in items.schema if f.name not in schema.RESERVED}
    return {
        "collection": collection.name, "items": len(live.keys), "columns": user, "spaces": spaces,
        "aliases": settings["aliases"], "roots": settings["roots"],
        "edits": int(collection.table(schema.EDITS).count_rows()),
        "fragments": items.stats()["fragment_stats"]["num_fragments"], "version": int(items.version),
        "bytes": _bytes(collection.path), "busy": busy(collection),
    }  # fmt: skip


def _describe_space(collection: Collection, space: Space, live: Live) -> dict[str, Any]:
    table = collection.vectors(space)
    keys = scan(table, ["key"])["key"].to_numpy().astype(np.int64)
    parts = keys[live.holds(keys)]
    alive = np.unique(parts)
    manifest = derived.manifest_of(collection, space)
    index = None
    if manifest:
        covered = np.load(derived.folder_of(collection, space) / str(derived.current(collection, space)) / derived.KEYS)
        fresh = int((~member(alive, np.sort(covered))).sum())
        index = {"kind": manifest["kind"], "rows": manifest["rows"], "fresh": fresh, **manifest["measured"]}
    return {
        "fingerprint": space.fingerprint, "encoder": space.encoder, "dim": space.dim, "media": list(space.media),
        "vectors": len(alive), "parts": len(parts), "missing": len(live.keys) - len(alive),
        "dead": len(keys) - len(parts),
        "fragments": table.stats()["fragment_stats"]["num_fragments"], "version": int(table.version), "index": index,
        "identity": dict(space.identity), "provenance": dict(space.provenance),
    }  # fmt: skip


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def busy(collection: Collection) -> list[str]:
    """Return what of a collection is leased by a live process: fingerprints of Spaces, `index-…`, `delete`."""
    locks = collection.path / "locks"
    return sorted(p.stem for p in locks.glob("*.lock") if p.stem not in ("commit", "settings") and files.is_leased(p))
