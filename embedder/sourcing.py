"""Sources: where items come from. A kind, a file in `embedder/sources/`, offers `accepts(uri)` and `open(uri, options)`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol, cast

from embedder import kinds
from embedder.errors import UsageError
from embedder.records import Failure, Item, Medium

# HEIC and JPEG XL are found so that their files are named among the failures, not passed over
IMAGE_SUFFIXES = frozenset(".jpg .jpeg .jpe .jfif .png .webp .gif .tif .tiff .bmp .avif .heic .heif .jxl".split())


@dataclass(frozen=True)
class SourceOptions:
    """What a user may say of a source. `media` None means: find out."""

    media: Medium | None = None
    content_column: str | None = None
    id_column: str | None = None


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
        UsageError: nothing is there, or no kind reads it.
    """
    for name in kinds.names("embedder.sources"):
        kind = cast(SourceKind, kinds.load("embedder.sources", name))
        if kind.accepts(uri):
            return kind.open(uri, options or SourceOptions())
    known = ", ".join(kinds.names("embedder.sources"))
    raise UsageError(
        f"cannot read {uri!r} as a source", hint=f"give an existing folder, or a csv, jsonl or parquet file ({known})"
    )
