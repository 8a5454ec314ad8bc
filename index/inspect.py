"""What is really there: `describe` counts it, `verify` checks every row and file against its checksum."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from lancedb import col

from embedder.errors import Damaged, PermafrostError
from embedder.space import Space
from index import derived, files, schema
from index.live import Live, member
from index.store import Collection, scan


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, where, and what to do. `id` names the item, where there is one."""

    what: str
    where: str
    do: str
    id: str | None = None


@dataclass
class Verdict:
    """What was checked, by count, and what is wrong."""

    checked: dict[str, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return the verdict as plain values; `ok` says that nothing is wrong."""
        return {"ok": not self.problems, "checked": self.checked, "problems": [asdict(p) for p in self.problems]}


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


def verify(collection: Collection) -> Verdict:
    """Check every row of every table against its checksum, counts against each other, and every index file.

    A damaged vector is named by its item; `mend` removes it, and the next `embed` makes it again.
    """
    verdict = Verdict()
    _verify_items(collection, verdict)
    for space in collection.spaces().values():
        _verify_vectors(collection, space, verdict)
        _verify_index(collection, space, verdict)
    return verdict


def mend(collection: Collection, verdict: Verdict) -> int:
    """Remove damaged vectors, so that the next `embed` makes them again; return how many."""
    ids = sorted({p.id for p in verdict.problems if p.id is not None and p.where.startswith(schema.VECTORS)})
    removed = 0
    with files.lock(collection.lock_path("commit")):
        for name in {p.where for p in verdict.problems if p.where.startswith(schema.VECTORS)}:
            table = collection.table(name)
            before = table.count_rows()
            files.checkpoint("mend")
            table.delete(col("id").isin(ids))
            removed += before - table.count_rows()
    return removed


def _verify_items(collection: Collection, verdict: Verdict) -> None:
    rows = _read(collection.items.search().to_arrow, "items", verdict)
    if rows is None:
        return
    records = rows.to_pylist()
    verdict.checked["items"] = len(records)
    for row in records:
        if schema.item_crc(row) != row["row_crc"]:
            verdict.problems.append(
                Problem(
                    "an item's row fails its checksum", schema.ITEMS, "delete it and embed its source again", row["id"]
                )
            )
    for name, values in (("id", [r["id"] for r in records]), ("key", [r["key"] for r in records])):
        if len(set(values)) != len(values):
            twice = next(v for v in values if values.count(v) > 1)
            verdict.problems.append(
                Problem(f"{name} {twice!r} is stored twice", schema.ITEMS, "delete it, then embed again")
            )
    counter = files.read_json(collection.path / "keys.json")["next"]
    if any(r["key"] >= counter for r in records):
        verdict.problems.append(
            Problem("the counter of keys is behind the keys in use", "keys.json", "permafrost doctor")
        )


def _verify_vectors(collection: Collection, space: Space, verdict: Verdict) -> None:
    name = schema.VECTORS + space.fingerprint
    columns = ["key", "id", "part", "content_hash", "vector", "row_crc"]
    rows = _read(lambda: scan(collection.vectors(space), columns), name, verdict)
    if rows is None:
        return
    verdict.checked["vectors"] = verdict.checked.get("vectors", 0) + rows.num_rows
    vectors = schema.vectors_of(rows)
    sound = schema.sound(rows, vectors)
    ids = rows["id"].to_pylist()
    verdict.problems += [
        Problem("a vector fails its checksum", name, "verify --mend, then embed again", ids[i])
        for i in np.flatnonzero(~sound)
    ]
    norms = np.linalg.norm(vectors, axis=1)
    verdict.problems += [
        Problem("a vector is not finite or has zero norm", name, "verify --mend, then embed again", ids[i])
        for i in np.flatnonzero(sound & ~(np.isfinite(norms) & (norms > 0)))
    ]
    _verify_parts(rows, ids, name, verdict)


def _verify_parts(rows: Any, ids: list[str], name: str, verdict: Verdict) -> None:
    """An item's parts are 0, 1, … without a gap: what is missing would never be found, and never be made again."""
    keys, parts = rows["key"].to_numpy().astype(np.int64), rows["part"].to_numpy().astype(np.int64)
    order = np.lexsort((parts, keys))
    first = np.flatnonzero(np.diff(keys[order], prepend=keys[order][:1] - 1))
    expected = np.arange(len(keys)) - np.repeat(first, np.diff(first, append=len(keys)))
    for i in order[np.flatnonzero(parts[order] != expected)]:
        verdict.problems.append(
            Problem("a part of an item is missing or is there twice", name, "verify --mend, then embed again", ids[i])
        )


def _verify_index(collection: Collection, space: Space, verdict: Verdict) -> None:
    where = f"indexes/{space.fingerprint}"
    try:
        loaded = derived.load(collection, space)
    except PermafrostError as error:
        verdict.problems.append(Problem(error.what, where, f"permafrost index {collection.name}"))
        return
    if loaded:
        verdict.checked["index files"] = verdict.checked.get("index files", 0) + len(loaded.manifest["files"])


def _read(reader: Any, name: str, verdict: Verdict) -> Any:
    try:
        return reader()
    except (RuntimeError, OSError, ValueError, Damaged) as error:
        verdict.problems.append(
            Problem(f"the table cannot be read: {type(error).__name__}", name, "restore it from a backup")
        )
        return None


def _bytes(folder: Path) -> int:
    return sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())


def busy(collection: Collection) -> list[str]:
    """Return what of a collection is leased by a live process: fingerprints of Spaces, `index-…`, `delete`."""
    locks = collection.path / "locks"
    return sorted(p.stem for p in locks.glob("*.lock") if p.stem not in ("commit", "settings") and files.is_leased(p))
