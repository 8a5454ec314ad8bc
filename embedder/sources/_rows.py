"""Rows of csv, jsonl and parquet files as plain dictionaries, with the type of each column."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.errors import UsageError

FIELD_LIMIT = 16 << 20
INTEGER = re.compile(r"[+-]?(0|[1-9]\d{0,17})")
NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d*)?([eE][+-]?\d+)?")
ORDER = ("bool", "int", "float", "string")


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read: a short reason and what was seen."""

    reason: str
    message: str


Row = dict[str, Any] | BadRow


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row) of a csv, tsv, jsonl or parquet file.

    Raises:
        UsageError: the file as a whole cannot be read (no header, an unclosed quote, not parquet).
    """
    suffix = path.suffix.lower()
    if suffix in (".csv", ".tsv"):
        return _csv(path, "\t" if suffix == ".tsv" else ",")
    return _jsonl(path) if suffix in (".jsonl", ".ndjson") else _parquet(path)


def _csv(path: Path, delimiter: str) -> Iterator[tuple[int, Row]]:
    csv.field_size_limit(FIELD_LIMIT)
    with path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as lines:
        reader = csv.reader(lines, strict=True, delimiter=delimiter)
        number = 0
        try:
            header = next(reader, [])
            _check_header(header, path)
            for number, cells in enumerate(reader, 1):
                if cells:
                    yield number, _csv_row(header, cells)
        except csv.Error as error:
            raise UsageError(
                f"{path.name} cannot be read after row {number}: {error}", where=f"{path}, line {reader.line_num}",
                hint="close the quote, or write the table as jsonl or parquet",
            ) from error  # fmt: skip


def _check_header(header: list[str], path: Path) -> None:
    twice = sorted({name for name in header if header.count(name) > 1})
    if not header or not all(header) or twice:
        what = f"repeats {', '.join(twice)}" if twice else "has an empty name" if header else "is missing"
        raise UsageError(
            f"the header of {path.name} {what}", where=str(path), hint="the first row must name every column, once"
        )
    if any("\x00" in name or "\udc80" <= c <= "\udcff" for name in header for c in name):
        raise UsageError(f"{path.name} is not UTF-8", where=str(path), hint="convert it: iconv -f UTF-16 -t UTF-8")


def _csv_row(header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        return BadRow("ragged_row", f"{len(cells)} cells, the header has {len(header)}")
    for name, cell in zip(header, cells, strict=True):
        at = next((i for i, c in enumerate(cell) if "\udc80" <= c <= "\udcff"), None)
        if at is not None:
            return BadRow("bad_unicode", f"column {name!r}, character {at} is not UTF-8")
    return dict(zip(header, (cell or None for cell in cells), strict=True))


def _jsonl(path: Path) -> Iterator[tuple[int, Row]]:
    with path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if line.strip():
                yield number, _json_row(line)


def _json_row(line: bytes) -> Row:
    if len(line) > FIELD_LIMIT:
        return BadRow("too_large", f"{len(line)} bytes in one line")
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_unique)
    except UnicodeDecodeError as error:
        return BadRow("bad_unicode", f"byte {error.start} is not UTF-8")
    except (ValueError, RecursionError) as error:
        return BadRow("bad_json", str(error) or type(error).__name__)
    return row if isinstance(row, dict) else BadRow("bad_json", f"the line is not an object but {type(row).__name__}")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        raise ValueError("a key is given twice")
    return row


def _parquet(path: Path) -> Iterator[tuple[int, Row]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as table:
            number = 0
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{path.name} cannot be read as parquet: {error}", where=str(path)) from error


class Types:
    """The narrowest type that holds every value of each column seen: bool, int, float or string."""

    def __init__(self, *, text_cells: bool) -> None:
        self.found: dict[str, str] = {}
        self._text_cells = text_cells

    def see(self, row: dict[str, Any]) -> None:
        """Widen the types to hold one more row; nulls say nothing."""
        for name, value in row.items():
            if value is None:
                self.found.setdefault(name, "")
            else:
                self.found[name] = _wider(self.found.get(name, ""), self._type(value))

    def columns(self) -> dict[str, str]:
        """Return each column's type; one of nulls alone is a string."""
        return {name: kind or "string" for name, kind in self.found.items()}

    def _type(self, value: Any) -> str:
        if isinstance(value, bool):
            return "bool"
        if isinstance(value, int):
            return "int" if abs(value) < 2**63 else "string"
        if isinstance(value, float):
            return "float"
        if self._text_cells and isinstance(value, str):
            return _cell_type(value)
        return "string"


def _cell_type(cell: str) -> str:
    if INTEGER.fullmatch(cell):
        return "int"
    if NUMBER.fullmatch(cell):
        return "float"
    return "bool" if cell in ("true", "false", "True", "False") else "string"


def _wider(a: str, b: str) -> str:
    if not a or a == b:
        return b
    return "float" if {a, b} == {"int", "float"} else "string"


def convert(value: Any, kind: str) -> Any:
    """Return a cell as its column's type; a float that is not finite becomes null, nested values become JSON."""
    if value is None:
        return None
    if kind == "string":
        return value if isinstance(value, str) else json.dumps(value, default=str, ensure_ascii=False)
    if kind == "bool":
        return value if isinstance(value, bool) else value.lower() == "true"
    if kind == "int":
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None
