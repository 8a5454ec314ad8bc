"""Rows of Arrow IPC files (`.arrow`, `.feather`): the file form, and the stream form that Hugging Face writes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedder.errors import UsageError
from embedder.sources._parquet import BATCH_BYTES, BATCH_ROWS, dates_as_text, plain, require_unique
from embedder.sources._rows import Row

FILE_FORM, FEATHER_1 = b"ARROW1", b"FEA1"
END = b"\xff\xff\xff\xff\0\0\0\0"


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (row number from 1, row). Dates and times become strings, as Arrow writes them.

    Raises:
        UsageError: not Arrow IPC (or Feather version 1), or cut, or a column name is repeated.
    """
    import pyarrow as pa

    number = 0
    try:
        with pa.memory_map(str(path)) as file:
            for batch in _batches(file, path):
                for start in range(0, batch.num_rows, _step(batch)):
                    for row in plain(dates_as_text(batch.slice(start, _step(batch)))):
                        number += 1
                        yield number, row
    except (pa.ArrowException, OSError) as error:
        raise UsageError(
            f"{path.name} cannot be read as Arrow after row {number}: {error}", where=str(path),
            hint="it is cut or damaged: fetch or write it again",
        ) from error  # fmt: skip


def _batches(file: Any, path: Path) -> Iterator[Any]:
    import pyarrow as pa

    head = file.read(len(FILE_FORM))
    file.seek(0)
    if head.startswith(FEATHER_1):
        raise UsageError(
            f"{path.name} is Feather version 1", where=str(path), hint="write it again: pyarrow.feather, version 2"
        )
    if not head.startswith(FILE_FORM):
        # a stream that was cut between two batches lacks nothing but this mark
        if file.size() < len(END) or bytes(file.read_at(len(END), file.size() - len(END))) != END:
            raise pa.ArrowInvalid("it is no Arrow file, or its end is missing")
        with pa.ipc.open_stream(file) as stream:
            require_unique(stream.schema.names, path)
            yield from (_checked(batch) for batch in stream)
        return
    with pa.ipc.open_file(file) as whole:
        require_unique(whole.schema.names, path)
        for i in range(whole.num_record_batches):
            yield _checked(whole.get_batch(i))


def _checked(batch: Any) -> Any:
    """Refuse offsets that point outside their buffer, which crash whoever reads them; UTF-8 is looked at row by row."""
    import pyarrow as pa

    plain_bytes = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}
    for column in batch.columns:
        (column.view(plain_bytes[column.type]) if column.type in plain_bytes else column).validate(full=True)
    return batch


def _step(batch: Any) -> int:
    return max(1, min(BATCH_ROWS, int(BATCH_BYTES * batch.num_rows / max(1, batch.nbytes))))
