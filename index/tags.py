"""Tags: a name for the whole collection as it was at one moment.

`tags/NAME/` is a LanceDB database of its own. Its tables share their data files with the living ones through hard links
(copies, where the file system has none), which Lance never changes in place. So a tag costs next to nothing, survives
every clean-up of old versions, and is opened by any LanceDB client. `tag.json` is written last: a folder without one is
the leftover of a killed writer. Lance's own tags are not used: its clean-up stops at the first one it meets.
"""

from __future__ import annotations

import os
import shutil
import time
import warnings
from dataclasses import asdict, dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

from embedder.errors import Refused, UnknownName
from index import files, schema
from index.store import Collection, check_name

HOME, MARK, ASIDE = "tags", "tag.json", ".tmp-"
NEVER = timedelta(days=36_500)
SHARED = ("data", "_deletions", "_indices")


@dataclass(frozen=True)
class Tag:
    """A tag: `versions` are those of the tables when it was made, `aliases` what names meant, `at` is UTC."""

    name: str
    at: str
    items: int
    versions: dict[str, int]
    aliases: dict[str, str]
    why: str = ""

    @property
    def version(self) -> int:
        """The version of `items`, which `info` shows as that of the collection."""
        return self.versions[schema.ITEMS]

    def as_json(self) -> dict[str, Any]:
        """Return the tag as plain values."""
        return {"version": self.version, **asdict(self)}


def listed(collection: Collection) -> list[Tag]:
    """Return the tags, oldest first."""
    found = [_read(path) for path in (collection.path / HOME).glob(f"[!.]*/{MARK}")]
    return sorted(found, key=lambda tag: (tag.at, tag.version, tag.name))


def find(collection: Collection, name: str) -> Tag:
    """Return one tag. Raises `UnknownName` with the nearest ones."""
    path = collection.path / HOME / check_name(name, "tag") / MARK
    if path.exists():
        return _read(path)
    known = [tag.name for tag in listed(collection)]
    raise UnknownName.of(
        "tag", name, known, where=f"collection {collection.name}",
        hint=f"tags: {', '.join(known)}" if known else f"there is none yet: permafrost tag {collection.name} NAME",
    )  # fmt: skip


def _read(path: Path) -> Tag:
    facts = files.read_json(path)
    return Tag(facts["name"], facts["at"], facts["items"], facts["versions"], facts["aliases"], facts.get("why", ""))


def create(collection: Collection, name: str, *, why: str = "") -> Tag:
    """Name the collection as it is now.

    Raises:
        Refused: the name is taken: a tag is never moved.
    """
    check_name(name, "tag")
    with files.lock(collection.lock_path("commit")):
        return create_locked(collection, name, why=why)


def create_locked(collection: Collection, name: str, *, why: str = "") -> Tag:
    """As `create`, for a caller that holds the commit lock."""
    home = collection.path / HOME
    if (home / name).exists():
        raise Refused(
            f"there is a tag {name!r} already", where=f"collection {collection.name}",
            hint=f"choose another name, or permafrost tag {collection.name} {name} --delete",
        )  # fmt: skip
    aside = home / f"{ASIDE}{os.getpid()}-{name}"
    shutil.rmtree(aside, ignore_errors=True)
    versions = share_tables(collection, aside)
    copy = Collection(aside)
    tag = Tag(name, _now(), int(copy.items.count_rows()), versions, dict(collection.settings["aliases"]), why)
    files.write_json(aside / MARK, asdict(tag))
    files.checkpoint("tag:rename")
    aside.rename(home / name)
    files.sync_folder(home)
    return tag


def share_tables(collection: Collection, into: Path) -> dict[str, int]:
    """Make every table also a table in the folder `into`, and return their versions; call it under the commit lock."""
    versions = {}
    for name in collection.tables():
        # small fragments are merged here, so that the copy has nothing to rewrite
        collection.table(name).optimize(cleanup_older_than=NEVER)
        versions[name] = int(collection.table(name).version)
        files.checkpoint("tag:link")
        _share(collection.path / f"{name}.lance", into / f"{name}.lance")
    copy = Collection(into)
    for name in versions:
        drop_history(copy.table(name))
    return versions


def remove(collection: Collection, name: str) -> Tag:
    """Forget a tag. Raises `UnknownName` where there is none."""
    with files.lock(collection.lock_path("commit")):
        tag = find(collection, name)
        home = collection.path / HOME
        aside = home / f"{ASIDE}{os.getpid()}-{name}"
        (home / name).rename(aside)
        files.sync_folder(home)
    shutil.rmtree(aside)
    return tag


def opened(collection: Collection, name: str) -> Collection:
    """Return the tables of a tag, as a collection to read. Raises `UnknownName` where there is none."""
    return Collection(collection.path / HOME / find(collection, name).name)


def free_name(collection: Collection, stem: str) -> str:
    """Return `stem-1`, or with the next number that no tag has."""
    taken = {tag.name for tag in listed(collection)}
    return next(name for n in range(1, len(taken) + 2) if (name := f"{stem}-{n}") not in taken)


def drop_history(table: Any) -> None:
    """Remove every version of a table but the newest, and every file that it does not name."""
    with warnings.catch_warnings():
        # Lance warns of readers of older versions; there are none here
        warnings.simplefilter("ignore", UserWarning)
        table.optimize(cleanup_older_than=timedelta(0), delete_unverified=True)


def _share(table: Path, into: Path) -> None:
    """Link the files that Lance never changes, copy the small ones that it may."""
    for path in sorted(p for p in table.rglob("*") if p.is_file()):
        inside = path.relative_to(table)
        if path.name.startswith(".tmp") or inside.parts[0] == "_refs":
            continue
        target = into / inside
        target.parent.mkdir(parents=True, exist_ok=True)
        if inside.parts[0] in SHARED:
            try:
                os.link(path, target)
                continue
            except OSError:
                # another file system, or one without links
                target.unlink(missing_ok=True)
        shutil.copy2(path, target)


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
