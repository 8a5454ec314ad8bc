"""Small stores for tests: a planted encoder whose vectors can be computed by hand, and sources made of lists."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import Encoder, TextTower
from embedder.naming import EncoderName
from embedder.records import Failure, FloatMatrix, Item, Medium
from embedder.space import Space
from index.ingest import Run, ingest
from index.selection import IngestOptions
from index.store import Collection, Store
from index.view import View

DIM = 8


def planted_vector(text: str, dim: int = DIM, salt: str = "") -> NDArray[np.float32]:
    """A unit vector that depends on the text alone; texts that begin with `zero` or `nan` break."""
    if text.startswith("zero"):
        return np.zeros(dim, dtype=np.float32)
    if text.startswith("nan"):
        return np.full(dim, np.nan, dtype=np.float32)
    seed = int.from_bytes(hashlib.sha256((salt + text).encode()).digest()[:8], "little")
    vector = np.random.default_rng(seed).normal(size=dim)
    return np.asarray(vector / np.linalg.norm(vector), dtype=np.float32)


def planted(dim: int = DIM, salt: str = "") -> Encoder:
    """A text encoder of planted vectors; `salt` makes another Space of the same dimension."""
    identity = {"architecture": "planted", "weights": {"sha256": salt or "none"}, "normalize": True, "dtype": "float32"}
    tower = TextTower(
        tokenize=lambda text, role: text,
        length=lambda text: len(text),
        forward=lambda texts: np.stack([planted_vector(t, dim, salt) for t in texts]),
        max_chars=1000,
    )
    name = EncoderName("hashing", f"{dim}")
    return Encoder(name, Space(f"planted:{salt}{dim}", dim, ("text",), identity), "cpu", text=tower)


class Rows:
    """A source of texts by id, with columns."""

    medium: Medium = "text"

    def __init__(
        self,
        rows: Mapping[str, str] | Sequence[tuple[str, str]],
        columns: Mapping[str, Mapping[str, Any]] | None = None,
        types: Mapping[str, str] | None = None,
        root: str = "rows",
    ) -> None:
        self.rows = list(rows.items()) if isinstance(rows, Mapping) else list(rows)
        self.values = columns or {}
        self.columns = types or {}
        self.root = root

    def __len__(self) -> int:
        return len(self.rows)

    def __iter__(self) -> Iterator[Item | Failure]:
        for id, text in self.rows:
            columns = {name: self.values.get(id, {}).get(name) for name in self.columns}
            yield Item(id=id, medium="text", source=f"{self.root}#{id}", text=text, columns=columns)


def fresh(folder: Path, name: str = "c") -> Collection:
    return Store.open(folder / "store", create=True).collection(name, create=True)


def run(collection: Collection, source: Any, encoder: Encoder | None = None, **options: Any) -> Run:
    return ingest(collection, source, encoder or planted(), IngestOptions(**options), lambda r: None)


def filled(folder: Path, n: int = 50, name: str = "c", **kwargs: Any) -> Collection:
    collection = fresh(folder, name)
    run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(n)}, **kwargs))
    return collection


def view(collection: Collection) -> View:
    return View(collection, collection.space())


def contents(collection: Collection, space: Space) -> dict[str, tuple[str, bytes]]:
    """What the store holds, by id: content hash and vector bytes, of live rows; fails on a doubled row."""
    items = {r["key"]: r for r in collection.items.search().to_arrow().to_pylist()}
    assert len({r["id"] for r in items.values()}) == len(items)
    rows = collection.vectors(space).search().to_arrow().to_pylist()
    alive = [r for r in rows if r["key"] in items]
    assert len({r["key"] for r in alive}) == len(alive), "a key has two vectors"
    assert all(items[r["key"]]["id"] == r["id"] for r in alive)
    return {r["id"]: (items[r["key"]]["content_hash"], np.asarray(r["vector"], "<f4").tobytes()) for r in alive}


def brute(vectors: Mapping[str, FloatMatrix], query: NDArray[np.float32], k: int) -> list[tuple[str, float]]:
    """The k best by a plain loop in double precision."""
    unit = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    scores = [
        (id, float(np.dot(v.astype(np.float64), unit) / np.linalg.norm(v.astype(np.float64))))
        for id, v in vectors.items()
    ]
    return sorted(scores, key=lambda pair: -pair[1])[:k]
