"""A csv, tsv, jsonl or parquet file of texts, or of pictures by path or as bytes; the other columns are metadata.

The file is read once to find the type of every column and what is wrong with it, and again to yield the items.
Relative paths are resolved against the table's folder. Without an id column the id is the head of the content's sha256
(for pictures: the path as written), with the number of the occurrence from the second one on.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from embedder.errors import UnknownName, UsageError
from embedder.records import Failure, Item, Medium
from embedder.sources._rows import BadRow, Types, convert, rows
from embedder.sources.folder import encoded
from embedder.sourcing import IMAGE_SUFFIXES, Source, SourceOptions

SUFFIXES = frozenset({".csv", ".tsv", ".jsonl", ".ndjson", ".parquet"})
TEXT_NAMES = ("text", "content", "caption", "sentence", "document", "body", "description", "title")
IMAGE_NAMES = ("image", "path", "file", "filename", "file_name", "filepath", "image_path")


def accepts(uri: str) -> bool:
    """Say whether `uri` is a local file with the suffix of a table."""
    return os.path.isfile(uri) and Path(uri).suffix.lower() in SUFFIXES


def open(uri: str, options: SourceOptions) -> Source:
    """Open a table. Raises `UsageError` where it cannot be read as a whole or has no content column."""
    return Table(Path(uri), options)


class Table:
    """The rows of one file."""

    def __init__(self, path: Path, options: SourceOptions) -> None:
        self.path = Path(os.path.abspath(path))
        self.root = encoded(str(self.path))
        types = Types(text_cells=self.path.suffix.lower() in (".csv", ".tsv"))
        self._length = 0
        self._samples: dict[str, Any] = {}
        for _, row in rows(self.path):
            self._length += 1
            if not isinstance(row, BadRow):
                types.see(row)
                self._samples = {**{n: v for n, v in row.items() if v is not None}, **self._samples}
        self._types = types.columns()
        self.content, self.medium = self._content(options)
        self.id_column = (
            self._column(options.id_column) if options.id_column else ("id" if "id" in self._types else None)
        )
        if self.id_column == self.content:
            raise UsageError(f"column {self.content!r} cannot be both the id and the content", where=str(self.path))
        own = {self.content, self.id_column, "group"}
        self.columns: Mapping[str, str] = {name: kind for name, kind in self._types.items() if name not in own}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item | Failure]:
        seen: Counter[str] = Counter()
        for number, row in rows(self.path):
            where = f"{self.root}#{number}"
            if isinstance(row, BadRow):
                yield Failure(f"row {number}", where, "list", row.reason, "ValueError", f"row {number}: {row.message}")
            else:
                yield self._item(number, row, where, seen)

    def _item(self, number: int, row: dict[str, Any], where: str, seen: Counter[str]) -> Item | Failure:
        content = row.get(self.content)
        id = self._id(row, content, seen)
        if id is None:
            return Failure(
                f"row {number}",
                where,
                "list",
                "no_id",
                "ValueError",
                f"row {number}: column {self.id_column!r} is empty",
            )
        if content is None or content == "":
            reason = "empty_text" if self.medium == "text" else "no_content"
            return Failure(id, where, "read", reason, "ValueError", f"row {number}: column {self.content!r} is empty")
        columns = {name: convert(row.get(name), kind) for name, kind in self.columns.items()}
        group = row.get("group")
        facts: dict[str, Any] = {"columns": columns, "group": None if group is None else str(group)}
        if self.medium == "text":
            return Item(id=id, medium="text", source=where, text=str(content), **facts)
        return self._image(id, content, where, facts)

    def _image(self, id: str, content: Any, where: str, facts: dict[str, Any]) -> Item | Failure:
        if isinstance(content, Mapping):
            content = content.get("bytes") or content.get("path")
        if isinstance(content, bytes):
            return Item(id=id, medium="image", source=where, data=content, size=len(content), **facts)
        path = os.path.join(self.path.parent, str(content))
        try:
            stat = os.stat(path)
        except (OSError, ValueError) as error:
            return Failure(id, encoded(path), "read", "missing", type(error).__name__, f"{path}: {error}")
        return Item(
            id=id,
            medium="image",
            source=encoded(path),
            path=path,
            size=stat.st_size,
            mtime_ns=stat.st_mtime_ns,
            **facts,
        )

    def _id(self, row: Mapping[str, Any], content: Any, seen: Counter[str]) -> str | None:
        if self.id_column:
            value = row.get(self.id_column)
            return None if value is None or value == "" else str(value)
        if isinstance(content, Mapping):
            content = content.get("bytes") or content.get("path")
        if self.medium == "image" and isinstance(content, str):
            stem = encoded(content)
        else:
            data = content if isinstance(content, bytes) else str(content).encode("utf-8", "surrogatepass")
            stem = hashlib.sha256(data).hexdigest()[:16]
        seen[stem] += 1
        return stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"

    def _content(self, options: SourceOptions) -> tuple[str, Medium]:
        if options.content_column:
            name = self._column(options.content_column)
            return name, options.media or self._sniff(name)
        for medium, names in (("text", TEXT_NAMES), ("image", IMAGE_NAMES)):
            found = next((n for n in names if n in self._types), None)
            if found and options.media in (None, medium):
                return found, "text" if medium == "text" else "image"
        raise UsageError(
            f"{self.path.name} has no column that is plainly the content",
            where=f"columns: {', '.join(self._types) or 'none'}",
            hint="name it: --content-column NAME (and --media image where it holds paths of pictures)",
        )  # fmt: skip

    def _column(self, name: str) -> str:
        if name not in self._types:
            raise UnknownName.of(
                "column", name, self._types, where=str(self.path), hint=f"columns: {', '.join(self._types)}"
            )
        return name

    def _sniff(self, name: str) -> Medium:
        sample = self._samples.get(name)
        if isinstance(sample, (bytes, Mapping)):
            return "image"
        return "image" if os.path.splitext(str(sample))[1].lower() in IMAGE_SUFFIXES else "text"
