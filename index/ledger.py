"""The ledger: which version of each table was written last, and a copy of its manifest.

Lance opens the newest version that it finds. Where the newest manifest is lost, that is silently the one before, and
the last commit is gone; where a bit of it flips, nothing says so. `ledger.json` is written and synced after each
commit. A ledger that is behind is as good as none: its writer was killed, or wrote without us.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import logging
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.errors import Damaged
from index import files
from index.store import Collection

log = logging.getLogger("permafrost.index")
FILE = "ledger.json"
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
    """Hold the commit lock, and write down what was committed under it; Ctrl-C waits for the end of it."""
    with files.lock(collection.lock_path("commit")), files.unbroken():
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
    except (Damaged, KeyError, TypeError) as error:
        return [Fault(FILE, getattr(error, "what", f"{FILE} lacks {error}"), collection.path / FILE)]
    for name, entry in known.items():
        path = _manifest(collection, name, entry["version"])
        if _newest(collection, name) <= entry["version"] and _sha256(path) != entry["sha256"]:
            what = "fails its checksum" if path.exists() else "is gone"
            found.append(Fault(name, f"the newest manifest of table {name} {what}", path))
    return found


def repair(collection: Collection) -> list[str]:
    """Put the copies in the place of lost or damaged manifests, and make the ledger true again; say what was done.

    A copy whose rows are not there either, as after an older copy of the tables was put here, is not kept: what is
    there is then what is right.
    """
    done = []
    with files.lock(collection.lock_path("commit")):
        for name, entry in _read(collection).items():
            path = _manifest(collection, name, entry["version"])
            if _newest(collection, name) > entry["version"] or _sha256(path) == entry["sha256"]:
                continue
            if _put_back(collection, name, path, entry):
                done.append(f"table {name}: version {entry['version']} was put back, {entry['rows']} rows")
            else:
                done.append(f"table {name}: version {entry['version']} is lost: embed its source again")
        (collection.path / FILE).unlink(missing_ok=True)
        fresh = Collection(collection.path)
        for name in fresh.tables():
            fresh.table(name)
        record(fresh)
    return done


def _put_back(collection: Collection, name: str, path: Path, entry: dict[str, Any]) -> bool:
    """Put a manifest where it was, if all rows that it names can then be read."""
    try:
        data = zlib.decompress(base64.b64decode(entry["manifest"], validate=True))
    except (ValueError, zlib.error):
        return False
    if hashlib.sha256(data).hexdigest() != entry["sha256"]:
        return False
    before = path.read_bytes() if path.exists() else None
    files.write_bytes(path, data)
    try:
        read = sum(batch.num_rows for batch in Collection(collection.path).table(name).search().to_batches())
    except (RuntimeError, OSError, ValueError) as error:
        log.warning("version %s of table %s cannot be read: %s", entry["version"], name, error)
        read = -1
    if read == entry["rows"]:
        return True
    path.unlink() if before is None else files.write_bytes(path, before)
    return False


def _entry(collection: Collection, name: str, version: int, rows: int) -> dict[str, Any]:
    data = _manifest(collection, name, version).read_bytes()
    copy = base64.b64encode(zlib.compress(data, 1)).decode()
    return {"version": version, "rows": rows, "sha256": hashlib.sha256(data).hexdigest(), "manifest": copy}


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


def _newest(collection: Collection, name: str) -> int:
    """Return the newest version that has a manifest, 0 where there is none."""
    stems = [path.stem for path in _versions(collection, name).glob("*.manifest")]
    return max((NEWEST - int(stem) for stem in stems if stem.isdigit()), default=0)


def _sha256(path: Path) -> str | None:
    return files.sha256(path) if path.exists() else None
