"""Rows of csv and tsv files. A cell that is empty is null; nothing else is guessed about cells here."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

from embedder.errors import UsageError
from embedder.sources._rows import LIMIT, BadRow, Row, require_utf8

DELIMITERS = (",", ";", "\t")


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row); blank lines count but are not rows.

    A csv whose first line has no comma may be separated by semicolons or tabs. A column without a name is called
    `column_N`. A row of one line that cannot be read is a `BadRow`.

    Raises:
        UsageError: no header, or one that repeats a name; not UTF-8; a quote that is opened and not closed.
    """
    require_utf8(path)
    csv.field_size_limit(LIMIT)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file:
        lines = _Lines(file)
        reader = csv.reader(lines, strict=True, delimiter=_delimiter(file, path))
        records = _records(reader, lines, path)
        found, cells = next(records, (0, []))
        header = _header(cells, path)
        for number, cells in records:
            yield number - found, cells if isinstance(cells, BadRow) else _row(header, cells)


class _Lines:
    """The lines of a file, with what is known of those that make up one record.

    `quotes` are the quote characters in it; `cut` says that it is one line too long to be read, which was passed over.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self.begin()

    def begin(self) -> None:
        """Begin a record."""
        self.count, self.quotes, self.cut = 0, 0, False

    def closed(self) -> bool:
        """Say whether the record is one line that opens no quote which another line would have to close."""
        return self.count <= 1 and self.quotes % 2 == 0

    def __iter__(self) -> _Lines:
        return self

    def __next__(self) -> str:
        line = part = self.file.readline(LIMIT)
        if not line:
            raise StopIteration
        self.count += 1
        self.quotes += line.count('"')
        while len(part) == LIMIT and not part.endswith(("\n", "\r")):
            self.cut = True
            part = self.file.readline(LIMIT)
            self.quotes += part.count('"')
        if self.cut and not self.closed():
            raise csv.Error(f"a line of more than {LIMIT:,} characters within quotes")
        return "\n" if self.cut else line


def _records(reader: Iterator[list[str]], lines: _Lines, path: Path) -> Iterator[tuple[int, list[str] | BadRow]]:
    number = 0
    while True:
        lines.begin()
        number += 1
        try:
            cells = next(reader, None)
        except csv.Error as error:
            if not lines.closed():
                raise _unclosed(path, number - 1, error) from error
            yield number, BadRow("bad_csv", str(error))
            continue
        if cells is None:
            return
        if lines.cut:
            yield number, BadRow("too_large", f"a line of more than {LIMIT:,} characters")
        elif cells:
            yield number, cells


def _delimiter(file: TextIO, path: Path) -> str:
    first = file.readline(LIMIT)
    file.seek(0)
    return "\t" if path.suffix.lower() == ".tsv" else next((d for d in DELIMITERS if d in first), ",")


def _unclosed(path: Path, row: int, error: csv.Error) -> UsageError:
    return UsageError(
        f"{path.name} cannot be read from row {row} on: {error}", where=str(path),
        hint="a quote that is opened there is not closed: close it, or write the table as jsonl or parquet",
    )  # fmt: skip


def _header(cells: list[str] | BadRow, path: Path) -> list[str]:
    if isinstance(cells, BadRow) or not cells:
        what = f"cannot be read: {cells.message}" if isinstance(cells, BadRow) else "is missing"
        raise UsageError(
            f"the header of {path.name} {what}", where=str(path), hint="the first row must name the columns"
        )
    if any("\udc80" <= c <= "\udcff" for name in cells for c in name):
        raise UsageError(
            f"the header of {path.name} is not UTF-8", where=str(path),
            hint="convert it first: iconv -f LATIN1 -t UTF-8 OLD > NEW",
        )  # fmt: skip
    header = [name.strip() or f"column_{number}" for number, name in enumerate(cells, 1)]
    if twice := sorted({name for name in header if header.count(name) > 1}):
        raise UsageError(
            f"the header of {path.name} repeats {', '.join(twice)}", where=str(path), hint="name every column once"
        )
    return header


def _row(header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return BadRow("ragged_row", f"{len(cells)} cells, the header has {len(header)}")
    row = dict(zip(header, [cell or None for cell in cells], strict=True))
    return row if "".join(cells).isascii() else _checked(row)


def _checked(row: dict[str, str | None]) -> Row:
    for name, cell in row.items():
        try:
            (cell or "").encode()
        except UnicodeEncodeError as error:
            return BadRow("bad_unicode", f"column {name!r}, character {error.start} is not UTF-8")
    return row
