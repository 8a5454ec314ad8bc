"""Recall under filters, as a table: `python -m tests.index.filtered [KIND…]` prints it for the kinds that there are.

Vectors are points around centres. A `random` filter keeps rows whatever they are; a `correlated` one keeps those of the
centres furthest from the queries' own, where graphs and lists have the least to walk on.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from embedder import kinds
from embedder.records import Decoded, Item
from index import build, commit
from index.search import search
from index.view import View
from tests.index.tools import fresh, planted

DIM, CENTRES, K = 32, 40, 10
SELECTIVITIES = (0.5, 0.1, 0.01, 0.001, 0.0001)


@dataclass(frozen=True)
class Cell:
    """What one kind does under one filter: mean recall@10 over the queries, fewest hits of those wanted, and how."""

    kind: str
    filter: str
    selectivity: float
    allowed: int
    recall: float
    fewest: int
    wanted: int
    index: str


def present() -> list[str]:
    """The kinds that work on any machine."""
    return [name for name in kinds.names("index.kinds") if "gpu" not in name]


def points(n: int, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Unit vectors (n, 32) and the centre of each, numbered by their distance from centre 0."""
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(CENTRES, DIM))
    centres = centres[np.argsort(-(centres @ centres[0]))]
    which = chance.integers(0, CENTRES, n)
    rows = centres[which] + 0.7 * chance.normal(size=(n, DIM))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), np.float32), which


def filled(folder: Path, n: int) -> tuple[View, NDArray[np.float32]]:
    """A collection whose columns `random` and `correlated` hold each row's place among n in either order."""
    rows, which = points(n)
    chance = np.random.default_rng(1)
    places = {"random": chance.permutation(n), "correlated": np.empty(n, dtype=np.int64)}
    places["correlated"][np.argsort(-which, kind="stable")] = np.arange(n)
    collection, space = fresh(folder), planted(DIM).space
    collection.add_space(space, {})
    commit.ensure_columns(collection, dict.fromkeys(places, "int"))
    known = commit.Known.read(collection, space)
    for start in range(0, n, 10_000):
        part = range(start, min(n, start + 10_000))
        items = [Item(f"{i}", "text", "r", text="t", columns={c: int(p[i]) for c, p in places.items()}) for i in part]
        batch = [Decoded(item, f"{int(item.id):064x}", item.text, size=1) for item in items]
        commit.commit(collection, space, known, batch, rows[part.start : part.stop])
    return View(collection, space), rows


def cells(kind: str, view: View, rows: NDArray[np.float32], queries: int = 30) -> Iterator[Cell]:
    """Build a kind and search it under every filter, against brute force over the allowed rows."""
    build.build(view.collection, view.space, kind=kind)
    n = len(rows)
    table = view.collection.items.search().select(["id", "random", "correlated"]).to_arrow().to_pydict()
    place = {c: np.empty(n, dtype=np.int64) for c in ("random", "correlated")}
    for column, values in place.items():
        values[np.asarray(table["id"], dtype=np.int64)] = table[column]
    asked = points(n + queries)[0][n:]
    for column in place:
        for share in SELECTIVITIES:
            allowed = np.flatnonzero(place[column] < share * n)
            if not len(allowed):
                continue
            answers = search(view, asked, k=K, where=f"{column} < {round(share * n)}")
            wanted = min(K, len(allowed))
            truth = allowed[np.argsort(-(asked @ rows[allowed].T), axis=1)[:, :wanted]]
            found = [{int(hit.id) for hit in one.hits} for one in answers]
            assert all(f <= set(allowed.tolist()) for f in found), "a hit does not pass the filter"
            recall = float(np.mean([len(f & set(t.tolist())) / wanted for f, t in zip(found, truth, strict=True)]))
            yield Cell(kind, column, share, len(allowed), recall, min(map(len, found)), wanted, answers[0].index)


def main(names: list[str], n: int = 20_000) -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        view, rows = filled(Path(folder), n)
        print(f"{n:,} x {DIM}, recall@{K}\nkind              filter      share     rows  recall  hits   answered by")
        for kind in names:
            for c in cells(kind, view, rows):
                facts = f"{c.selectivity:<8.2%} {c.allowed:>5}  {c.recall:.3f}  {c.fewest}/{c.wanted:<4}"
                print(f"{c.kind:<17} {c.filter:<10}  {facts} {c.index}")


if __name__ == "__main__":
    main(sys.argv[1:] or present())
