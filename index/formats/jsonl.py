"""JSON Lines: an object for each vector, which is a list of numbers; each float32 comes back as it was."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from embedder.errors import NothingToDo, UsageError
from embedder.sources._types import Types
from index.bringing import Asked, Block, VectorSource
from index.formats._table import BATCH_ROWS, as_vector, files_of, unreadable, vector_column
from index.taking import PartWriter, Shape

LOOKED_AT = 100


class _Writer:
    def __init__(self, path: Path) -> None:
        self.path, self._out = path, path.open("w", encoding="utf-8", newline="\n")

    def write(self, rows: Any) -> None:
        for row in rows.to_pylist():
            finite = {n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}
            self._out.write(json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n")

    def close(self) -> list[Path]:
        self._out.close()
        return [self.path]


def begin(folder: Path, part: str, rows: int, shape: Shape) -> PartWriter:
    """Start `data/data_PART.jsonl`."""
    return _Writer(shape.place(folder, "data", f"data_{part}.jsonl"))


def finds(path: str) -> list[Path]:
    """Return a file of JSON Lines, or those of a folder."""
    return files_of(path, (".jsonl", ".ndjson"))


def read(paths: Sequence[Path], asked: Asked) -> VectorSource:
    """Open files of JSON Lines; they are read once to find the type of every column."""
    types, total, lists = Types(text_cells=False), 0, dict[str, None]()
    name = asked.vector_column
    for row in _rows(paths):
        if total < LOOKED_AT:
            lists |= {n: None for n, v in row.items() if isinstance(v, list) and as_vector(v) is not None}
        types.see({n: v for n, v in row.items() if not isinstance(v, list)})
        for column in row:
            types.found.setdefault(column, "")
        total += 1
    if not total:
        raise NothingToDo(f"{paths[0].name} has no rows", where=str(paths[0]))
    columns = types.columns()
    name = vector_column(list(columns), list(lists), name, str(paths[0]))

    def blocks() -> Iterator[Block]:
        rows = _rows(paths)
        while chunk := list(islice(rows, BATCH_ROWS)):
            yield chunk, [as_vector(row.get(name)) for row in chunk]

    kept = {n: kind for n, kind in columns.items() if n != name}
    return VectorSource(str(paths[0].absolute()), paths[0].absolute().parent, kept, total, None, blocks)


def _rows(paths: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for path in paths:
        with unreadable(path), path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield _row(path, number, line)


def _row(path: Path, number: int, line: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise UsageError(f"line {number} of {path.name} is not JSON: {error}", where=str(path)) from error
    if not isinstance(row, dict):
        raise UsageError(f"line {number} of {path.name} is not an object", where=str(path))
    return row
