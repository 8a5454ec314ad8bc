"""Ready vectors into the store, what is stored found again, a collection opened, and all vectors read.

Peers store the same ids and vectors: a bare LanceDB table, a Parquet file, a .npy file. Sizes: 20,000 x 384 vectors for
ingest and reading (20 fragments), 200,000 items, or `--rows`, for the resume check and for opening; files on disk too.
"""

from __future__ import annotations

import itertools
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from benches.frame import Contender

from embedder.encoder import load_encoder
from embedder.records import FloatMatrix, Item
from embedder.sourcing import open_source
from embedder.space import Space
from index import build, derived, memory, schema
from index.arriving import Ready, upsert_columns
from index.changes import unchanged
from index.ingest import ingest
from index.known import Known
from index.live import Live
from index.selection import IngestOptions, windows
from index.store import Collection, Store

UNIT = "rows"
DIM, FRAGMENTS, CALL = 384, 20, 50_000
SPACE = Space("hashing:384", DIM, ("text",), {"architecture": "synthetic", "dtype": "float32", "normalize": False})
NARROW = Space("hashing:8", 8, ("text",), {"architecture": "synthetic", "dtype": "float32", "normalize": False})


def contenders(work: Path, options: Namespace) -> list[Contender]:
    """Fill what is read, and return what writes, checks, opens and reads."""
    count, many = (2_000, 5_000) if options.quick else (20_000, options.rows or 200_000)
    rows = np.random.default_rng(0).standard_normal((count, DIM)).astype(np.float32)
    return [*writers(work, rows), *checks(work, many), *files(work, min(many, 50_000)), *readers(work, rows)]


def writers(work: Path, rows: FloatMatrix) -> list[Contender]:
    """Return what writes the vectors once, into a new place each time."""
    ids = [f"pictures/{i:08d}.jpg" for i in range(len(rows))]
    turn = itertools.count()

    def bare() -> int:
        table = lancedb.connect(str(work / f"bare{next(turn)}")).create_table("v", arrow(ids[:0], rows[:0]))
        table.add(arrow(ids, rows))
        return len(rows)

    def alone() -> int:
        vectors = arrow(ids, rows).select(["vector"])
        lancedb.connect(str(work / f"alone{next(turn)}")).create_table("v", vectors.slice(0, 0)).add(vectors)
        return len(rows)

    def columns() -> int:
        table = full(ids, rows)
        lancedb.connect(str(work / f"columns{next(turn)}")).create_table("v", table.slice(0, 0)).add(table)
        return len(rows)

    def ours() -> int:
        collection = Store.open(work / f"ours{next(turn)}", create=True).collection("c", create=True)
        return put(collection, SPACE, ids, rows)

    def parquet() -> int:
        pq.write_table(arrow(ids, rows), work / "rows.parquet")
        return len(rows)

    def npy() -> int:
        np.save(work / "rows.npy", rows)
        return len(rows)

    scope = f"ingest of {len(rows):,} ready vectors"
    return [
        Contender("limit", "numpy, one .npy file without ids", npy, scope),
        Contender("peer", "LanceDB, bare add of ids and vectors", bare, scope),
        Contender("peer", "LanceDB, bare add of vectors alone", alone, scope),
        Contender("peer", "LanceDB, bare add of ids, vectors and the items' columns", columns, scope),
        Contender("peer", "pyarrow, one Parquet file", parquet, scope, "a file, not a store"),
        Contender("us", "permafrost upsert, items and vectors", ours, scope),
    ]


def put(collection: Collection, space: Space, ids: list[str], rows: FloatMatrix, texts: list[str] | None = None) -> int:
    """Upsert ready vectors, 50,000 in each call, and return how many were inserted."""
    collection.add_space(space, {})
    known, done = Known.read(collection, space), 0
    for start in range(0, len(rows), CALL):
        part = slice(start, start + CALL)
        ready = Ready(ids[part], rows[part], "text", "bench", texts=None if texts is None else texts[part])
        done += sum(one.status == "inserted" for one in upsert_columns(collection, space, known, ready))
    return done


def arrow(ids: list[str], rows: FloatMatrix) -> Any:
    """Return ids and vectors as an Arrow table."""
    return pa.table(
        {"id": pa.array(ids, pa.string()), "vector": pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIM)}
    )


def full(ids: list[str], rows: FloatMatrix) -> Any:
    """Return ids, vectors and what else is kept of each item, as an Arrow table."""
    table, count = arrow(ids, rows), len(ids)
    number = pa.array(range(count), pa.int64())
    said = {
        "key": number, "source": pa.array(["bench"] * count), "media_type": pa.array(["text/plain"] * count),
        "content_hash": pa.array([f"{i:064x}" for i in range(count)]), "row_crc": number,
    }  # fmt: skip
    for name, column in said.items():
        table = table.append_column(name, column)
    return table


def checks(work: Path, count: int) -> list[Contender]:
    """Return the resume check over items that are all stored, the source alone, and the opening of a collection."""
    path = work / "many"
    collection = Store.open(path, create=True).collection("c", create=True)
    ids = [f"pictures/{i:08d}.jpg" for i in range(count)]
    narrow = np.random.default_rng(1).standard_normal((count, 8)).astype(np.float32)
    put(collection, NARROW, ids, narrow, [f"text {i}" for i in range(count)])

    def items() -> Iterator[Item]:
        for i, id in enumerate(ids):
            yield Item(id=id, medium="text", source="vectors", text=f"text {i}")

    def check() -> int:
        with memory.settled():
            return compared()

    def compared() -> int:
        known, same = Known.read(collection, NARROW), 0
        for window in windows(items()):
            chosen = [entry for entry in window if isinstance(entry, Item)]
            at = known.picture.facts.find([item.id for item in chosen])
            found, _, _ = unchanged(known.picture.facts, chosen, at)
            same += int((found & known.have(at)).sum())
        return same

    def opened() -> int:
        return len(Live.read(Store.open(path).collection("c")).keys)

    resume = f"resume check of {count:,} items"
    return [
        Contender("limit", "the items made, and nothing asked", lambda: sum(1 for _ in items()), resume),
        Contender("us", "permafrost, the store read and all items compared", check, resume),
        Contender("us", "permafrost, from the path to live keys", opened, f"opening {count:,} items"),
    ]


def files(work: Path, count: int) -> list[Contender]:
    """Return the resume of a folder whose files are all stored, as `embed` does it, and the listing alone."""
    folder = work / "files"
    for i in range(count):
        place = folder / f"{i // 500:05d}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{i:08d}.txt").write_text(f"text {i}", encoding="utf-8")
    encoder = load_encoder("hashing:64", device="cpu")
    collection = Store.open(work / "resumed", create=True).collection("c", create=True)

    def listed() -> int:
        return sum(1 for _ in open_source(str(folder)))

    def resumed() -> int:
        source = open_source(str(folder))
        run = ingest(collection, source, encoder, IngestOptions(), lambda run: None)
        return run.unchanged + run.embedded

    scope = f"resume of {count:,} files"
    return [
        Contender("limit", "the folder listed, each file asked for size and time", listed, scope),
        Contender("us", "permafrost embed, all unchanged", resumed, scope),
    ]


def readers(work: Path, rows: FloatMatrix) -> list[Contender]:
    """Return what reads all vectors: Lance's table in fragments, and the matrix beside the index."""
    collection = Store.open(work / "read", create=True).collection("c", create=True)
    step = len(rows) // FRAGMENTS
    for start in range(0, len(rows), step):
        part = rows[start : start + step]
        put(collection, SPACE, [f"{start + i}" for i in range(len(part))], part)
    build.build(collection, SPACE, kind="flat")
    table = collection.vectors(SPACE)

    def lance() -> int:
        return len(touched(schema.vectors_of(table.search().select(["key", "vector"]).to_arrow())))

    scope = f"all vectors read, {FRAGMENTS} fragments"
    return [
        Contender("peer", "LanceDB, to numpy", lance, scope),
        Contender("us", "permafrost, the memory-mapped matrix", reader(collection), scope),
    ]


def reader(collection: Collection) -> Callable[[], int]:
    """Return what opens the matrix, its checksum known, and reads all of it."""

    def read() -> int:
        loaded = derived.load(collection, SPACE)
        return len(touched(loaded.matrix)) if loaded else 0

    return read


def touched(matrix: FloatMatrix) -> FloatMatrix:
    """Read every number once, so that a mapped file is read too."""
    matrix.sum()
    return matrix
