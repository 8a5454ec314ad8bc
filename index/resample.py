"""A random sample of stored vectors, made again from their sources and compared: does the store say what it says?"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from lancedb import col

from embedder.encoder import Encoder
from embedder.extract import extract
from embedder.pool import DecodePool
from embedder.records import Failure, FloatMatrix, Item, Keys, Medium, Vectors
from embedder.space import Space
from embedder.stages import Stages
from index import schema
from index.audit import AGAIN, Verdict
from index.itself import item_of, medium_of
from index.known import KeySet
from index.store import Collection, scan

HALF = ("float16", "bfloat16")


@dataclass
class Resampled:
    """How many items were made again, the lowest cosine among them, and why others were not, by count."""

    compared: int = 0
    lowest: float | None = None
    skipped: Counter[str] = field(default_factory=Counter)


def floor(space: Space) -> float:
    """Return the cosine that a vector made again must reach: 0.9999, or 0.999 in half precision."""
    return 0.999 if space.dtype in HALF else 0.9999


def draw(collection: Collection, space: Space, count: int, seed: int) -> list[dict[str, Any]]:
    """Return the rows of up to `count` items that have a vector in this Space, drawn by `seed`."""
    keys = np.sort(scan(collection.items, ["key"])["key"].to_numpy().astype(np.int64))
    keys = keys[KeySet.read(collection, space).holds(keys)]
    chosen = np.random.default_rng(seed).choice(keys, size=min(count, len(keys)), replace=False)
    if not len(chosen):
        return []
    rows: list[dict[str, Any]] = (
        collection.items.search().where(col("key").isin(chosen.tolist())).to_arrow().to_pylist()
    )
    return sorted(rows, key=lambda row: int(row["key"]))


def resample(
    collection: Collection, space: Space, encoder: Encoder, rows: Sequence[Mapping[str, Any]], verdict: Verdict
) -> Resampled:
    """Make the vectors of these items again and compare them with the stored ones; differences go into the verdict.

    What is not here any more, or has another size, time or content, is counted under its reason and is no problem.
    """
    result = Resampled()
    by_id = {row["id"]: row for row in rows}
    stored = _stored(collection, space, np.array([row["key"] for row in rows], dtype=np.int64))
    name = schema.VECTORS + space.fingerprint
    for medium in ("text", "image"):
        items = _reachable(collection, [row for row in rows if medium_of(row) == medium], result)
        for found in _encoded(items, encoder, medium):
            for id, content_hash, made in _pieces(found, result):
                if content_hash != by_id[id]["content_hash"]:
                    result.skipped["changed since it was embedded"] += 1
                    continue
                numbers, vectors = stored[by_id[id]["key"]]
                cosine = _cosine(made, vectors)
                result.compared += 1
                result.lowest = cosine if result.lowest is None else min(result.lowest, cosine)
                if not cosine >= floor(space):
                    what = f"a vector is not what its encoder makes of it: cosine {cosine:.4f}"
                    for number in numbers:
                        verdict.report(what, name, AGAIN, id, number)
    return result


def _reachable(collection: Collection, rows: Sequence[Mapping[str, Any]], result: Resampled) -> list[Item]:
    items = []
    for row in rows:
        item = item_of(row, collection)
        if isinstance(item, Failure):
            result.skipped["its source is not here"] += 1
        elif item.remote is not None:
            result.skipped["its source is elsewhere"] += 1
        elif item.path is not None and (item.size, item.mtime_ns) != (row["size"], row["mtime_ns"]):
            result.skipped["changed since it was embedded"] += 1
        else:
            items.append(item)
    return items


def _encoded(items: Sequence[Item], encoder: Encoder, medium: Medium) -> list[Vectors | Failure]:
    if not items:
        return []
    if medium == "text":
        return list(extract(items, encoder, medium, pool=None, batch_size=None, stages=Stages()))
    with DecodePool(1) as pool:
        return list(extract(items, encoder, medium, pool=pool, batch_size=None, stages=Stages()))


def _pieces(found: Vectors | Failure, result: Resampled) -> list[tuple[str, str, FloatMatrix]]:
    if isinstance(found, Failure):
        result.skipped[f"{found.stage}: {found.reason}"] += 1
        return []
    sizes = found.parts or (1,) * len(found.decoded)
    arrays = np.split(found.array, np.cumsum(sizes)[:-1])
    return [(d.item.id, d.content_hash, array) for d, array in zip(found.decoded, arrays, strict=True)]


def _stored(collection: Collection, space: Space, keys: Keys) -> dict[int, tuple[list[int], FloatMatrix]]:
    """Return the row ids and vectors (parts, dim) of each key, part after part."""
    if not len(keys):
        return {}
    query = collection.vectors(space).search().where(col("key").isin(keys.tolist()))
    rows = query.select(["key", "part", "vector"]).with_row_id(True).to_arrow().sort_by("part")
    owner, vectors, numbers = rows["key"].to_numpy(), schema.vectors_of(rows), rows["_rowid"].to_numpy()
    return {int(key): (numbers[owner == key].tolist(), vectors[owner == key]) for key in keys}


def _cosine(made: FloatMatrix, stored: FloatMatrix) -> float:
    """Return the lowest cosine of the parts; -1 where there is another number of them."""
    if made.shape != stored.shape:
        return -1.0
    left, right = made.astype(np.float64), stored.astype(np.float64)
    with np.errstate(invalid="ignore", divide="ignore"):
        cosines = (left * right).sum(axis=1) / (np.linalg.norm(left, axis=1) * np.linalg.norm(right, axis=1))
    return float(np.nan_to_num(cosines, nan=-1.0).min())
