"""From an older format of the store to this one, a numbered step at a time.

A step copies aside what it will change (`.before-format-N/`), changes it, and the number in `permafrost.json` is raised
last: a step that was killed is done again. `needs` there is the first version of Permafrost that reads the format.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from embedder.errors import Damaged, PermafrostError
from index import files

FORMAT = 2
MARK = "permafrost.json"
NEEDS = {1: "0.1.0", 2: "0.1.0"}


def _readers_announce_themselves(store: Path) -> None:
    """Format 1 to 2: every collection has the locks that a purge waits for, and a home for tags.

    A program of format 1 takes no lock when it reads, so that a purge could break its queries: it must not open these.
    """
    for folder in collections(store):
        prepare(folder)


STEPS: dict[int, Callable[[Path], None]] = {1: _readers_announce_themselves}


def collections(store: Path) -> list[Path]:
    """Return the folders of a store's collections."""
    return sorted(path.parent for path in store.glob("*/collection.json"))


def prepare(collection: Path) -> None:
    """Make what format 2 has in a collection and format 1 had not."""
    for name in ("gate", "readers"):
        path = collection / "locks" / f"{name}.lock"
        path.parent.mkdir(exist_ok=True)
        path.touch()
    (collection / "tags").mkdir(exist_ok=True)


def marker(created: str) -> dict[str, Any]:
    """Return what `permafrost.json` says of a new store."""
    return {"format": FORMAT, "needs": NEEDS[FORMAT], "created": created}


def bring_up(store: Path) -> list[int]:
    """Bring a store of an older format to this one and return the formats that it left.

    Raises:
        Damaged: its format is newer, or not a number; the version to install is in the hint.
        PermafrostError: the folder cannot be written.
    """
    found = _format_of(store)
    if found == FORMAT:
        return []
    try:
        with files.lock(store / ".migrate.lock"):
            left = []
            while (found := _format_of(store)) < FORMAT:
                _step(store, found)
                left.append(found)
            return left
    except OSError as error:
        raise PermafrostError(
            f"the store has format {found} and must be brought to {FORMAT}, but it cannot be written: {error.strerror}",
            where=str(store), hint="open it once where it can be written: permafrost doctor --mend",
        ) from error  # fmt: skip


def _format_of(store: Path) -> int:
    record = files.read_json(store / MARK)
    found = record.get("format") if isinstance(record, dict) else None
    if not isinstance(found, int) or isinstance(found, bool) or found < 1:
        raise Damaged(f"{MARK} names no format: {found!r}", where=str(store), hint="restore it from a backup")
    if found > FORMAT:
        needs = record.get("needs")
        hint = f"pip install 'permafrost>={needs}'" if needs else "install a newer version of Permafrost"
        raise Damaged(f"the store has format {found}; this version reads up to {FORMAT}", where=str(store), hint=hint)
    return found


def _step(store: Path, number: int) -> None:
    kept = store / f".before-format-{number + 1}"
    for path in (store / MARK, *(f / name for f in collections(store) for name in ("collection.json", "keys.json"))):
        target = kept / path.relative_to(store)
        if path.exists() and not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(path, target)
    files.checkpoint("migrate:step")
    STEPS[number](store)
    record = files.read_json(store / MARK)
    files.write_json(store / MARK, {**record, "format": number + 1, "needs": NEEDS[number + 1]})
