"""Rows with a content, an id and metadata, wherever they come from: a table, a data set, a list in Python."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any

from embedder.errors import NothingToDo, UnknownName, UsageError
from embedder.records import Failure, Item
from embedder.sources import _content
from embedder.sources._rows import BadRow, Row
from embedder.sources._types import Types, as_text, convert
from embedder.sources.folder import encoded
from embedder.sourcing import SourceOptions, unreadable


class FileName(str):
    """A text that names a file, also where a text would be the content itself."""

    __slots__ = ()


def local_file(path: str, facts: Mapping[str, Any]) -> Item | Failure:
    """Return the item of a file on this machine, unopened; `facts` are the item's other fields."""
    try:
        found = os.stat(path)
    except (OSError, ValueError) as error:
        return unreadable(facts["id"], encoded(path), error)
    return Item(source=encoded(path), path=path, size=found.st_size, mtime_ns=found.st_mtime_ns, **facts)


class Records:
    """Rows of one source; a subclass sets `root` and `name`, and says where rows come from and what a path means.

    The rows are read once to find the type of every column and what is wrong with it, and again to yield the items.
    Without an id column the id is the head of the content's sha256 (for pictures: the path as written), with the
    number of the occurrence from the second one on.
    """

    root: str
    name: str
    text_cells = False

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        """Yield (row number from 1, row)."""
        raise NotImplementedError

    def _file(self, content: str, facts: dict[str, Any]) -> Item | Failure:
        """Return the item of a picture that a row names by a path."""
        raise NotImplementedError

    def _settle(self, options: SourceOptions) -> None:
        """Look at the rows and settle what is the content, the id and metadata.

        Raises:
            UsageError: no row can be read, or no column is plainly the content.
            NothingToDo: there are no rows.
        """
        self._length, types = self._look()
        self._types = types.columns()
        wanted = options.content_column and self._column(options.content_column)
        self.content, self.medium = _content.find(types.samples, self._types, wanted, options.media, self.root)
        default = "id" if "id" in self._types and self.content != "id" else None
        self.id_column = self._column(options.id_column) if options.id_column else default
        if self.id_column == self.content:
            raise UsageError(
                f"column {self.content!r} cannot be both the id and the content", where=self.root,
                hint="leave out --id-column: the path, or the hash of the text, is then the id",
            )  # fmt: skip
        own = {self.content, self.id_column, "group"}
        self.columns: Mapping[str, str] = {name: kind for name, kind in self._types.items() if name not in own}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item | Failure]:
        seen: Counter[str] = Counter()
        for number, row in self._numbered():
            if isinstance(row, BadRow):
                yield self._failure(f"row {number}", number, "list", row.reason, row.message)
            else:
                yield self._item(number, row, seen)

    def _look(self) -> tuple[int, Types]:
        types = Types(text_cells=self.text_cells)
        length, bad = 0, ""
        for number, row in self._numbered():
            length += 1
            if isinstance(row, BadRow):
                bad = bad or f"row {number}: {row.message}"
            else:
                types.see(row)
        if not length:
            raise NothingToDo(f"{self.name} has no rows", where=self.root, hint="give a table that has some")
        if not types.found:
            raise UsageError(
                f"none of the {length} rows of {self.name} can be read", where=self.root, hint=f"repair {bad}"
            )
        return length, types

    def _item(self, number: int, row: Mapping[str, Any], seen: Counter[str]) -> Item | Failure:
        content = _content.value(row.get(self.content), self.medium)
        id = self._id(row, content, seen)
        if id is None:
            return self._failure(f"row {number}", number, "list", "no_id", f"column {self.id_column!r} is empty")
        if content is None:
            reason = "empty_text" if self.medium == "text" else "no_content"
            return self._failure(id or f"row {number}", number, "read", reason, f"column {self.content!r} is empty")
        group = row.get("group")
        facts: dict[str, Any] = {
            "id": id, "medium": self.medium, "group": None if group is None else as_text(group),
            "columns": {name: convert(row.get(name), kind) for name, kind in self.columns.items()},
        }  # fmt: skip
        # by id and not by number: a row put in front must not move all the others
        where = f"{self.root}#{encoded(id)}"
        if isinstance(content, bytes):
            return Item(source=where, data=content, size=len(content), **facts)
        if self.medium == "text" and not isinstance(content, FileName):
            return Item(source=where, text=content, **facts)
        return self._file(content, facts)

    def _failure(self, id: str, number: int, stage: Any, reason: str, message: str) -> Failure:
        return Failure(id, f"{self.root}#{number}", stage, reason, "ValueError", f"row {number}: {message}")

    def _id(self, row: Mapping[str, Any], content: str | bytes | None, seen: Counter[str]) -> str | None:
        """Return the id; "" where it would come from the content and there is none, None where its column is empty."""
        if self.id_column:
            value = row.get(self.id_column)
            return None if value is None or value != value else as_text(value) or None
        if content is None:
            return ""
        if self.medium == "image" and isinstance(content, str):
            stem = encoded(content)
        else:
            stem = hashlib.sha256(content.encode() if isinstance(content, str) else content).hexdigest()[:16]
        seen[stem] += 1
        return stem if seen[stem] == 1 else f"{stem}-{seen[stem]}"

    def _column(self, name: str) -> str:
        if name not in self._types:
            raise UnknownName.of(
                "column", name, self._types, where=self.root, hint=f"columns: {', '.join(self._types)}"
            )
        return name
