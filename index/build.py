"""Store to index: the matrix written, a kind built on it, measured against `flat`, and swapped in whole."""

from __future__ import annotations

import shutil
import struct
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from embedder.errors import NothingToDo, Refused
from embedder.records import FloatMatrix, Keys
from embedder.space import Space
from index import derived, files, schema
from index.kinds.flat import Flat
from index.live import Live
from index.store import Collection
from index.view import unit

EXACT_UP_TO = 50_000
PROBES = 200
NEIGHBOURS = 10


@dataclass(frozen=True)
class Built:
    """What was built and what was considered.

    `recall_at_10` is over held-out stored vectors, against exact search; `p50_ms` is the median of single queries.
    `damaged` lists the ids of rows that failed their checksum and were left out.
    """

    index: str
    kind: str
    recall_at_10: float
    p50_ms: float
    bytes: int
    build_seconds: float
    rows: int
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
) -> Built:
    """Build an index over the live vectors of a Space and make it the one that answers.

    Args:
        kind: a kind by name, or `auto`: exact up to 50,000 vectors, unless `latency_ms` asks for less; a graph above.
        recall: least recall@10; an index under it is not swapped in.
        memory: most bytes that a search may hold.
        latency_ms: most milliseconds of the median single query.

    Raises:
        NothingToDo: the collection has no live vectors in this Space.
        Refused: no candidate meets the targets; what was considered is in the message, the old index stays.
        Locked: another build of this Space runs.
    """
    home = derived.folder_of(collection, space)
    with files.lease(collection.lock_path(f"index-{space.fingerprint}"), what=f"the index of {space.short}"):
        _sweep(home)
        folder = home / f".tmp-{time.strftime('%Y%m%dt%H%M%S')}-{time.monotonic_ns() % 10**9:09d}"
        folder.mkdir(parents=True)
        try:
            matrix, damaged = _write_matrix(collection, space, folder)
            targets = _Targets(recall, memory, latency_ms)
            names = [kind] if kind != "auto" else _candidates(len(matrix), targets)
            return _first_good(collection, space, folder, matrix, names, targets, args or {}, seed, damaged)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class _Targets:
    recall: float
    memory: int | None
    latency_ms: float | None


def _candidates(n: int, targets: _Targets) -> list[str]:
    if n <= EXACT_UP_TO:
        return ["flat"] if targets.latency_ms is None else ["flat", "faiss_hnsw"]
    return ["faiss_hnsw", "flat"]


def _first_good(
    collection: Collection, space: Space, folder: Path, matrix: FloatMatrix, names: list[str],
    targets: _Targets, values: Mapping[str, Any], seed: int, damaged: list[str],
) -> Built:  # fmt: skip
    considered: list[dict[str, Any]] = []
    probes, truth = _held_out(matrix, seed)
    for name in names:
        started = time.monotonic()
        kind = derived.kind_of(name)
        args = derived.make_args(kind, values)
        size = kind.estimate_bytes(len(matrix), space.dim, args)
        row: dict[str, Any] = {"kind": name, "bytes": size, "chosen": False}
        considered.append(row)
        if targets.memory is not None and size > targets.memory:
            row["why_not"] = f"needs {size:,} bytes, {targets.memory:,} allowed"
            continue
        kind.build(matrix, folder, args)
        args, found, p50 = _tuned(kind, folder, matrix, args, probes, truth, targets.recall)
        row |= {"recall_at_10": found, "p50_ms": p50, "build_seconds": round(time.monotonic() - started, 3)}
        row["why_not"] = _why_not(found, p50, targets)
        if row["why_not"] is None:
            row["chosen"] = True
            measured = {"recall_at_10": found, "p50_ms": p50, "probes": len(probes), "seed": seed}
            derived.seal(folder, kind=name, args=args, space=space, rows=len(matrix), measured=measured)
            build_name = derived.swap_in(collection, space, folder)
            return Built(build_name, name, found, p50, size, row["build_seconds"], len(matrix), considered, damaged)
        for file in kind.FILES:
            (folder / file).unlink(missing_ok=True)
    table = "; ".join(f"{row['kind']}: {row['why_not']}" for row in considered)
    raise Refused(
        f"no index meets the targets: {table}",
        where=f"collection {collection.name}",
        hint="lower --recall or raise the budget",
    )


def _why_not(found: float, p50: float, targets: _Targets) -> str | None:
    if found < targets.recall:
        return f"recall@10 {found:.3f}, {targets.recall:g} wanted"
    if targets.latency_ms is not None and p50 > targets.latency_ms:
        return f"p50 {p50:.2f} ms, {targets.latency_ms:g} ms wanted"
    return None


def _tuned(
    kind: derived.IndexKind, folder: Path, matrix: FloatMatrix, args: Any,
    probes: NDArray[np.int64], truth: NDArray[np.int64], wanted: float,
) -> tuple[Any, float, float]:  # fmt: skip
    values = [getattr(args, kind.TUNE)] if hasattr(kind, "TUNE") else [None]
    values += [v for v in getattr(kind, "TUNE_VALUES", ()) if v > values[0]]
    for value in values:
        tried = args if value is None else replace(args, **{kind.TUNE: value})  # type: ignore[attr-defined]
        engine = kind.load(folder, matrix, tried)
        found, p50 = _measure(engine, matrix, probes, truth)
        if found >= wanted:
            break
    return tried, found, p50


def _held_out(matrix: FloatMatrix, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    rows = np.sort(np.random.default_rng(seed).permutation(len(matrix))[:PROBES])
    return rows, _others(Flat(matrix), matrix, rows)


def _others(engine: derived.Engine, matrix: FloatMatrix, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the neighbours of stored rows, each row itself left out: (m, 10), -1 where there are fewer."""
    found, _ = engine.search(np.ascontiguousarray(matrix[rows]), NEIGHBOURS + 1)
    out = np.full((len(rows), NEIGHBOURS), -1, dtype=np.int64)
    for i, row in enumerate(rows):
        kept = found[i][(found[i] != row) & (found[i] >= 0)][:NEIGHBOURS]
        out[i, : len(kept)] = kept
    return out


def _measure(
    engine: derived.Engine, matrix: FloatMatrix, rows: NDArray[np.int64], truth: NDArray[np.int64]
) -> tuple[float, float]:
    found = _others(engine, matrix, rows)
    hits = sum(len(np.intersect1d(f[f >= 0], t[t >= 0])) for f, t in zip(found, truth, strict=True))
    times = []
    for row in rows[:50]:
        query = np.ascontiguousarray(matrix[row : row + 1])
        started = time.perf_counter()
        engine.search(query, NEIGHBOURS)
        times.append(time.perf_counter() - started)
    wanted = int((truth >= 0).sum())
    return (hits / wanted if wanted else 1.0), round(float(np.median(times)) * 1000, 3)


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
    for batch in table.search().select(["key", "id", "part", "content_hash", "vector", "row_crc"]).to_batches():
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(pa.array(live.holds(rows["key"].to_numpy())))
        if not rows.num_rows:
            continue
        vectors = schema.vectors_of(rows)
        sound = schema.sound(rows, vectors)
        ids = np.asarray(rows["id"].to_pylist(), dtype=object)
        yield rows["key"].to_numpy()[sound], vectors[sound], list(ids[~sound])


def _sweep(home: Path) -> None:
    for leftover in home.glob(".tmp-*"):
        shutil.rmtree(leftover, ignore_errors=True)
