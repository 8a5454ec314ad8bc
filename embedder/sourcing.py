"""Sources: where items come from. A kind, a file in `embedder/sources/`, offers `accepts(uri)` and `open(uri, …)`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from embedder import kinds
from embedder.errors import UsageError, nearest
from embedder.reading import reason_of
from embedder.records import Failure, Item, Medium

# HEIC and JPEG XL are found so that their files are named among the failures, not passed over
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp", ".avif"}
    | {".heic", ".heif", ".jxl"}
)
READS = "a folder, a csv, tsv, jsonl, parquet or Arrow file, tar shards, hf:NAME, or an address such as s3://…"


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say of a source. `media` None means: find out. `label_levels`: how many folders make a label."""

    media: Medium | None = None
    content_column: str | None = None
    id_column: str | None = None
    label_levels: int | None = None


class Source(Protocol):
    """An iterable of items with stable ids, which can be iterated again.

    `root` names the source (an absolute path); `columns` maps each metadata column to string, int, float or bool.
    A row that cannot become an item is yielded as a `Failure` of stage `list`. `len()` counts both.
    """

    root: str
    medium: Medium
    columns: Mapping[str, str]

    def __iter__(self) -> Iterator[Item | Failure]:
        """Yield items in a stable order."""

    def __len__(self) -> int:
        """Return how many items and failures iteration will yield."""


class SourceKind(Protocol):
    """What a file in `embedder/sources/` offers."""

    def accepts(self, uri: str) -> bool:
        """Say whether this kind reads `uri`."""

    def open(self, uri: str, options: SourceOptions) -> Source:
        """Open it. Raises `UsageError` where it cannot be read as a whole."""


def open_source(uri: str, options: SourceOptions | None = None) -> Source:
    """Open a source by path.

    Raises:
        UsageError: nothing is there, or no kind reads it; the nearest names are in the hint.
        NothingToDo: it is empty.
    """
    for name in kinds.names("embedder.sources"):
        kind = cast(SourceKind, kinds.load("embedder.sources", name))
        if kind.accepts(uri):
            return kind.open(uri, options or SourceOptions())
    raise _unreadable_source(uri)


def unreadable(id: str, source: str, error: OSError | ValueError) -> Failure:
    """Return the failure of an item whose file the system refuses to show; `source` is its path, encoded."""
    why = error.strerror if isinstance(error, OSError) else str(error)
    return Failure(id, source, "read", reason_of(error), type(error).__name__, f"{why}: {source}")


def _unreadable_source(uri: str) -> UsageError:
    if os.path.lexists(uri):
        return UsageError(f"no kind of source reads {uri!r}", hint=f"give {READS}")
    folder, name = os.path.split(os.path.abspath(uri))
    near = nearest(name, _names_in(folder)) if uri else []
    hint = f"did you mean {' or '.join(near)}?" if near else f"give an existing path: {READS}"
    return UsageError(f"there is nothing at {uri!r}", where=f"looked in {folder}", hint=hint)


def _names_in(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError):
        return []
