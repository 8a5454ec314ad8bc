"""The tables of format 2 with the checksums of format 3, a table in one commit, tags included.

A row that fails its old checksum fails its new one too, so that `verify` still names it. The old tables are kept aside
by hard links; a purge removes them.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedder.space import canonical_json
from index import files, schema, tags
from index.checksums import SUM, row_sums
from index.store import Collection

ROWS = 8192


def resum(folder: Path, kept: Path) -> None:
    """Write the tables of a collection, and those of its tags, anew; `kept` is where the old ones stay."""
    for home in [folder, *(mark.parent for mark in folder.glob(f"{tags.HOME}/[!.]*/{tags.MARK}"))]:
        collection = Collection(home)
        for name in collection.tables():
            _keep(home / f"{name}.lance", kept / home.relative_to(folder) / f"{name}.lance")
            _resum_table(collection, name)


def old_sums(rows: Any) -> NDArray[np.int64]:
    """Return the crc32 (n,) that format 2 had in `row_crc`: of items over JSON, of vectors over text and bytes."""
    records = rows.drop_columns([SUM]).to_pylist()
    if "vector" not in rows.column_names:
        said = [canonical_json({k: v for k, v in row.items() if v is not None}) for row in records]
        return np.array([zlib.crc32(text.encode()) for text in said], dtype=np.int64)
    heads = [f"{r['key']}\0{r['part']}\0{r['content_hash']}\0{r['id']}\0".encode() for r in records]
    vectors = np.ascontiguousarray(schema.vectors_of(rows), dtype="<f4")
    both = zip(heads, vectors, strict=True)
    return np.array([zlib.crc32(row.tobytes(), zlib.crc32(head)) for head, row in both], dtype=np.int64)


def _resum_table(collection: Collection, name: str) -> None:
    table = collection.table(name)
    wanted = table.schema
    if SUM not in wanted.names:
        wanted = wanted.append(pa.field(SUM, pa.int64(), nullable=False))
    elif all(schema.sound(pa.Table.from_batches([rows])).all() for rows in table.search().to_batches(ROWS)):
        return
    files.checkpoint("migrate:table")
    batches = pa.RecordBatchReader.from_batches(wanted, _batches(table, wanted))
    collection.db.create_table(name, data=batches, mode="overwrite")
    tags.drop_history(collection.table(name))


def _batches(table: Any, wanted: Any) -> Iterator[Any]:
    for batch in table.search().to_batches(ROWS):
        rows = pa.Table.from_batches([batch])
        sums = row_sums(rows)
        if SUM in rows.column_names and rows.num_rows:
            # a killed step may have summed this table before
            stored = rows[SUM].to_numpy()
            sound = (stored == sums) | (stored == old_sums(rows))
            sums = np.where(sound, sums, sums ^ 1)
        columns = {name: pa.array(sums) if name == SUM else rows[name] for name in wanted.names}
        yield from pa.table(columns, schema=wanted).to_batches()


def _keep(table: Path, kept: Path) -> None:
    if kept.exists():
        return
    aside = kept.with_name(f"{tags.ASIDE}{kept.name}")
    shutil.rmtree(aside, ignore_errors=True)
    tags.share(table, aside)
    aside.rename(kept)
