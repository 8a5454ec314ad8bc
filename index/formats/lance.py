"""A table of LanceDB: `FOLDER#TABLE`, a `TABLE.lance` folder, or a folder of tables with `--table`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from embedder.errors import UnknownName, UsageError
from index.bringing import Asked, VectorSource
from index.formats._table import BATCH_ROWS, table_source, unreadable


def finds(path: str) -> list[Path]:
    """Return the place of a table or of tables."""
    folder, _, table = path.rpartition("#")
    if folder and Path(folder).expanduser().is_dir():
        return [Path(folder).expanduser() / f"{table}.lance"]
    place = Path(path).expanduser()
    if place.is_dir() and (place.suffix == ".lance" or any(place.glob("*.lance"))):
        return [place]
    return []


def read(paths: Sequence[Path], asked: Asked) -> VectorSource:
    """Open one table, at its version of now.

    Raises:
        UnknownName: no such table; the nearest ones are in the hint.
        UsageError: several tables, and none was named.
    """
    import lancedb

    place = paths[0]
    tables = sorted(p.stem for p in place.glob("*.lance"))
    # a database may itself be called NAME.lance
    inside = bool(tables) or place.suffix != ".lance"
    folder = place if inside else place.parent
    known = tables if inside else sorted(p.stem for p in folder.glob("*.lance"))
    name = asked.table if inside else place.stem
    if name is None:
        if len(known) != 1:
            raise UsageError(f"there are several tables: {', '.join(known)}", where=str(folder), hint="--table NAME")
        name = known[0]
    if name not in known:
        raise UnknownName.of("table", name, known, where=str(folder), hint=f"tables: {', '.join(known)}")
    with unreadable(folder / f"{name}.lance"):
        table = lancedb.connect(str(folder)).open_table(name)
        table.checkout(table.version)
        total = int(table.count_rows())

    def batches() -> Iterator[Any]:
        for batch in table.search().to_batches(BATCH_ROWS):
            if batch.num_rows:
                yield pa.Table.from_batches([batch])

    return table_source(folder / f"{name}.lance", table.schema, total, batches, asked)
