"""Pictures that came as bytes alone, kept beside the tables so that another encoder can read them again.

content/<first two digits>/<sha256 of the bytes>

An item names its file as `content:<sha256>`, so that a store can be moved. A file is removed once neither an item nor a
tag names it: a vacuum and a purge do that under the commit lock.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from index import files, tags
from index.store import Collection, scan

HOME, SCHEME = "content", "content:"


def source_of(data: bytes) -> str:
    """Return what an item says of where these bytes are."""
    return SCHEME + hashlib.sha256(data).hexdigest()


def file_of(collection: Collection, source: str) -> Path | None:
    """Return the file of a source that is kept here; None for every other source."""
    name = source.removeprefix(SCHEME)
    if name == source or len(name) != 64 or not set(name) <= set("0123456789abcdef"):
        return None
    return collection.path / HOME / name[:2] / name


def keep(collection: Collection, data: bytes) -> None:
    """Write a picture's bytes, once."""
    path = file_of(collection, source_of(data))
    if path is not None and not path.exists():
        files.write_bytes(path, data)


def named(collection: Collection) -> set[Path]:
    """Return the files that the items of a collection name, here or not."""
    sources = scan(collection.items, ["source"])["source"].to_pylist()
    return {path for source in sources if (path := file_of(collection, source or ""))}


def orphans(collection: Collection) -> list[Path]:
    """Return the files that neither an item nor a tag names; only right under the commit lock."""
    there = [path for path in (collection.path / HOME).glob("*/*") if path.is_file()]
    if not there:
        return []
    wanted = {path.name for path in named(collection)}
    for tag in tags.listed(collection):
        wanted |= {path.name for path in named(tags.opened(collection, tag.name))}
    return [path for path in there if path.name not in wanted]


def copy(collection: Collection, into: Collection, by: Callable[[Path, Path], object] = shutil.copy2) -> None:
    """Bring the files that the items of `into` name from one collection into another; one that is gone stays so."""
    for target in named(into):
        source = collection.path / HOME / target.parent.name / target.name
        if source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            by(source, target)


def link(source: Path, target: Path) -> None:
    """Give a file a second name, or copy it where the file system has none."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)
