"""What a crash or an accident leaves in a store, and how each is put right without losing anything.

`faults` looks and changes nothing. A fault's `mend` is None where only a person can decide.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from embedder.errors import Damaged, PermafrostError
from index import derived, files, restoring, schema, tags, vacuum
from index.store import DELETED, NAME, Collection, Store, scan

# a counter that is made again skips more keys than any run that was killed can have reserved
KEY_LEAP = 1 << 32


@dataclass(frozen=True)
class Fault:
    """One thing that is wrong. `harmless` says that no answer is affected; `do` is for where `mend` is None."""

    what: str
    where: str
    mend: Callable[[], object] | None
    harmless: bool = False
    do: str = "permafrost doctor --mend"


def faults(store: Store) -> Iterator[Fault]:
    """Yield what is wrong with the folders of a store."""
    for folder in sorted(p for p in store.path.iterdir() if p.is_dir() and NAME.fullmatch(p.name)):
        if (folder / "collection.json").exists():
            yield from collection_faults(Collection(folder))
        elif (folder / DELETED).exists():
            yield Fault(
                "a deletion was killed before its end", folder.name, partial(shutil.rmtree, folder), harmless=True
            )
        elif (folder / f"{schema.ITEMS}.lance").exists():
            yield Fault("collection.json is lost", folder.name, partial(_make_settings, folder))
    left = [p for p in store.path.glob(".tmp-*") if vacuum.ended(p)]
    if left:
        yield Fault("a backup or restore was killed", ".tmp-*", lambda: vacuum.remove_all(left), harmless=True)


def collection_faults(collection: Collection) -> Iterator[Fault]:
    """Yield what is wrong with one collection."""
    name = collection.name
    try:
        files.read_json(collection.path / "collection.json")
    except Damaged as error:
        yield Fault(error.what, name, lambda: _make_settings(collection.path))
        return
    if restoring.unfinished(collection):
        yield Fault("a restore was killed before its end", name, lambda: restoring.finish(collection))
    if not _counter_is_sound(collection.path / "keys.json"):
        yield Fault("keys.json, the counter of keys, is lost or damaged", name, lambda: make_counter(collection))
    left = vacuum.leftovers(collection)
    if left:
        yield Fault(f"{len(left)} leftover(s) of killed writers", name, lambda: vacuum.remove_all(left), harmless=True)
    lance = vacuum.lance_leftovers(collection)
    if lance:
        size = sum(p.stat().st_size for p in lance if p.is_file())
        yield Fault(
            f"{len(lance)} leftover(s) of killed writers in the tables, {size >> 20} MiB", name,
            lambda: _sweep_lance(collection), harmless=True,
        )  # fmt: skip
    owners = vacuum.stale_owners(collection)
    if owners:
        what = f"{len(owners)} lease(s) name a process that has ended"
        yield Fault(what, name, lambda: vacuum.remove_all(owners), harmless=True)
    yield from _index_faults(collection)
    yield from _alias_faults(collection)


def _index_faults(collection: Collection) -> Iterator[Fault]:
    for space in collection.spaces().values():
        pointer = derived.folder_of(collection, space) / "current.json"
        try:
            build = derived.current(collection, space)
        except (Damaged, KeyError, TypeError):
            build = ""
        if build is None or (build and (pointer.parent / build / "manifest.json").exists()):
            continue
        yield Fault(
            f"the index of {space.short} points at a build that is gone", collection.name,
            partial(pointer.unlink, missing_ok=True), harmless=True,
        )  # fmt: skip


def _alias_faults(collection: Collection) -> Iterator[Fault]:
    spaces = collection.spaces()
    for alias, fingerprint in collection.settings["aliases"].items():
        if fingerprint not in spaces:
            yield Fault(
                f"alias {alias} means Space {fingerprint[:12]}, which is not here", collection.name, None,
                do=f"permafrost alias {collection.name} {alias} SPACE",
            )  # fmt: skip


def make_counter(collection: Collection) -> int:
    """Make `keys.json` again, past every key that any table, tag, index or head still names; return the next key."""
    with files.lock(collection.lock_path("commit")):
        copies = [tags.opened(collection, tag.name) for tag in tags.listed(collection)]
        highest = max((_highest(one) for one in [collection, *copies]), default=0)
        for path in collection.path.glob(f"indexes/*/*/{derived.KEYS}"):
            highest = max(highest, int(np.load(path, allow_pickle=False).max(initial=0)))
        first = highest + KEY_LEAP
        files.write_json(collection.path / "keys.json", {"next": first})
    return first


def _highest(collection: Collection) -> int:
    tables = [name for name in collection.tables() if name == schema.ITEMS or name.startswith(schema.VECTORS)]
    return max(int(scan(collection.table(name), ["key"])["key"].to_numpy().max(initial=0)) for name in tables)


def _counter_is_sound(path: Path) -> bool:
    try:
        return isinstance(files.read_json(path)["next"], int)
    except (OSError, PermafrostError, KeyError, TypeError):
        return False


def _make_settings(folder: Path) -> None:
    """Make `collection.json` again: one Space is the default; source roots are learnt from the next run."""
    spaces = list(Collection(folder).spaces())
    aliases: dict[str, Any] = {"default": spaces[0]} if len(spaces) == 1 else {}
    files.write_json(folder / "collection.json", {"created": None, "aliases": aliases, "roots": {}})


def _sweep_lance(collection: Collection) -> None:
    with files.lock(collection.lock_path("commit")):
        vacuum.remove_all(vacuum.lance_leftovers(collection))
