"""Store to index: the matrix written, a kind built on it, measured against `flat`, and swapped in whole."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa

from embedder.errors import NothingToDo
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import choose, derived, files, schema
from index.live import Live
from index.readers import reading
from index.store import Collection
from index.view import unit


@dataclass(frozen=True)
class Built:
    """What was built and what was considered.

    `recall_at_10` is over held-out stored vectors, against exact search; `p50_ms` is the median of single queries.
    `args` are the kind's, tuned. `considered` has a row for each candidate: `kind args rows bytes build_bytes
    recall_at_10 p50_ms build_seconds chosen why_not`; `rows` says on how many it was measured, None that it was not.
    `damaged` lists the ids of rows that failed their checksum and were left out.
    """

    index: str
    kind: str
    recall_at_10: float
    p50_ms: float
    bytes: int
    build_seconds: float
    rows: int
    args: dict[str, Any]
    considered: list[dict[str, Any]]
    damaged: list[str]


def build(
    collection: Collection,
    space: Space,
    *,
    kind: str = "auto",
    recall: float = 0.95,
    memory: int | None = None,
    latency_ms: float | None = None,
    args: Mapping[str, Any] | None = None,
    seed: int = 0,
    say: Callable[[str], None] = choose.silent,
) -> Built:
    """Build an index over the live vectors of a Space and make it the one that answers.

    Args:
        kind: a kind by name, or `auto`: exact up to 50,000 vectors unless a target rules that out, and above it the
            fastest of the kinds that meet the targets, as `index.choose` measures them.
        recall: least recall@10; an index under it is not swapped in.
        memory: most bytes that a search may hold.
        latency_ms: most milliseconds of the median single query.
        args: arguments of `kind` by name, which are then not tuned.
        seed: of the rows that are held out. Graphs that several threads build differ in spite of it.
        say: is told what is being built, for people who wait.

    Raises:
        NothingToDo: the collection has no live vectors in this Space.
        Refused: no candidate meets the targets; what was considered, and the nearest that is possible, are in the
            message, and the old index stays. Memory is estimated first: nothing is built that would not fit.
        UnknownName, UsageError: the kind or an argument of it does not exist, or has another type.
        Locked: another build of this Space runs.
    """
    home = derived.folder_of(collection, space)
    with files.lease(collection.lock_path(f"index-{space.fingerprint}"), what=f"the index of {space.short}"):
        _sweep(home)
        folder = home / f".tmp-{time.strftime('%Y%m%dt%H%M%S')}-{time.monotonic_ns() % 10**9:09d}"
        folder.mkdir(parents=True)
        try:
            targets = choose.Targets(recall, memory, latency_ms)
            return _chosen(collection, space, folder, kind, args or {}, targets, seed, say)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def _chosen(
    collection: Collection, space: Space, folder: Path, kind: str, args: Mapping[str, Any],
    targets: choose.Targets, seed: int, say: Callable[[str], None],
) -> Built:  # fmt: skip
    with reading(collection):
        matrix, damaged = _write_matrix(collection, space, folder)
    found = choose.choose(matrix, folder, kind, args, targets, seed=seed, where=collection.name, say=say)
    won = found.won
    derived.seal(
        folder,
        kind=won.name,
        args=won.args,
        space=space,
        rows=len(matrix),
        min_selectivity=found.min_selectivity,
        measured=found.measured,
    )
    name = derived.swap_in(collection, space, folder)
    row = won.as_row()
    return Built(
        name, won.name, row["recall_at_10"], row["p50_ms"], row["bytes"], row["build_seconds"], len(matrix),
        row["args"], [c.as_row() for c in found.considered], damaged,
    )  # fmt: skip


def _write_matrix(collection: Collection, space: Space, folder: Path) -> tuple[FloatMatrix, list[str]]:
    table = collection.vectors(space)
    live = Live.read(collection)
    keys: list[Keys] = []
    damaged: list[str] = []
    with open(folder / derived.MATRIX, "wb") as out:
        # the header has one size for any number of rows, so it can be written again when they are counted
        _npy_header(out, 0, space.dim)
        for part, vectors, bad in _sound_rows(table, live):
            damaged += bad
            keys.append(part)
            out.write(unit(vectors).tobytes())
        rows = sum(map(len, keys))
        out.seek(0)
        _npy_header(out, rows, space.dim)
    if not rows:
        raise NothingToDo("there are no vectors to index", where=f"collection {collection.name}, Space {space}")
    np.save(folder / derived.KEYS, np.concatenate(keys))
    return np.load(folder / derived.MATRIX, mmap_mode="r", allow_pickle=False), damaged


def _npy_header(out: BinaryIO, rows: int, dim: int) -> None:
    text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {dim}), }}".ljust(117) + "\n"
    out.write(np.lib.format.magic(1, 0) + struct.pack("<H", len(text)) + text.encode("latin1"))


def _sound_rows(table: Any, live: Live) -> Iterator[tuple[Keys, FloatMatrix, list[str]]]:
    for batch in table.search().select(list(schema.CHECKED)).to_batches():
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(pa.array(live.holds(rows["key"].to_numpy())))
        if not rows.num_rows:
            continue
        vectors = schema.vectors_of(rows)
        sound = schema.sound(rows)
        ids = np.asarray(rows["id"].to_pylist(), dtype=object)
        yield rows["key"].to_numpy()[sound], vectors[sound], list(ids[~sound])


def _sweep(home: Path) -> None:
    for leftover in home.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
