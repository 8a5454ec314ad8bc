"""Ready vectors with their Space, straight into the store: one status for each, the last of an id wins."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
from lancedb import col

from embedder.errors import UsageError
from embedder.records import Decoded, FloatMatrix, Item, Medium
from embedder.space import Space
from index import commit, schema
from index.known import NONE, Known, Mask
from index.store import Collection

MOST, SOURCE = 50_000, "vectors"


class Status(NamedTuple):
    """What became of one vector; `reason` where it failed. `superseded`: a later one of the same call has its id."""

    id: str
    status: Literal["stored", "unchanged", "superseded", "failed"]
    reason: str = ""


def upsert_vectors(
    collection: Collection,
    space: Space,
    ids: Sequence[str],
    vectors: FloatMatrix,
    *,
    texts: Sequence[str] | None = None,
    columns: Mapping[str, Sequence[Any]] | None = None,
    types: Mapping[str, str] | None = None,
    medium: Medium = "text",
    source: str | None = None,
    known: Known | None = None,
) -> list[Status]:
    """Store one vector for each item, in one commit for every 50,000.

    An id that is stored with the same text, or without one, and the same vector is unchanged; with another vector it
    is a new version of the item, whose vectors in other Spaces are dead from then on.

    Args:
        vectors: (n, dim), finite and not zero; a row that is not fails alone.
        texts: the content, if there is any.
        columns: (n,) values of the user's columns; `types` maps those that are new to string, int, float or bool.
        source: where they come from; an item that is stored keeps its own where none is given.
        known: what is stored, as of earlier calls of this process; it is read where it is not given.

    Returns:
        a status (n,) for each vector, in their order.

    Raises:
        UsageError: another number of vectors, texts or values than ids, or another dimension than the Space has.
    """
    said = dict(columns or {})
    array = _checked(space, ids, vectors, [*said.values(), *([] if texts is None else [texts])])
    usable = _usable(array)
    last = {id: i for i, id in enumerate(ids)}
    chosen = np.array([i for i in last.values() if usable[i]], dtype=np.int64)
    known = _opened(collection, space, types or {}, known)
    stored: set[int] = set()
    for start in range(0, len(chosen), MOST):
        places = chosen[start : start + MOST].tolist()
        whole = {**said, "id": ids, **({} if texts is None else {"text": texts})}
        fresh = {name: [values[i] for i in places] for name, values in whole.items()}
        if _all_new(collection, space, known, fresh, array[places], medium, source):
            stored.update(places)
            continue
        batch = [_ready(ids[i], _at(texts, i), {n: v[i] for n, v in said.items()}, medium, source) for i in places]
        batch, renewed = _versions(collection, space, known, batch, array[places], keep_source=source is None)
        new = commit.commit(collection, space, known, batch, array[places], renewed=renewed)
        stored.update(chosen[start : start + MOST][new].tolist())
    return [_status(id, i, last, usable, stored) for i, id in enumerate(ids)]


def _usable(array: FloatMatrix) -> Mask:
    norms = np.linalg.norm(array, axis=1)
    usable: Mask = np.isfinite(norms) & (norms > 0)
    return usable


def _opened(collection: Collection, space: Space, types: Mapping[str, str], known: Known | None) -> Known:
    commit.ensure_columns(collection, types)
    if not collection.has_space(space):
        collection.add_space(space, {})
    return known or Known.read(collection, space)


def _checked(space: Space, ids: Sequence[str], vectors: FloatMatrix, others: Sequence[Sequence[Any]]) -> FloatMatrix:
    array = np.ascontiguousarray(vectors, dtype=np.float32)
    if array.shape != (len(ids), space.dim) or any(len(values) != len(ids) for values in others):
        raise UsageError(f"{len(ids)} ids came with vectors of shape {array.shape}, or too few values; dim {space.dim}")
    return array


def _status(id: str, place: int, last: Mapping[str, int], usable: Mask, stored: set[int]) -> Status:
    if last[id] != place:
        return Status(id, "superseded")
    if not usable[place]:
        return Status(id, "failed", "the vector is not finite or has zero norm")
    return Status(id, "stored" if place in stored else "unchanged")


def _all_new(
    collection: Collection, space: Space, known: Known, columns: dict[str, Any], array: FloatMatrix, medium: Medium,
    source: str | None,
) -> bool:  # fmt: skip
    """Store the items where none of them is here: without a Python object for each."""
    count, texts = len(array), columns.get("text")
    if (known.picture.facts.find(columns["id"]) >= 0).any():
        return False
    flat, step = array.reshape(-1).view(np.uint8).data, 4 * array.shape[1]
    starts = range(0, count * step, step)
    data = [flat[at : at + step] for at in starts] if texts is None else [text.encode() for text in texts]
    columns["content_hash"] = [hashlib.sha256(one).hexdigest() for one in data]
    columns["size"] = [0] * count if texts is None else [len(one) for one in data]
    columns["source"] = [source or SOURCE] * count
    columns["media_type"] = [{"text": "text/plain", "image": "image/*"}[medium]] * count
    return commit.commit_new(collection, space, known, columns, array)


def _at(values: Sequence[str] | None, place: int) -> str | None:
    return None if values is None else values[place]


def _ready(id: str, text: str | None, columns: dict[str, Any], medium: Medium, source: str | None) -> Decoded:
    item = Item(id=id, medium=medium, source=source or SOURCE, text=text, columns=columns)
    data = b"" if text is None else text.encode()
    return Decoded(item, "" if text is None else hashlib.sha256(data).hexdigest(), text, size=len(data))


def _versions(
    collection: Collection, space: Space, known: Known, batch: list[Decoded], array: FloatMatrix, *, keep_source: bool
) -> tuple[list[Decoded], frozenset[str]]:
    """Say of which content each item is: without a text that of the stored one, or else the vector; and what is new."""
    ids = [d.item.id for d in batch]
    # under no lock: what another process writes meanwhile counts as written after
    facts = known.picture.current(collection, ids)
    rows = facts.find(ids)
    stored = np.flatnonzero(rows >= 0)
    sources = facts.said["source"].take(pa.array(rows[stored])).to_pylist()
    made = [d if d.content_hash else replace(d, content_hash=_sha256(row)) for d, row in zip(batch, array, strict=True)]
    for i, row, source in zip(stored.tolist(), rows[stored].tolist(), sources, strict=True):
        if keep_source:
            made[i] = replace(made[i], item=replace(made[i].item, source=source))
        if not batch[i].content_hash:
            size, mtime = (None if n == NONE else int(n) for n in (facts.sizes[row], facts.mtimes[row]))
            made[i] = replace(made[i], content_hash=bytes(facts.digests[row]).hex(), size=size or 0, mtime_ns=mtime)
    held = stored[known.embedded.holds(facts.keys[rows[stored]])]
    if not len(held):
        return made, frozenset()
    keys = facts.keys[rows[held]]
    found = collection.vectors(space).search().where(col("key").isin(keys.tolist())).select(["key", "vector"])
    before = found.to_arrow()
    owner, vectors = before["key"].to_numpy(), schema.vectors_of(before)
    order = np.argsort(owner, kind="stable")
    first = order[np.searchsorted(owner, keys, sorter=order)]
    once = np.searchsorted(owner, keys, side="right", sorter=order) - np.searchsorted(owner, keys, sorter=order) == 1
    same = once & (vectors[first] == array[held]).all(axis=1)
    return made, frozenset(ids[i] for i in held[~same])


def _sha256(vector: Any) -> str:
    return hashlib.sha256(vector.tobytes()).hexdigest()
