"""A collection as a source: its known items, to be embedded with one more encoder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import unquote_to_bytes

from embedder import addresses
from embedder.errors import UsageError
from embedder.records import Failure, Item, Medium
from index import content
from index.store import Collection, scan


class Itself:
    """The items of one medium. Their metadata stay as they are; a file that is gone is a failure of its own."""

    def __init__(self, collection: Collection, medium: Medium | None) -> None:
        rows = scan(collection.items, ["id", "source", "media_type", "text", "group", "size", "mtime_ns"]).to_pylist()
        present = {medium_of(row) for row in rows}
        if medium is None and len(present) > 1:
            raise UsageError(
                f"{collection.name!r} holds images and texts", hint="say which: --media image or --media text"
            )
        self.medium: Medium = medium or (present.pop() if present else "image")
        self._collection = collection
        self.root = f"permafrost:{collection.name}"
        self.columns: Mapping[str, str] = {}
        self._rows = [row for row in rows if medium_of(row) == self.medium]

    def __len__(self) -> int:
        return len(self._rows)

    def __iter__(self) -> Iterator[Item | Failure]:
        yield from (item_of(row, self._collection) for row in self._rows)


def local_path(source: str) -> str:
    """Return the file name behind a stored source: undoes the percent-encoding of `embedder.sources.folder`."""
    return os.fsdecode(unquote_to_bytes(source))


def item_of(row: Mapping[str, Any], collection: Collection) -> Item | Failure:
    """Return the item behind a row of `items`; a text file is read again: what is stored of it may have been cut."""
    medium = medium_of(row)
    return _text(row) if medium == "text" and row["mtime_ns"] is None else _file(row, medium, collection)


def medium_of(row: Mapping[str, Any]) -> Medium:
    """Return the medium of a row of `items`."""
    return "text" if str(row["media_type"]).startswith("text") else "image"


def _text(row: Mapping[str, Any]) -> Item:
    return Item(id=row["id"], medium="text", source=row["source"], text=row["text"], group=row["group"])


def _file(row: Mapping[str, Any], medium: Medium, collection: Collection) -> Item | Failure:
    path = local_path(row["source"] or "")
    kept = content.file_of(collection, path)
    if kept is not None and kept.exists():
        # its name is its hash: the time of the file says nothing
        facts = {name: row[name] for name in ("id", "source", "size", "mtime_ns", "group")}
        return Item(medium=medium, path=str(kept), **facts)
    if addresses.is_address(path) and not path.startswith("hf:"):
        return Item(
            id=row["id"], medium=medium, source=row["source"], size=row["size"], mtime_ns=row["mtime_ns"],
            group=row["group"], remote=addresses.Fetch(path),
        )  # fmt: skip
    try:
        stat = os.stat(path)
    except (OSError, ValueError) as error:
        inside, _, member = path.rpartition("#")
        # bytes that came in a table, an archive or from a program are not kept here
        why = f"{member} is within {inside}: embed that again with this encoder, its ids are the same"
        message = why if row["mtime_ns"] is None and inside else f"{path} is gone: {error}"
        return Failure(row["id"], str(row["source"]), "read", "missing", type(error).__name__, message)
    return Item(
        id=row["id"], medium=medium, source=row["source"], path=path, size=stat.st_size,
        mtime_ns=stat.st_mtime_ns, group=row["group"],
    )  # fmt: skip
