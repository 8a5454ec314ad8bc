"""A csv, tsv, jsonl, parquet or Arrow file of texts, or of pictures by path or as bytes; other columns are metadata.

The file is read once to find the type of every column and what is wrong with it, and again to yield the items.
Relative paths are resolved against the table's folder. Without an id column the id is the head of the content's sha256
(for pictures: the path as written), with the number of the occurrence from the second one on.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from embedder.errors import UsageError
from embedder.records import Failure, Item
from embedder.sources import _arrow, _csv, _jsonl, _parquet
from embedder.sources._records import Records, local_file
from embedder.sources._rows import Row
from embedder.sources.folder import encoded
from embedder.sourcing import Source, SourceOptions

READERS: dict[str, Callable[[Path], Iterator[tuple[int, Row]]]] = {
    ".csv": _csv.rows, ".tsv": _csv.rows, ".jsonl": _jsonl.rows, ".ndjson": _jsonl.rows, ".parquet": _parquet.rows,
    ".arrow": _arrow.rows, ".feather": _arrow.rows,
}  # fmt: skip


def accepts(uri: str) -> bool:
    """Say whether `uri` is a local file with the suffix of a table."""
    return os.path.isfile(uri) and Path(uri).suffix.lower() in READERS


def open(uri: str, options: SourceOptions) -> Source:
    """Open a table.

    Raises:
        UsageError: it cannot be read as a whole, or no column is plainly the content.
        NothingToDo: it has no rows.
    """
    return Table(Path(uri), options)


class Table(Records):
    """The rows of one file."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.path = Path(os.path.abspath(path))
        self.root, self.name = encoded(str(self.path)), self.path.name
        self._read = READERS[self.path.suffix.lower()]
        self.text_cells = self._read is _csv.rows
        self._version = self._stat()
        self._settle(options)

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        if self._stat() != self._version:
            raise UsageError(
                f"{self.path.name} has changed since it was opened", where=self.root,
                hint="run again when its writer is done",
            )  # fmt: skip
        return self._read(self.path)

    def _stat(self) -> tuple[int, int]:
        try:
            with self.path.open("rb") as file:
                facts = os.fstat(file.fileno())
        except OSError as error:
            raise UsageError(f"{self.path.name} cannot be opened: {error.strerror}", where=self.root) from error
        return facts.st_size, facts.st_mtime_ns

    def _file(self, content: str, facts: dict[str, Any]) -> Item | Failure:
        path = os.path.join(self.path.parent, content)
        found = local_file(path, facts)
        if isinstance(found, Failure) and "://" in content:
            message = f"it is not on this machine; download it first: {content}"
            return replace(found, reason="remote", message=message)
        return found
