"""The ledger: which version of each table was written last, and a copy of its manifest.

Lance opens the newest version that it finds. Where the newest manifest is lost, that is silently the one before, and
the last commit is gone; where a bit of it flips, nothing says so. `ledger.json` and the copies in `ledger/` are written
and synced after each commit. A ledger that is behind is as good as none: its writer was killed, or wrote without us.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.errors import Damaged
from index import files
from index.store import Collection

log = logging.getLogger("permafrost.index")
FILE, COPIES = "ledger.json", "ledger"
NEWEST = (1 << 64) - 1
REMEDY = "permafrost verify C --mend"


@dataclass(frozen=True)
class Fault:
    """What is wrong with the last written version of a table."""

    table: str
    what: str
    path: Path


@contextlib.contextmanager
def committing(collection: Collection) -> Iterator[None]:
    """Hold the commit lock, and write down what was committed under it."""
    with files.lock(collection.lock_path("commit")):
        yield
        record(collection)


def record(collection: Collection) -> None:
    """Write down the versions of the tables that this process has open; call it under the commit lock."""
    known = _read(collection)
    changed = False
    for name, table in collection.opened():
        version = int(table.version)
        if known.get(name, {}).get("version") != version:
            changed = True
            known[name] = _entry(collection, name, version, int(table.count_rows()))
    if changed:
        files.write_json(collection.path / FILE, {"tables": known})


def check(collection: Collection) -> None:
    """Refuse a collection of which the last commit is gone.

    Raises:
        Damaged: the newest manifest of a table is missing, so that Lance would open the version before.
    """
    for name, entry in _read(collection).items():
        if not _manifest(collection, name, entry["version"]).exists() and _newest(collection, name) < entry["version"]:
            found = _newest(collection, name)
            was = f"it would open as it was at version {found}" if found else "nothing of it is left"
            raise Damaged(
                f"version {entry['version']} of table {name}, the last that was written, is gone: {was}",
                where=str(collection.path), hint=REMEDY.replace(" C ", f" {collection.name} "),
            )  # fmt: skip


def faults(collection: Collection) -> list[Fault]:
    """Compare the newest manifest of each table, and its copy, with their checksums."""
    found = []
    try:
        known = files.read_json(collection.path / FILE)["tables"] if (collection.path / FILE).exists() else {}
    except Damaged as error:
        return [Fault(FILE, error.what, collection.path / FILE)]
    for name, entry in known.items():
        path, copy = _manifest(collection, name, entry["version"]), _copy(collection, name)
        if _newest(collection, name) <= entry["version"] and _sha256(path) != entry["sha256"]:
            what = "fails its checksum" if path.exists() else "is gone"
            found.append(Fault(name, f"the newest manifest of table {name} {what}", path))
        if _sha256(copy) != entry["sha256"]:
            found.append(Fault(name, f"the copy of the manifest of table {name} fails its checksum", copy))
    return found


def repair(collection: Collection) -> list[str]:
    """Put the copies in the place of lost or damaged manifests, and make the ledger true again; say what was done."""
    done = []
    with files.lock(collection.lock_path("commit")):
        known = _read(collection)
        for name, entry in known.items():
            path, copy = _manifest(collection, name, entry["version"]), _copy(collection, name)
            if _newest(collection, name) > entry["version"] or _sha256(path) == entry["sha256"]:
                continue
            if _sha256(copy) == entry["sha256"]:
                files.write_bytes(path, copy.read_bytes())
                done.append(f"table {name}: version {entry['version']} was put back, {entry['rows']} rows")
            else:
                done.append(f"table {name}: version {entry['version']} is lost: embed its source again")
        fresh = Collection(collection.path)
        for name in fresh.table_names():
            fresh.table(name)
        (collection.path / FILE).unlink(missing_ok=True)
        record(fresh)
    return done


def _entry(collection: Collection, name: str, version: int, rows: int) -> dict[str, Any]:
    data = _manifest(collection, name, version).read_bytes()
    files.write_bytes(_copy(collection, name), data)
    return {"version": version, "rows": rows, "sha256": hashlib.sha256(data).hexdigest()}


def _read(collection: Collection) -> dict[str, dict[str, Any]]:
    path = collection.path / FILE
    if not path.exists():
        return {}
    try:
        return dict(files.read_json(path)["tables"])
    except (Damaged, KeyError, TypeError) as error:
        log.warning("the ledger of %s is damaged (%s): %s", collection.name, error, REMEDY)
        return {}


def _versions(collection: Collection, name: str) -> Path:
    return collection.path / f"{name}.lance" / "_versions"


def _manifest(collection: Collection, name: str, version: int) -> Path:
    return _versions(collection, name) / f"{NEWEST - version}.manifest"


def _copy(collection: Collection, name: str) -> Path:
    return collection.path / COPIES / f"{name}.manifest"


def _newest(collection: Collection, name: str) -> int:
    """Return the newest version that has a manifest, 0 where there is none."""
    stems = [path.stem for path in _versions(collection, name).glob("*.manifest")]
    return max((NEWEST - int(stem) for stem in stems if stem.isdigit()), default=0)


def _sha256(path: Path) -> str | None:
    return files.sha256(path) if path.exists() else None
