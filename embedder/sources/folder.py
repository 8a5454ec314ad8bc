"""A folder of pictures or of `.txt` files. `root/CLASS/…` gives `label`; `root/train/CLASS/…` gives `split` too.
Of nested folders the label is the whole path, or its first `label_levels` folders.

Ids are paths relative to the folder, with `/`, not normalised; bytes that are not UTF-8, characters that cannot be seen
and % are percent-encoded. Hidden files are passed over, and links to folders are not followed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from embedder.errors import UsageError
from embedder.records import Failure, Item, Medium
from embedder.sources._shards import is_folder_of_shards
from embedder.sourcing import IMAGE_SUFFIXES, Source, SourceOptions, unreadable

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
        for path in self._found():
            yield self._item(path) if isinstance(path, str) else self._unlisted(path)

    def __len__(self) -> int:
        if self._length is None:
            self._length = sum(1 for _ in self._found())
        return self._length

    def _found(self) -> Iterator[str | OSError]:
        for path in walk(self.path):
            if isinstance(path, OSError) or _suffix(path) in self._suffixes:
                yield path

    def _item(self, path: str) -> Item | Failure:
        id = self._id(path)
        try:
            facts = os.stat(path)
        except OSError as error:
            return unreadable(id, encoded(path), error)
        return Item(
            id=id, medium=self.medium, source=encoded(path), path=path, size=facts.st_size,
            mtime_ns=facts.st_mtime_ns, columns=labels(id.split("/")[:-1], self._levels, splits=self._splits),
        )  # fmt: skip

    def _unlisted(self, error: OSError) -> Failure:
        path = os.fsdecode(error.filename)
        message = f"the folder cannot be listed: {error.strerror}"
        return Failure(self._id(path), encoded(path), "list", "unreadable_folder", type(error).__name__, message)

    def _id(self, path: str) -> str:
        return encoded(path.removeprefix(os.path.join(self.path, "")))

    def _guess(self) -> Medium:
        suffixes = (_suffix(path) for path in walk(self.path) if isinstance(path, str))
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
    return UNSAFE.sub(lambda found: "".join(f"%{byte:02X}" for byte in os.fsencode(found[0])), path)


def walk(folder: str) -> Iterator[str | OSError]:
    """Yield the path of each file below a folder, in the order of their bytes, and the error of a folder within."""
    waiting: list[tuple[str, bool]] = [(folder, True)]
    while waiting:
        path, is_folder = waiting.pop()
        if not is_folder:
            yield path
            continue
        try:
            entries = _entries(path)
        except OSError as error:
            yield error
            continue
        for entry in reversed(entries):
            inside = entry.is_dir(follow_symlinks=False)
            if inside or not (entry.is_symlink() and os.path.isdir(entry.path)):
                waiting.append((entry.path, inside))


def _entries(folder: str) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as found:
        return sorted((e for e in found if not e.name.startswith(".")), key=lambda e: os.fsencode(e.name))


def _suffix(path: str) -> str:
    return os.path.splitext(path)[1].lower()
