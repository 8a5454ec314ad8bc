"""A folder of pictures or of `.txt` files. `root/CLASS/…` gives `label`; `root/train/CLASS/…` gives `split` too.

Ids are paths relative to the folder, with `/`, not normalised; what is not printable UTF-8 is percent-encoded. Links to
folders are not followed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from embedder.errors import UsageError
from embedder.records import Failure, Item, Medium
from embedder.sourcing import IMAGE_SUFFIXES, Source, SourceOptions

TEXT_SUFFIXES = frozenset({".txt"})
SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


def accepts(uri: str) -> bool:
    """Say whether `uri` is a local folder."""
    return os.path.isdir(uri)


def open(uri: str, options: SourceOptions) -> Source:
    """Open a folder. Without `media`, pictures are taken where there are any, else texts."""
    return Folder(Path(uri), options)


class Folder:
    """The files of one medium below a folder, sorted by path."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        if options.content_column or options.id_column:
            raise UsageError(
                "a folder has no columns", where=str(path), hint="--content-column and --id-column are for tables"
            )
        self.path = Path(os.path.abspath(path))
        self.root = encoded(str(self.path))
        self._length: int | None = None
        self.medium: Medium = options.media or self._guess()
        self._suffixes = IMAGE_SUFFIXES if self.medium == "image" else TEXT_SUFFIXES
        self._splits = self._has_splits()
        self.columns: Mapping[str, str] = {"label": "string", **({"split": "string"} if self._splits else {})}

    def __iter__(self) -> Iterator[Item | Failure]:
        for path in _walk(str(self.path)):
            if isinstance(path, Failure):
                yield path
            elif _suffix(path) in self._suffixes:
                yield self._item(path)

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(isinstance(p, Failure) or _suffix(p) in self._suffixes for p in _walk(str(self.path)))
        return self._length

    def _item(self, path: str) -> Item | Failure:
        relative = os.path.relpath(path, self.path)
        id = encoded(relative)
        try:
            facts = os.stat(path)
        except OSError as error:
            return Failure(id, encoded(path), "read", "missing", type(error).__name__, error.strerror or str(error))
        folders = id.split("/")[:-1]
        columns: dict[str, str | None] = {}
        if self._splits:
            columns["split"] = folders.pop(0) if folders else None
        columns["label"] = "/".join(folders) or None
        return Item(
            id=id, medium=self.medium, source=encoded(path), path=path, size=facts.st_size,
            mtime_ns=facts.st_mtime_ns, columns=columns,
        )  # fmt: skip

    def _guess(self) -> Medium:
        texts = False
        for path in _walk(str(self.path)):
            if not isinstance(path, Failure):
                if _suffix(path) in IMAGE_SUFFIXES:
                    return "image"
                texts = texts or _suffix(path) in TEXT_SUFFIXES
        return "text" if texts else "image"

    def _has_splits(self) -> bool:
        entries = [e for e in os.scandir(self.path) if not e.name.startswith(".")]
        return bool(entries) and all(e.is_dir() and e.name in SPLITS for e in entries)


def encoded(path: str) -> str:
    """Return a path as text that any table can hold: control characters, % and undecodable bytes become %XX."""
    if path.isprintable() and "%" not in path:
        return path
    return "".join(c if c.isprintable() and c != "%" else "".join(f"%{b:02X}" for b in os.fsencode(c)) for c in path)


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()


def _walk(folder: str) -> Iterator[str | Failure]:
    try:
        entries = sorted(os.scandir(folder), key=lambda e: os.fsencode(e.name))
    except OSError as error:
        yield Failure(
            encoded(folder), encoded(folder), "list", "unreadable_folder", type(error).__name__, error.strerror or ""
        )
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _walk(entry.path)
        elif not (entry.is_symlink() and os.path.isdir(entry.path)):
            yield entry.path
