"""A folder of pictures or of `.txt` files. `root/CLASS/…` gives `label`; `root/train/CLASS/…` gives `split` too.
Of nested folders the label is the whole path, or its first `label_levels` folders.

Ids are paths relative to the folder, with `/`, not normalised; bytes that are not UTF-8, characters that cannot be seen
and % are percent-encoded. Hidden files are passed over, and links to folders are not followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from operator import attrgetter
from pathlib import Path

from embedder.errors import UsageError
from embedder.records import Failure, Item, Medium
from embedder.sources._shards import is_folder_of_shards
from embedder.sourcing import IMAGE_SUFFIXES, Source, SourceOptions, unreadable

NAME = attrgetter("name")
TEXT_SUFFIXES = frozenset({".txt"})
SPLITS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing"})
# a fixed set, and not str.isprintable: that changes with the version of Unicode, and ids must not
UNSAFE = re.compile(
    r"[\x00-\x1f%\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ud800-\udfff\U000e0000-\U000e0fff]"
)


def accepts(uri: str) -> bool:
    """Say whether `uri` is a local folder, but not one of shards."""
    return os.path.isdir(uri) and not is_folder_of_shards(uri)


def open(uri: str, options: SourceOptions) -> Source:
    """Open a folder. Without `media`, pictures are taken where there are any, else texts."""
    return Folder(Path(uri), options)


class Folder:
    """The files of one medium below a folder, sorted by path."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        """Look into the folder.

        Raises:
            UsageError: it cannot be listed, or a column is asked for.
        """
        if options.content_column or options.id_column:
            raise UsageError(
                "a folder has no columns", where=str(path), hint="--content-column and --id-column are for tables"
            )
        self.path = os.path.abspath(path)
        self.root = encoded(self.path)
        self._levels = options.label_levels
        self._length: int | None = None
        self._splits = self._has_splits()
        self.columns: Mapping[str, str] = {"label": "string", **({"split": "string"} if self._splits else {})}
        self.medium: Medium = options.media or self._guess()
        self._suffixes = IMAGE_SUFFIXES if self.medium == "image" else TEXT_SUFFIXES

    def __iter__(self) -> Iterator[Item | Failure]:
        within = _Within(self, "")
        for found in self._found():
            if isinstance(found, OSError):
                yield self._unlisted(found)
                continue
            folder = found[0].path[: -len(found[0].name)]
            if folder != within.path:
                within = _Within(self, folder)
            for entry in found:
                yield self._item(within, entry)

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(1 if isinstance(found, OSError) else len(found) for found in self._found())
        return self._length

    def _found(self) -> Iterator[list[os.DirEntry[str]] | OSError]:
        suffixes = self._suffixes
        for found in walk(self.path):
            if isinstance(found, OSError):
                yield found
            elif chosen := [entry for entry in found if _suffix(entry.name) in suffixes]:
                yield chosen

    def _item(self, within: _Within, entry: os.DirEntry[str]) -> Item | Failure:
        name = encoded(entry.name)
        id, source = within.id + name, within.source + name
        try:
            facts = entry.stat()
        except OSError as error:
            return unreadable(id, source, error)
        return Item(
            id, self.medium, source, entry.path, size=facts.st_size, mtime_ns=facts.st_mtime_ns, columns=within.columns
        )

    def _unlisted(self, error: OSError) -> Failure:
        path = os.fsdecode(error.filename)
        message = f"the folder cannot be listed: {error.strerror}"
        return Failure(self.id(path), encoded(path), "list", "unreadable_folder", type(error).__name__, message)

    def id(self, path: str) -> str:
        """Return the id of what has this path: its place below the root."""
        return encoded(path.removeprefix(os.path.join(self.path, "")))

    def labels(self, id: str) -> dict[str, str | None]:
        """Return the columns of the files in the folder of this id, which ends in `/`, or is that of the root."""
        return labels(id.split("/")[:-1], self._levels, splits=self._splits)

    def _guess(self) -> Medium:
        found = (files for files in walk(self.path) if not isinstance(files, OSError))
        suffixes = (_suffix(entry.name) for files in found for entry in files)
        texts = False
        for suffix in suffixes:
            if suffix in IMAGE_SUFFIXES:
                return "image"
            texts = texts or suffix in TEXT_SUFFIXES
        return "text" if texts else "image"

    def _has_splits(self) -> bool:
        try:
            folders = [e.name for e in _entries(self.path) if e.is_dir(follow_symlinks=False)]
        except OSError as error:
            raise UsageError(
                f"the folder cannot be listed: {error.strerror}", where=self.root, hint="check its permissions"
            ) from error
        return has_splits(set(folders))


class _Within:
    """What the files of one folder have in common. `path`, `id` and `source` end in `/`, or are empty."""

    __slots__ = ("columns", "id", "path", "source")

    def __init__(self, source: Folder, path: str) -> None:
        self.path, self.id, self.source = path, source.id(path), encoded(path)
        self.columns = source.labels(self.id)


def has_splits(folders: set[str]) -> bool:
    """Say whether the folders right below the root are all called like splits."""
    return bool(folders) and all(name.lower() in SPLITS for name in folders)


def labels(folders: list[str], levels: int | None, *, splits: bool) -> dict[str, str | None]:
    """Return the columns that the folders above a file make: `label`, and `split` where the first ones are splits."""
    columns: dict[str, str | None] = {}
    if splits:
        columns["split"] = folders.pop(0) if folders else None
    # a label is for people, and for heads: it need not be turned back into a path
    columns["label"] = "/".join(folders[:levels]).replace("%25", "%") or None
    return columns


def encoded(path: str) -> str:
    """Return a path as text that any table can hold: %, control characters and undecodable bytes become %XX."""
    if path.isascii() and path.isprintable() and "%" not in path:
        return path
    return UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), path)


def walk(folder: str) -> Iterator[list[os.DirEntry[str]] | OSError]:
    """Yield the files below a folder, in the order of the bytes of their paths, and the error of a folder within.

    Those that come one after another in one folder come in one list.
    """
    waiting: list[Iterator[os.DirEntry[str]]] = []
    inside: str | None = folder
    while inside is not None or waiting:
        if inside is not None:
            try:
                waiting.append(iter(_entries(inside)))
            except OSError as error:
                yield error
        files: list[os.DirEntry[str]] = []
        inside = _next_folder(waiting[-1], files) if waiting else None
        if files:
            yield files
        if inside is None and waiting:
            waiting.pop()


def _next_folder(entries: Iterator[os.DirEntry[str]], files: list[os.DirEntry[str]]) -> str | None:
    """Return the path of the next folder, None where there is none; the files before it are added to `files`."""
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            return entry.path
        if not (entry.is_symlink() and os.path.isdir(entry.path)):
            files.append(entry)
    return None


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        entries = [entry for entry in found if not entry.name.startswith(".")]
    # of what is ASCII the order is that of the bytes
    plain = all(entry.name.isascii() for entry in entries)
    entries.sort(key=NAME if plain else lambda entry: os.fsencode(entry.name))
    return entries


def _suffix(name: str) -> str:
    """Return the suffix of a name that does not begin with a dot."""
    dot = name.rfind(".")
    return name[dot:].lower() if dot > 0 else ""
