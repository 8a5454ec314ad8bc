"""Arrow IPC files (Feather 2 is the same): a row for each vector, the Space as JSON in the schema's metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import ipc

from index.bringing import Asked, VectorSource
from index.formats._table import BATCH_ROWS, files_of, table_source, unreadable
from index.taking import PartWriter, Shape


class _Writer:
    def __init__(self, path: Path, schema: Any) -> None:
        self.path, self._out = path, ipc.new_file(str(path), schema)

    def write(self, rows: Any) -> None:
        self._out.write_table(rows)

    def close(self) -> list[Path]:
        self._out.close()
        return [self.path]


def begin(folder: Path, part: str, rows: int, shape: Shape) -> PartWriter:
    """Start `data/data_PART.arrow`."""
    return _Writer(shape.place(folder, "data", f"data_{part}.arrow"), shape.schema)


def finds(path: str) -> list[Path]:
    """Return an Arrow file, or those of a folder."""
    return files_of(path, (".arrow", ".feather"))


def read(paths: Sequence[Path], asked: Asked) -> VectorSource:
    """Open Arrow files of one schema, in this order."""
    total, schema = 0, None
    for path in paths:
        with unreadable(path), pa.memory_map(str(path)) as mapped:
            file = ipc.open_file(mapped)
            schema = schema or file.schema
            total += sum(file.get_batch(i).num_rows for i in range(file.num_record_batches))
    return table_source(paths[0], schema, total, lambda: _tables(paths), asked)


def _tables(paths: Sequence[Path]) -> Iterator[Any]:
    for path in paths:
        with pa.memory_map(str(path)) as mapped:
            file = ipc.open_file(mapped)
            for i in range(file.num_record_batches):
                rows = pa.Table.from_batches([file.get_batch(i)])
                for start in range(0, rows.num_rows, BATCH_ROWS):
                    yield rows.slice(start, BATCH_ROWS)
