"""Backups: a store of its own, with the sha256 of every file and the root hash of every collection's contents.

Tables are written anew, row by row, from one moment, and each row is compared with its checksum on the way; so a backup
is small, whole, and holds no deleted row. Tags, old versions and indexes stay behind: indexes are made again.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from embedder.errors import Damaged, Refused, UnknownName, UsageError
from embedder.space import canonical_json
from index import content, contents, files, ledger, migrate, schema, tags
from index.live import Live
from index.store import Collection, Store, check_name

LIST = "backup.json"
BESIDE = ("keys.json", "collection.json")
FOLDERS = ("heads", "tuned", "runs", "reports")
ROWS = 4096


@dataclass(frozen=True)
class Backed:
    """One collection in a backup: `root` is its root hash, `at` when it was taken (UTC)."""

    collection: str
    at: str
    items: int
    vectors: dict[str, int]
    root: str


def write(store: Store, names: Sequence[str], dest: Path) -> list[Backed]:
    """Back collections up into a new folder, each as it is at one moment; runs and searches go on.

    Raises:
        UsageError: `dest` exists and is not empty, or lies in the store.
        Damaged: a row fails its checksum; a backup of it would hide that.
    """
    dest = dest.expanduser().resolve()
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):
        raise UsageError(f"{dest} exists and is not an empty folder", hint="give a new folder for each backup")
    if dest == store.path or store.path in dest.parents:
        raise UsageError(f"{dest} lies in the store itself", hint="give a folder elsewhere, best on another disk")
    aside = dest.parent / f".tmp-{os.getpid()}-{dest.name}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        target = Store.open(aside, create=True)
        done = [_copy(store.collection(name), target.collection(name, create=True)) for name in names]
        _seal(aside, done)
        if dest.exists():
            dest.rmdir()
        aside.rename(dest)
        files.sync_folder(dest.parent)
        return done
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def check(path: Path) -> list[Backed]:
    """Compare every file of a backup with its sha256, and return what is in it.

    Raises:
        UsageError: it is no backup.
        Damaged: a file is missing, added or changed; it is named.
    """
    record = _listed(path)
    found = {p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and not _is_lock(p)} - {LIST}
    wrong = sorted(found ^ record["files"].keys())
    if wrong:
        raise Damaged(f"{wrong[0]} is {'extra' if wrong[0] in found else 'missing'} in the backup", where=str(path))
    for name, expected in record["files"].items():
        if files.sha256(path / name) != expected:
            raise Damaged(f"{name} fails its checksum", where=str(path), hint="take another backup")
    return [Backed(**one) for one in record["collections"]]


def restore(store: Store, path: Path, name: str, *, into: str | None = None) -> Backed:
    """Put a collection of a backup into a store where none has its name, and compare its root hash.

    Raises:
        UnknownName: the backup has no such collection.
        Refused: the store has a collection of this name.
        Damaged: the backup was changed, or what was written differs from it.
    """
    there = {one.collection: one for one in check(path)}
    if name not in there:
        raise UnknownName.of("collection", name, there, where=str(path), hint=f"in it: {', '.join(sorted(there))}")
    final = store.path / check_name(into or name)
    if final.exists():
        raise Refused(
            f"the store has a collection {final.name!r}", where=str(store.path),
            hint="restore it under another name with --as NAME, or delete that one first",
        )  # fmt: skip
    aside = store.path / f".tmp-{os.getpid()}-{final.name}"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        shutil.copytree(path / name, aside / name)
        shutil.copy2(path / migrate.MARK, aside)
        # a backup of an older format stays as it is: its copy is brought up
        migrate.bring_up(aside)
        if contents.root(Collection(aside / name)) != there[name].root:
            raise Damaged("what was written is not what the backup holds", where=str(aside), hint="try again")
        (aside / name).rename(final)
        files.sync_folder(store.path)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return there[name]


def _copy(collection: Collection, target: Collection) -> Backed:
    with ExitStack() as stack:
        name = f"{tags.ASIDE}{os.getpid()}-{time.monotonic_ns()}"
        moment = _moment(collection, name)
        stack.callback(shutil.rmtree, moment.path, ignore_errors=True)
        live = Live.read(moment)
        _fill(moment, target, schema.ITEMS, None)
        _fill(moment, target, schema.EDITS, None)
        vectors = {space: _fill(moment, target, schema.VECTORS + space, live) for space in moment.spaces()}
        for file in BESIDE:
            shutil.copy2(moment.path / file, target.path / file)
        for folder in FOLDERS:
            if (moment.path / folder).exists():
                shutil.copytree(moment.path / folder, target.path / folder)
        content.copy(moment, target)
        for table in target.tables():
            tags.drop_history(target.table(table))
        # counted in what was written: the copy is compared with the moment by value, not by trust
        root = contents.root(target)
        if root != contents.root(moment):
            raise Damaged("what was written differs from the collection", where=str(target.path), hint="try again")
        return Backed(collection.name, _now(), len(live.keys), vectors, root)


def _moment(collection: Collection, name: str) -> Collection:
    """Freeze a collection, as a tag does, with the files beside its tables."""
    home = collection.path / tags.HOME
    frozen = home / name
    with ledger.committing(collection):
        tags.share_tables(collection, frozen)
        for file in BESIDE:
            shutil.copy2(collection.path / file, frozen / file)
        for folder in FOLDERS:
            if (collection.path / folder).exists():
                shutil.copytree(
                    collection.path / folder, frozen / folder, ignore=shutil.ignore_patterns(".tmp-*", "*.lock")
                )
        content.copy(collection, Collection(frozen), content.link)
    return Collection(frozen)


def _fill(moment: Collection, target: Collection, name: str, live: Live | None) -> int:
    """Write the sound rows of one table; of vectors, those of live items. Returns their number."""
    source = moment.table(name)
    wanted = source.schema
    if name == schema.ITEMS:
        added = [field for field in wanted if field.name not in schema.OWN]
        if added:
            target.items.add_columns(pa.schema(added))
    elif name not in target.tables():
        target.db.create_table(name, schema=wanted)
    table = target.table(name)
    # columns that were added later stand behind our own in both, but perhaps not in the same order
    ordered = table.schema
    damage: list[Damaged] = []
    try:
        table.add(pa.RecordBatchReader.from_batches(ordered, _sound_batches(source, ordered, name, live, damage)))
    except RuntimeError:
        # what the batches raise comes back from Lance as an error of its own
        if damage:
            raise damage[0] from None
        raise
    return int(table.count_rows())


def _sound_batches(source: Any, ordered: Any, name: str, live: Live | None, damage: list[Damaged]) -> Iterator[Any]:
    for batch in source.search().to_batches(ROWS):
        rows = pa.Table.from_batches([batch])
        if live is not None:
            rows = rows.filter(pa.array(live.holds(rows["key"].to_numpy().astype(np.int64))))
        try:
            _require_sound(rows, name)
        except Damaged as error:
            damage.append(error)
            raise
        yield from pa.table([rows[field.name] for field in ordered], schema=ordered).to_batches()


def _require_sound(rows: Any, name: str) -> None:
    bad = rows["id"].filter(pa.array(~schema.sound(rows))).cast(pa.binary()).to_pylist()
    if bad:
        raise Damaged(
            f"the row of {bad[0].decode(errors='replace')!r} fails its checksum; nothing was backed up", where=name,
            hint="permafrost verify C --mend, embed again, then back up",
        )  # fmt: skip


def _seal(folder: Path, done: Sequence[Backed]) -> None:
    for path in [p for p in folder.rglob("*") if p.is_file() and _is_lock(p)]:
        path.unlink()
    names = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())
    for name in names:
        files.sync_file(folder / name)
    record = {
        "format": migrate.FORMAT, "at": _now(), "collections": [vars(one) for one in done],
        "files": {name: files.sha256(folder / name) for name in names},
    }  # fmt: skip
    files.write_json(folder / LIST, {**record, "sha256": _sha256_of(record)})


def _listed(path: Path) -> dict[str, Any]:
    if not (path / LIST).exists():
        raise UsageError(f"{path} is not a backup: it has no {LIST}", hint="give the folder that backup wrote")
    record: dict[str, Any] = files.read_json(path / LIST)
    if record.pop("sha256", None) != _sha256_of(record):
        raise Damaged(f"{LIST} fails its checksum", where=str(path), hint="take another backup")
    return record


def _sha256_of(record: Any) -> str:
    return hashlib.sha256(canonical_json(record).encode()).hexdigest()


def _is_lock(path: Path) -> bool:
    return path.suffix == ".lock" or path.name.endswith(".owner.json")


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
