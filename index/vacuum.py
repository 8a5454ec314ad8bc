"""Vacuum: sweep the vectors of dead keys, merge small fragments, and clean away what nobody can still need.

It works under the commit lock, a table at a time. Old versions are kept for an hour, so that a reader finishes on what
it began with; tags are copies of their own and are not touched.
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import time
import warnings
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from lancedb import col
from numpy.typing import NDArray

from embedder.errors import UsageError
from index import content, derived, files, ledger, readers, restoring, schema, tags
from index.live import Live
from index.store import Collection, scan

KEEP_S, SAFE_S, DAY_S = 3600.0, 300.0, 86_400.0
KEYS_AT_ONCE = 10_000
FRAGMENTS = 64
BUILD_NAME = re.compile(r"\d{8}t\d{6}-\d+")


@dataclass
class Swept:
    """What a vacuum did. `bytes_before` and `bytes_after` count each file once, however many names it has."""

    swept: int = 0
    leftovers: int = 0
    builds: int = 0
    pictures: int = 0
    fragments: int = 0
    bytes_before: int = 0
    bytes_after: int = 0
    finished_restore: bool = False
    kept_by_lance_tags: list[str] = field(default_factory=list)

    def as_json(self) -> dict[str, Any]:
        """Return it as plain values."""
        return {
            "swept": self.swept, "leftovers": self.leftovers, "builds": self.builds, "pictures": self.pictures,
            "fragments": self.fragments,
            "bytes_before": self.bytes_before, "bytes_after": self.bytes_after,
            "freed": self.bytes_before - self.bytes_after, "finished_restore": self.finished_restore,
            "kept_by_lance_tags": self.kept_by_lance_tags,
        }  # fmt: skip


def vacuum(collection: Collection, *, keep_s: float = KEEP_S) -> Swept:
    """Sweep, compact and clean a collection; runs, searches and labels go on.

    Args:
        keep_s: how old a version must be to go, in seconds; under five minutes it waits for readers to end.

    Raises:
        Locked: with so small a `keep_s`, a query did not end in time.
        UsageError: `keep_s` is negative.
    """
    if keep_s < 0:
        raise UsageError(f"versions are kept for 0 seconds or more, not {keep_s:g}")
    done = Swept(bytes_before=bytes_of(collection.path), finished_restore=restoring.finish(collection))
    for space in collection.spaces().values():
        done.swept += sweep(collection, schema.VECTORS + space.fingerprint)
    for name in collection.tables():
        quiet = readers.drained(collection) if keep_s < SAFE_S else nullcontext()
        with ledger.committing(collection), quiet:
            table = collection.table(name)
            if not tidy(table, keep_s):
                done.kept_by_lance_tags.append(name)
            done.fragments += fragments_of(table)
            done.leftovers += remove_all(_aside_of_lance(collection, name, keep_s))
    done.leftovers += remove_all(leftovers(collection))
    with ledger.committing(collection):
        done.pictures = remove_all(content.orphans(collection))
    done.builds = remove_all(old_builds(collection, keep_s))
    done.bytes_after = bytes_of(collection.path)
    return done


def tidy_often_written(collection: Collection) -> None:
    """Compact `items` and `edits` where many small writes have piled up: a label a commit, a delete a commit."""
    for name in (schema.ITEMS, schema.EDITS):
        if fragments_of(collection.table(name)) > FRAGMENTS:
            with ledger.committing(collection):
                tidy(collection.table(name), KEEP_S)


def sweep(collection: Collection, name: str) -> int:
    """Delete the vectors of one table whose key no item holds, and return how many there were."""
    with ledger.committing(collection):
        return sweep_locked(collection, name)


def sweep_locked(collection: Collection, name: str) -> int:
    """As `sweep`, for a caller that holds the commit lock."""
    table = collection.table(name)
    keys = scan(table, ["key"])["key"].to_numpy().astype(np.int64)
    dead = keys[~Live.read(collection).holds(keys)]
    gone = np.unique(dead).tolist()
    for start in range(0, len(gone), KEYS_AT_ONCE):
        files.checkpoint("sweep")
        table.delete(col("key").isin(gone[start : start + KEYS_AT_ONCE]))
    return len(dead)


def tidy(table: Any, keep_s: float) -> bool:
    """Merge a table's small fragments and remove its versions older than `keep_s`; call it under the commit lock.

    Returns:
        False where a tag that another program set through Lance keeps old versions.
    """
    files.checkpoint("optimize")
    try:
        with warnings.catch_warnings():
            # of readers of older versions, which are kept out where so little is kept
            warnings.simplefilter("ignore", UserWarning)
            table.optimize(cleanup_older_than=timedelta(seconds=keep_s))
    except RuntimeError as error:
        if "tagged version" not in str(error):
            raise
        return False
    return True


def fragments_of(table: Any) -> int:
    """Return the number of fragments of a table."""
    return int(table.stats()["fragment_stats"]["num_fragments"])


def leftovers(collection: Collection) -> list[Path]:
    """Return what killed writers left aside, outside of Lance's tables; nothing of it is ever read.

    A file or folder whose writer is alive is not among them.
    """
    found = [p for p in collection.path.glob(f"{tags.HOME}/{tags.ASIDE}*") if ended(p)]
    for pattern in (".tmp-*", "runs/*/.tmp-*", "heads/*/*/.tmp-*", "locks/.tmp-*", "indexes/*/.tmp-*"):
        found += [p for p in collection.path.glob(pattern) if p.is_file() and ended(p)]
    found += [p for p in collection.path.glob("heads/*/.tmp-*") if p.is_dir() and not _locked(collection, p)]
    found += [p for p in collection.path.glob("tuned/.tmp-*") if p.is_dir() and ended(p)]
    return found + half_made(collection)


def half_made(collection: Collection) -> list[Path]:
    """Return the builds of indexes that were never finished, and that nobody is working on."""
    found = []
    for home in collection.path.glob("indexes/*"):
        if files.is_leased(collection.lock_path(f"index-{home.name}")):
            continue
        found += [p for p in home.glob(".tmp-*") if p.is_dir()]
        found += [p for p in home.iterdir() if BUILD_NAME.fullmatch(p.name) and not (p / "manifest.json").exists()]
    return found


def stale_owners(collection: Collection) -> list[Path]:
    """Return the notes of who holds a lease, where their writer has died: the lease itself ended with it."""
    owners = (collection.path / "locks").glob("*.owner.json")
    return [p for p in owners if not files.is_leased(p.with_name(p.name.removesuffix(".owner.json") + ".lock"))]


def lance_leftovers(collection: Collection) -> list[Path]:
    """Return the files that killed writers left in Lance's tables; only right under the commit lock."""
    return [path for name in collection.tables() for path in _aside_of_lance(collection, name, 0)]


def old_builds(collection: Collection, keep_s: float) -> Iterator[Path]:
    """Yield the builds of indexes that do not answer any more and are older than `keep_s`."""
    for space in collection.spaces().values():
        now = derived.current(collection, space)
        for path in derived.folder_of(collection, space).glob("*/manifest.json"):
            old = time.time() - path.stat().st_mtime >= keep_s
            if now is not None and path.parent.name != now and not path.parent.name.startswith(".") and old:
                yield path.parent


def bytes_of(folder: Path) -> int:
    """Return the bytes of all files below a folder; a file with several names is counted once."""
    seen: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            stat = path.lstat()
            if path.is_file():
                seen[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(seen.values())


def remove(path: Path) -> None:
    """Remove a file or a folder, if it is there."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def remove_all(paths: Iterable[Path]) -> int:
    """Remove files and folders, and return how many."""
    found = list(paths)
    for path in found:
        remove(path)
    return len(found)


def _aside_of_lance(collection: Collection, name: str, keep_s: float) -> list[Path]:
    """Under the commit lock nobody of ours writes; what another program writes right now is younger than `keep_s`."""
    found = [p for pattern in (".tmp*", "_tmp*") for p in (collection.path / f"{name}.lance").rglob(pattern)]
    return [p for p in found if p.exists() and time.time() - p.stat().st_mtime >= keep_s]


def ended(path: Path) -> bool:
    """Say whether the process that named a file aside has ended; after a day its number may be another one's."""
    said = re.match(r"\.tmp-(\d+)-", path.name)
    if said is None or time.time() - path.stat().st_mtime > DAY_S:
        return True
    try:
        os.kill(int(said[1]), 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        return False
    return False


def _locked(collection: Collection, head: Path) -> bool:
    return files.is_leased(collection.lock_path(f"head-{head.parent.name}"))


def dead_keys(collection: Collection, name: str, live: Live) -> NDArray[np.int64]:
    """Return the keys of one table of vectors that no item holds."""
    keys = np.unique(scan(collection.table(name), ["key"])["key"].to_numpy().astype(np.int64))
    return keys[~live.holds(keys)]
