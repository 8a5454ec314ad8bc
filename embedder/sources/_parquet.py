"""Rows of parquet files, a few at a time however large they are."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedder.errors import UsageError
from embedder.sources._rows import BadRow, Row

BATCH_ROWS, BATCH_BYTES = 1024, 32 << 20


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row). Dates and times become strings, as Arrow writes them.

    Raises:
        UsageError: not parquet, or cut, or a page fails its checksum, or a column name is repeated.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            _require_unique(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                for row in _plain(_dates_as_text(batch)):
                    number += 1
                    yield number, row
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path.name} cannot be read as parquet after row {number}: {error}", where=str(path),
            hint="it is cut or damaged: fetch or write it again",
        ) from error  # fmt: skip


def _batch_rows(metadata: Any) -> int:
    groups = [metadata.row_group(i) for i in range(metadata.num_row_groups)]
    largest = max((g.total_byte_size / max(1, g.num_rows) for g in groups), default=0)
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES / max(1, largest))))


def _require_unique(names: list[str], path: Path) -> None:
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path.name} repeats the column {', '.join(twice)}", where=str(path), hint="rename one")


def _dates_as_text(batch: Any) -> Any:
    import pyarrow as pa

    columns = [c.cast(pa.string()) if pa.types.is_temporal(c.type) else c for c in batch.columns]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _plain(batch: Any) -> list[Row]:
    """Return the rows as Python values; where one has none (a text that is not UTF-8), it alone is bad."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [BadRow("bad_unicode" if isinstance(error, UnicodeDecodeError) else "bad_value", str(error))]
    return [row for i in range(batch.num_rows) for row in _plain(batch.slice(i, 1))]
