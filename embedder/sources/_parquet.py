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
            require_unique(file.schema_arrow.names, path)
            for batch in file.iter_batches(batch_size=_batch_rows(file.metadata)):
                for row in plain(dates_as_text(batch)):
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


def require_unique(names: list[str], path: Path) -> None:
    """Refuse a column name that is repeated. Raises `UsageError`."""
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{path.name} repeats the column {', '.join(twice)}", where=str(path), hint="rename one")


def dates_as_text(batch: Any) -> Any:
    """Return a record batch whose dates and times, also within lists and structs, are Arrow's strings.

    Python's own cannot hold all of them, and pyarrow gives pandas' where pandas happens to be installed.
    """
    import pyarrow as pa

    wanted = [(c, _without_dates(c.type)) for c in batch.columns]
    columns = [c if kind == c.type else c.cast(kind) for c, kind in wanted]
    return pa.RecordBatch.from_arrays(columns, names=batch.schema.names)


def _without_dates(kind: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_temporal(kind):
        return pa.string()
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        inner = kind.value_field.with_type(_without_dates(kind.value_type))
        return pa.list_(inner) if pa.types.is_list(kind) else pa.large_list(inner)
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_without_dates(field.type)) for field in kind])
    return kind


def plain(batch: Any) -> list[Row]:
    """Return the rows as Python values; where one has none (a text that is not UTF-8), it alone is bad."""
    try:
        return list(batch.to_pylist())
    except (ValueError, OverflowError) as error:
        if batch.num_rows == 1:
            return [BadRow("bad_unicode" if isinstance(error, UnicodeDecodeError) else "bad_value", str(error))]
    return [row for i in range(batch.num_rows) for row in plain(batch.slice(i, 1))]
