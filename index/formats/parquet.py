"""Parquet: a row for each vector, the Space as JSON in the schema's metadata."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.bringing import Asked, VectorSource
from index.formats._table import BATCH_ROWS, files_of, table_source, unreadable
from index.taking import PartWriter, Shape


class _Writer:
    def __init__(self, path: Path, schema: Any) -> None:
        self.path, self._out = path, pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, rows: Any) -> None:
        self._out.write_table(rows)

    def close(self) -> list[Path]:
        self._out.close()
        return [self.path]


def begin(folder: Path, part: str, rows: int, shape: Shape) -> PartWriter:
    """Start `data/data_PART.parquet`."""
    return _Writer(shape.place(folder, "data", f"data_{part}.parquet"), shape.schema)


def finds(path: str) -> list[Path]:
    """Return a parquet file, or those of a folder."""
    return files_of(path, (".parquet", ".pq"))


def read(paths: Sequence[Path], asked: Asked) -> VectorSource:
    """Open parquet files of one schema, in this order."""
    schema, total = facts(paths)
    return table_source(paths[0], schema, total, lambda: tables(paths), asked)


def facts(paths: Sequence[Path]) -> tuple[Any, int]:
    """Return the schema of the first file, and the number of rows of all."""
    total, schema = 0, None
    for path in paths:
        with unreadable(path), pq.ParquetFile(path) as file:
            schema = schema or file.schema_arrow
            total += file.metadata.num_rows
    return schema, total


def tables(paths: Sequence[Path]) -> Iterator[Any]:
    """Yield the rows of the files as tables of at most 4096 rows."""
    for path in paths:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS):
                yield pa.Table.from_batches([batch])
