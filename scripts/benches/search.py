"""Nearest neighbours of stored vectors: one query at a time, and a hundred at once.

The vectors are synthetic: points around 2,000 centres, a hundred queries among them, so that neighbours exist and
graphs have something to find.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import faiss
import lancedb
import numpy as np
import pyarrow as pa
from benches.frame import Contender
from numpy.typing import NDArray

from embedder.records import Decoded, FloatMatrix, Item
from embedder.space import Space
from index import build, commit
from index.search import search
from index.store import Collection, Store
from index.view import View

UNIT = "queries"
DIM, K = 384, 10
Answers = Callable[[FloatMatrix], NDArray[np.int64]]


def contenders(work: Path, *, quick: bool) -> list[Contender]:
    """Fill a store, an array, a faiss index and a Lance table with the same vectors, and return what searches them."""
    rows, queries = clustered(5_000 if quick else 50_000, 20 if quick else 100)
    flat, graph = indexed(work, rows, "flat"), indexed(work, rows, "faiss_hnsw")
    exact = faiss.IndexFlatIP(DIM)
    exact.add(rows)
    lance = lance_table(work, rows)
    truth = np.argsort(-(queries @ rows.T), axis=1, kind="stable")[:, :K]
    return [
        *both("limit", "numpy, one product and a partial sort", lambda q: brute(rows, q), queries, truth),
        *both("peer", "faiss Flat", lambda q: np.asarray(exact.search(q, K)[1]), queries, truth),
        *both("peer", "LanceDB, exact scan", lambda q: scanned(lance, q), queries, truth),
        *both("us", "permafrost search, flat", lambda q: answers(flat, q), queries, truth),
        *both("us", "permafrost search, faiss_hnsw", lambda q: answers(graph, q), queries, truth),
    ]


def both(role: Any, name: str, find: Answers, queries: FloatMatrix, truth: NDArray[np.int64]) -> list[Contender]:
    """Return a contender that asks one query at a time and one that asks all at once, with the recall they reach."""
    found = find(queries)
    recall = np.mean([len(np.intersect1d(f, t)) / K for f, t in zip(found, truth, strict=True)])
    note = f"recall@{K} {recall:.3f}"

    def singly() -> int:
        return sum(len(find(queries[i : i + 1])) for i in range(len(queries)))

    def together() -> int:
        return len(find(queries))

    return [
        Contender(role, name, singly, "one query at a time", note),
        Contender(role, name, together, f"{len(queries)} queries at once", note),
    ]


def clustered(count: int, queries: int) -> tuple[FloatMatrix, FloatMatrix]:
    """Return unit vectors (count, 384) and (queries, 384) around shared centres."""
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((2000, DIM)).astype(np.float32)
    near = centres[chance.integers(0, len(centres), count + queries)]
    points = near + 0.8 * chance.standard_normal((count + queries, DIM)).astype(np.float32)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    return points[:count], points[count:]


def filled(collection: Collection, rows: FloatMatrix) -> Space:
    """Commit the vectors as texts of a Space made for this; ids are their positions."""
    space = Space("hashing:384", DIM, ("text",), {"architecture": "synthetic", "dtype": "float32", "normalize": True})
    collection.add_space(space, {})
    known = commit.Known.read(collection, space)
    for start in range(0, len(rows), 10_000):
        part = rows[start : start + 10_000]
        batch = []
        for i in range(start, start + len(part)):
            item = Item(id=str(i), medium="text", source="bench", text=f"text {i}")
            batch.append(Decoded(item, f"{i:064x}", item.text, size=len(str(item.text))))
        commit.commit(collection, space, known, batch, part)
    return space


def indexed(work: Path, rows: FloatMatrix, kind: str) -> View:
    """Return a view of a collection of its own that is answered from an index of one kind."""
    collection = Store.open(work / "store", create=True).collection(kind, create=True)
    space = filled(collection, rows)
    build.build(collection, space, kind=kind)
    return View(collection, space)


def answers(view: View, queries: FloatMatrix) -> NDArray[np.int64]:
    """Return the positions that our search answers with."""
    found = search(view, queries, k=K)
    return np.array([[int(hit.id) for hit in answer.hits] for answer in found])


def brute(rows: FloatMatrix, queries: FloatMatrix) -> NDArray[np.int64]:
    """Return the nearest rows by one matrix product, sorted."""
    scores = queries @ rows.T
    best = np.argpartition(-scores, K, axis=1)[:, :K]
    order = np.argsort(-np.take_along_axis(scores, best, axis=1), axis=1)
    return np.take_along_axis(best, order, axis=1)


def lance_table(work: Path, rows: FloatMatrix) -> Any:
    """Return a LanceDB table of the same vectors, without an index."""
    vectors = pa.FixedSizeListArray.from_arrays(pa.array(rows.reshape(-1)), DIM)
    data = pa.table({"id": pa.array(np.arange(len(rows))), "vector": vectors})
    return lancedb.connect(str(work / "lance")).create_table("vectors", data)


def scanned(table: Any, queries: FloatMatrix) -> NDArray[np.int64]:
    """Return LanceDB's exact answers, a query at a time: it has no other way."""
    found = [table.search(q).distance_type("cosine").limit(K).select(["id", "_distance"]).to_arrow() for q in queries]
    return np.array([answer["id"].to_pylist() for answer in found])
