"""Store and Collection over LanceDB: the only source of truth.

A store is a folder; a collection is a folder in it that any LanceDB client can open. Beside the tables lie
`indexes/ heads/ reports/ runs/ locks/`, `collection.json` (aliases, roots) and `keys.json` (the counter of keys).
"""

from __future__ import annotations

import json
import re
import shutil
import time
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import Any

from embedder import naming
from embedder.errors import Damaged, PermafrostError, UnknownName, UsageError
from embedder.space import Space
from index import files, migrate, schema

DELETED = "deleted.json"
NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")


def check_name(name: str, what: str = "collection") -> str:
    """Return a name that may be used on disk and in a URL.

    Raises:
        UsageError: it does not match `[a-z0-9][a-z0-9_-]{0,62}`.
    """
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot name a {what}",
            hint="use lower-case letters, digits, _ and -; start with a letter or digit",
        )
    return name


class Store:
    """A folder of collections, with the number of its format in `permafrost.json`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def open(cls, uri: str | Path, *, create: bool = False) -> Store:
        """Open a store; with `create`, make it where there is none.

        Raises:
            UsageError: there is no store at `uri`, or it is not a local folder.
            Damaged: its format is newer than this version reads. An older one is brought up to this version's.
        """
        text = str(uri)
        if "://" in text:
            raise UsageError(f"{text} is not a local folder", hint="object stores are not supported yet; give a folder")
        path = Path(text).expanduser().resolve()
        marker = path / "permafrost.json"
        if not marker.exists():
            if not create:
                raise UnknownName(
                    f"there is no store at {text}", hint="permafrost embed makes one, or name yours with --store"
                )
            if path.exists() and (not path.is_dir() or any(path.iterdir())):
                raise UsageError(
                    f"{text} exists and is not a store", hint="choose an empty or a new folder with --store"
                )
            path.mkdir(parents=True, exist_ok=True)
            files.write_json(marker, migrate.marker(_now()))
        migrate.bring_up(path)
        return cls(path)

    def names(self) -> list[str]:
        """Return the names of the collections, sorted."""
        return sorted(n for p in self.path.glob("*/collection.json") if NAME.fullmatch(n := p.parent.name))

    def collection(self, name: str, *, create: bool = False) -> Collection:
        """Open a collection; with `create`, make it where there is none.

        Raises:
            UnknownName: there is none; the nearest names are in the hint.
        """
        folder = self.path / check_name(name)
        if not (folder / "collection.json").exists():
            if not create:
                known = self.names()
                hint = (
                    f"here: {', '.join(known)}" if known else "the store is empty: permafrost embed SOURCE --into NAME"
                )
                raise UnknownName.of("collection", name, known, where=str(self.path), hint=hint)
            with files.lock(self.path / f".{name}.lock"):
                if not (folder / "collection.json").exists():
                    _create_collection(folder)
        return Collection(folder)

    def delete(self, name: str) -> None:
        """Remove a collection and all that was derived from it. Raises `UnknownName` where there is none."""
        collection = self.collection(name)
        with (
            files.lease(collection.lock_path("delete"), what=f"collection {name}"),
            files.lock(collection.lock_path("commit")),
        ):
            # a deletion that is killed from here on is told from a collection whose settings were lost
            (collection.path / "collection.json").rename(collection.path / DELETED)
        shutil.rmtree(collection.path)


def _create_collection(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    db = _connect(folder)
    present = set(db.list_tables().tables)
    if schema.ITEMS not in present:
        db.create_table(schema.ITEMS, schema=schema.items_schema()).set_unenforced_primary_key(["id"])
    if schema.EDITS not in present:
        db.create_table(schema.EDITS, schema=schema.edits_schema())
    if not (folder / "keys.json").exists():
        files.write_json(folder / "keys.json", {"next": 1})
    migrate.prepare(folder)
    files.write_json(folder / "collection.json", {"created": _now(), "aliases": {}, "roots": {}})


class Collection:
    """Named items with ids, metadata and labels, and one table of vectors per Space."""

    def __init__(self, path: Path) -> None:
        self.path, self.name = path, path.name
        self._tables: dict[str, Any] = {}
        self._spaces: dict[str, Space] = {}

    @cached_property
    def db(self) -> Any:
        """The LanceDB connection."""
        return _connect(self.path)

    def lock_path(self, what: str) -> Path:
        """Return the file behind a lock (`commit`) or a lease (a Space's fingerprint) of this collection."""
        return self.path / "locks" / f"{what}.lock"

    @property
    def settings(self) -> dict[str, Any]:
        """`collection.json`: `aliases` (name to fingerprint) and `roots` (prefix to source root)."""
        path = self.path / "collection.json"
        if not path.exists():
            raise UnknownName(f"collection {self.name!r} was deleted", where=str(self.path))
        settings: dict[str, Any] = files.read_json(path)
        return settings

    def change_settings(self, section: str, name: str, value: str) -> None:
        """Set one entry of `aliases` or `roots`, atomically."""
        with files.lock(self.lock_path("settings")):
            settings = self.settings
            settings[section][name] = value
            files.write_json(self.path / "collection.json", settings)

    def table(self, name: str) -> Any:
        """Return a table at its latest version."""
        if name not in self._tables:
            self._tables[name] = self.db.open_table(name)
        self._tables[name].checkout_latest()
        return self._tables[name]

    def tables(self) -> list[str]:
        """Return the names of the tables, sorted."""
        return sorted(self.db.list_tables().tables)

    @property
    def items(self) -> Any:
        """The table `items`, at its latest version."""
        return self.table(schema.ITEMS)

    def vectors(self, space: Space) -> Any:
        """Return the table of a Space, at its latest version. Raises `UnknownName` where there is none."""
        self.has_space(space) or self._no_space(str(space))
        return self.table(schema.VECTORS + space.fingerprint)

    def has_space(self, space: Space) -> bool:
        """Say whether the collection has a table for this Space."""
        return space.fingerprint in self._spaces or space.fingerprint in self.spaces()

    def spaces(self) -> dict[str, Space]:
        """Return the Spaces by fingerprint, read from the tables' own schemas.

        Raises:
            Damaged: a table's Space is missing from its schema, or does not agree with the table's name.
        """
        names = [t for t in self.db.list_tables().tables if t.startswith(schema.VECTORS)]
        for name in names:
            fingerprint = name.removeprefix(schema.VECTORS)
            if fingerprint not in self._spaces:
                space = Space.from_json(json.loads(self._metadata(name, schema.SPACE_KEY)))
                if space.fingerprint != fingerprint:
                    raise Damaged(f"table {name} holds vectors of Space {space}", where=str(self.path))
                self._spaces[fingerprint] = space
        live = {name.removeprefix(schema.VECTORS) for name in names}
        return {f: s for f, s in self._spaces.items() if f in live}

    def golden(self, space: Space) -> dict[str, str]:
        """Return the golden vectors that were stored when the Space was first used here."""
        stored: dict[str, str] = json.loads(self._metadata(schema.VECTORS + space.fingerprint, schema.GOLDEN_KEY))
        return stored

    def _metadata(self, table: str, key: bytes) -> bytes:
        value = (self.table(table).schema.metadata or {}).get(key)
        if value is None:
            raise Damaged(
                f"table {table} no longer says {key.decode()}", where=str(self.path), hint="restore it from a backup"
            )
        return bytes(value)

    def space(self, selector: str | None = None) -> Space:
        """Return one Space of the collection.

        Args:
            selector: an alias, a fingerprint or its unambiguous beginning, or an encoder name; none means `default`.

        Raises:
            UnknownName: none matches, or the collection has no vectors yet.
        """
        spaces = self.spaces()
        wanted = selector or "default"
        alias = self.settings["aliases"].get(wanted)
        if alias in spaces:
            return spaces[alias]
        if selector is None and len(spaces) == 1:
            return next(iter(spaces.values()))
        encoder = _as_encoder(wanted)
        found = [s for f, s in spaces.items() if f.startswith(wanted) or s.encoder == encoder]
        if len(found) == 1:
            return found[0]
        if len(found) > 1:
            raise UsageError(f"{wanted!r} could be {' or '.join(map(str, found))}", where=f"collection {self.name}")
        return self._no_space(wanted)

    def _no_space(self, wanted: str) -> Space:
        spaces = self.spaces().values()
        if not spaces:
            raise UnknownName(
                f"collection {self.name!r} has no vectors yet",
                hint=f"permafrost embed SOURCE --into {self.name} --encoder E",
            )
        raise UnknownName.of(
            "Space",
            wanted,
            [*(s.encoder for s in spaces), *self.settings["aliases"]],
            where=f"collection {self.name}",
            hint=f"here: {'; '.join(map(str, spaces))}",
        )

    def add_space(self, space: Space, golden: Mapping[str, str]) -> None:
        """Make the table of a Space, with its golden vectors; the first one becomes `default`."""
        with files.lock(self.lock_path("commit")):
            if not self.has_space(space):
                files.checkpoint("table")
                table = schema.VECTORS + space.fingerprint
                self.db.create_table(table, schema=schema.vectors_schema(space, golden))
            if "default" not in self.settings["aliases"]:
                self.change_settings("aliases", "default", space.fingerprint)

    def count(self) -> int:
        """Return the number of items."""
        return int(self.items.count_rows())


def _as_encoder(selector: str) -> str:
    """Return an encoder's name with its options in the order in which they are stored; other selectors as they are."""
    try:
        return str(naming.parse(selector))
    except UsageError:
        return selector


def scan(table: Any, columns: list[str], *, row_ids: bool = False) -> Any:
    """Read columns of all rows of a table, as Arrow, with `_rowid` where asked."""
    query = table.search().select(columns)
    return (query.with_row_id(True) if row_ids else query).to_arrow()


def _connect(folder: Path) -> Any:
    import lancedb

    try:
        return lancedb.connect(
            str(folder),
            storage_options={"new_table_enable_stable_row_ids": "true"},
            read_consistency_interval=timedelta(0),
        )
    except (OSError, ValueError, RuntimeError) as error:
        raise PermafrostError(
            f"LanceDB cannot open {folder.name}: {type(error).__name__}", where=str(folder)
        ) from error


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
