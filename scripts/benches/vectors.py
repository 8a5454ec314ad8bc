"""The vectors that searches are compared on, and a collection that holds them."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from embedder.records import Decoded, FloatMatrix, Item
from embedder.space import Space
from index import build, choose, commit, schema
from index.store import Collection, Store, scan
from index.view import View, unit

DIM = 384
BETWEEN = 0.5


def planted(count: int, queries: int) -> tuple[FloatMatrix, FloatMatrix]:
    """Return unit vectors (count, 384) and queries (queries, 384) around centres that overlap.

    Every point lies between two points near one of the centres, so that neighbours are as graded as in real Spaces.
    """
    chance = np.random.default_rng(0)
    centres = chance.standard_normal((max(200, count // 25), DIM), dtype=np.float32)
    total = count + queries
    near = chance.integers(0, len(centres), (2, total))
    share = BETWEEN * chance.random((total, 1), dtype=np.float32)
    points = (1 - share) * centres[near[0]] + share * centres[near[1]]
    points += np.float32(0.6) * chance.standard_normal((total, DIM), dtype=np.float32)
    points = unit(points)
    return points[:count], points[count:]


def stored(path: Path, queries: int) -> tuple[FloatMatrix, FloatMatrix]:
    """Return the vectors of a collection's default Space, given as STORE/COLLECTION; some are kept back as queries."""
    collection = Store.open(path.parent).collection(path.name)
    table = collection.vectors(collection.space())
    vectors = unit(schema.vectors_of(scan(table, ["vector"])))
    vectors = vectors[np.random.default_rng(0).permutation(len(vectors))]
    return np.ascontiguousarray(vectors[queries:]), np.ascontiguousarray(vectors[:queries])


def filled(work: Path, rows: FloatMatrix) -> Collection:
    """Commit the vectors as texts of a Space made for this; ids are positions, `part` is the position mod 1,000."""
    collection = Store.open(work / "store", create=True).collection("vectors", create=True)
    identity = {"architecture": "synthetic", "dtype": "float32", "normalize": True}
    space = Space(f"hashing:{rows.shape[1]}", rows.shape[1], ("text",), identity)
    collection.add_space(space, {})
    commit.ensure_columns(collection, {"part": "int"})
    known = commit.Known.read(collection, space)
    for start in range(0, len(rows), 10_000):
        part = rows[start : start + 10_000]
        batch = []
        for i in range(start, start + len(part)):
            item = Item(id=str(i), medium="text", source="bench", text=f"text {i}", columns={"part": i % 1000})
            batch.append(Decoded(item, f"{i:064x}", item.text, size=len(str(item.text))))
        commit.commit(collection, space, known, batch, part)
    return collection


def indexed(work: Path, collection: Collection, kind: str, recall: float) -> View:
    """Return a view of a copy of the collection that is answered from an index of one kind, tuned to a recall."""
    path = work / kind
    shutil.copytree(work / "store", path)
    copy = Store.open(path).collection(collection.name)
    wanted = 1.0 if kind == "flat" else recall
    build.build(copy, copy.space(), kind=kind, recall=wanted, say=choose.silent)
    return View(copy, copy.space())
