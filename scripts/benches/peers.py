"""What a user would take instead: each is built on the same vectors and tuned to the same recall."""

from __future__ import annotations

import importlib
import importlib.util
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import faiss
import lancedb
import numpy as np
import pyarrow as pa
from lancedb.index import IvfPq
from numpy.typing import NDArray

from embedder.records import FloatMatrix

LINKS, BREADTH = 32, 64
BREADTHS = (16, 32, 64, 128, 256, 512, 1024)
Find = Callable[[FloatMatrix, int], NDArray[np.int64]]


@dataclass(frozen=True)
class Peer:
    """How to search, what trades recall for time (fastest first), how to set it, and how long the build took."""

    name: str
    find: Find
    values: Sequence[int]
    set: Callable[[int], None]
    build_seconds: float


def tuned(peer: Peer, queries: FloatMatrix, truth: NDArray[np.int64], wanted: float) -> tuple[float, int]:
    """Set the least value that reaches the recall on these queries; return the recall and the value."""
    found, k = 0.0, truth.shape[1]
    for value in peer.values:
        peer.set(value)
        found = recall(peer.find(queries, k), truth)
        if found >= wanted:
            break
    return found, value


def recall(found: NDArray[np.int64], truth: NDArray[np.int64]) -> float:
    """Return the share of the true neighbours that were found."""
    return float(np.mean([len(np.intersect1d(f, t)) / len(t) for f, t in zip(found, truth, strict=True)]))


def built(work: Path, rows: FloatMatrix) -> list[Peer]:
    """Build every peer that is installed."""
    makers = {"hnswlib": hnswlib, "usearch": usearch}
    there = [make(rows) for name, make in makers.items() if importlib.util.find_spec(name)]
    return [*there, lance_pq(work, rows)]


def hnswlib(rows: FloatMatrix) -> Peer:
    """Return hnswlib's graph."""
    library, started = importlib.import_module("hnswlib"), time.perf_counter()
    graph = library.Index(space="ip", dim=rows.shape[1])
    graph.init_index(max_elements=len(rows), M=LINKS // 2, ef_construction=BREADTH, random_seed=0)
    graph.set_num_threads(faiss.omp_get_max_threads())
    graph.add_items(rows)
    seconds = time.perf_counter() - started
    return Peer("hnswlib", lambda q, k: graph.knn_query(q, k)[0].astype(np.int64), BREADTHS, graph.set_ef, seconds)


def usearch(rows: FloatMatrix) -> Peer:
    """Return usearch's graph over half precision."""
    library, started = importlib.import_module("usearch.index"), time.perf_counter()
    threads = faiss.omp_get_max_threads()
    graph = library.Index(ndim=rows.shape[1], metric="ip", dtype="f16", connectivity=LINKS // 2, expansion_add=BREADTH)
    graph.add(np.arange(len(rows)), rows, threads=threads)
    seconds = time.perf_counter() - started

    def find(queries: FloatMatrix, k: int) -> NDArray[np.int64]:
        return np.asarray(graph.search(queries, k, threads=threads).keys, dtype=np.int64).reshape(len(queries), k)

    return Peer("usearch f16", find, BREADTHS, lambda ef: setattr(graph, "expansion_search", ef), seconds)


def lance_table(work: Path, rows: FloatMatrix, name: str) -> Any:
    """Return a LanceDB table of the vectors, with the column that filters ask for."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), rows.shape[1])
    positions = np.arange(len(rows))
    data = pa.table({"id": pa.array(positions), "part": pa.array(positions % 1000), "vector": vectors})
    return lancedb.connect(str(work / "lance")).create_table(name, data)


def lance_find(
    table: Any, queries: FloatMatrix, k: int, refine: int = 0, where: str | None = None
) -> NDArray[np.int64]:
    """Return LanceDB's answers, a query at a time: by its index with a refine, or without one by a scan."""
    out = []
    for query in queries:
        search = table.search(query).distance_type("dot").limit(k).select(["id", "_distance"])
        search = search.nprobes(refine).refine_factor(10) if refine else search.bypass_vector_index()
        found = (search.where(where, prefilter=True) if where else search).to_arrow()["id"].to_numpy()
        out.append(np.pad(found, (0, k - len(found)), constant_values=-1))
    return np.array(out)


def lance_pq(work: Path, rows: FloatMatrix) -> Peer:
    """Return LanceDB's index of product codes, refined; its probes are tuned."""
    table, probes = lance_table(work, rows, "indexed"), [20]
    started = time.perf_counter()
    parts = max(1, min(len(rows) // 256, 256))
    table.create_index("vector", config=IvfPq(distance_type="dot", num_partitions=parts))
    seconds = time.perf_counter() - started

    def choose(value: int) -> None:
        probes[0] = value

    steps = sorted({min(parts, p) for p in (20, 60, 150, parts)})
    return Peer("LanceDB IVF_PQ", lambda q, k: lance_find(table, q, k, probes[0]), steps, choose, seconds)
