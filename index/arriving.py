"""Vectors that come ready: items and vectors of a declared Space, stored by the same protocol as embedded ones.

An item that brings the hash of its content is the version of its content that the hash says. One that brings none, and
is stored without a vector in this Space, is taken to be what is stored; else its version is the hash of its vectors, so
that the same vectors are unchanged and others are a new version, which ends the item's vectors in all Spaces.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from lancedb import col
from numpy.typing import NDArray

from embedder.records import Decoded, FloatMatrix, Item, Medium
from embedder.space import Space
from index import commit, schema
from index.commit import Known
from index.store import Collection

Status = Literal["inserted", "updated", "unchanged", "superseded", "failed"]
UNIT_TOLERANCE = 1e-3
LEAST_COSINE = 0.999


@dataclass(frozen=True)
class Arrival:
    """One item with its ready vectors: (parts, dim) of any float dtype, one row for most.

    `content_hash` is the sha256, in hex, of the file or of the text in UTF-8, where it is known.
    """

    item: Item
    vectors: NDArray[Any]
    content_hash: str | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of one arrival; `reason` is a short word for counting and `message` says more, where it failed."""

    id: str
    status: Status
    reason: str = ""
    message: str = ""


def upsert(
    collection: Collection, space: Space, known: Known, batch: Sequence[Arrival], *, normalize: bool = False
) -> list[Outcome]:
    """Store one batch of ready vectors, items first; the table of the Space must be there.

    Args:
        known: the picture of the collection that the caller keeps between batches (`Known.read`).
        normalize: scale vectors to unit length, where the Space says that its vectors have it.

    Returns:
        one outcome per arrival, in their order. Of arrivals with one id the last good one counts, the ones before it
        are `superseded`. A vector of another dimension, one that is not finite, has zero norm, or not unit length in
        a Space that normalises, is `failed` and nothing of its item is stored; so is one whose content is stored with
        another vector of this Space.
    """
    made: list[FloatMatrix | Outcome] = [_checked(space, one, normalize=normalize) for one in batch]
    last = {one.item.id: at for at, one in enumerate(batch) if not isinstance(made[at], Outcome)}
    known.refresh(collection, list(last))
    chosen = [(batch[at], vectors) for at in last.values() if not isinstance(vectors := made[at], Outcome)]
    versions = _versions(collection, space, known, chosen)
    kept = [(_decoded(one, versions[one.item.id], known), vectors) for one, vectors in chosen if versions[one.item.id]]
    done = {d.item.id: Outcome(d.item.id, _status(known, d)) for d, _ in kept}
    if kept:
        arrays = [vectors for _, vectors in kept]
        commit.commit(collection, space, known, [d for d, _ in kept], np.concatenate(arrays), [len(a) for a in arrays])
    outcomes: list[Outcome] = []
    for at, one in enumerate(batch):
        bad, id = made[at], one.item.id
        if isinstance(bad, Outcome):
            outcomes.append(bad)
        else:
            outcomes.append(done.get(id, _conflict(id, space)) if last[id] == at else Outcome(id, "superseded"))
    return outcomes


def vectors_hash(vectors: FloatMatrix) -> str:
    """Return the sha256, in hex, that stands for content that nobody has: over the vectors, little-endian float32."""
    return hashlib.sha256(b"vectors\0" + np.ascontiguousarray(vectors, "<f4").tobytes()).hexdigest()


def _checked(space: Space, one: Arrival, *, normalize: bool) -> FloatMatrix | Outcome:
    array = np.asarray(one.vectors)
    if array.ndim != 2 or array.shape[1:] != (space.dim,) or not len(array) or array.dtype.kind not in "fiu":
        shape = "x".join(map(str, array.shape[1:])) or "none"
        return Outcome(one.item.id, "failed", "wrong_dim", f"a vector of {shape} dimensions, not {space.dim}")
    with np.errstate(over="ignore"):
        vectors = np.ascontiguousarray(array, dtype=np.float32)
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(vectors.astype(np.float64), axis=1)
    if not np.isfinite(norms).all():
        return Outcome(one.item.id, "failed", "non_finite", "the vector holds NaN or infinity")
    # a norm below the smallest float32 is zero to whoever reads the vector
    if not (norms > np.finfo(np.float32).tiny).all():
        return Outcome(one.item.id, "failed", "zero_norm", "the vector has zero norm")
    if norms.max() >= np.finfo(np.float32).max:
        return Outcome(one.item.id, "failed", "non_finite", "the vector's norm does not fit into float32")
    if not space.identity.get("normalize") or (np.abs(norms - 1) <= UNIT_TOLERANCE).all():
        return vectors
    if normalize:
        return np.asarray(vectors / norms[:, None], dtype=np.float32)
    worst = norms[np.argmax(np.abs(norms - 1))]
    message = f"the vector has length {worst:.4g}, and Space {space.short} has unit length; --normalize scales it"
    return Outcome(one.item.id, "failed", "not_unit", message)


def _versions(
    collection: Collection, space: Space, known: Known, batch: Sequence[tuple[Arrival, FloatMatrix]]
) -> dict[str, str]:
    """Return each item's content hash; "" where its content is stored with another vector of this Space."""
    found: dict[str, str] = {}
    compared: dict[int, tuple[Arrival, FloatMatrix]] = {}
    for one, vectors in batch:
        stored = known.rows.get(one.item.id)
        made = vectors_hash(vectors)
        found[one.item.id] = one.content_hash or made
        if stored is None or one.content_hash not in (None, stored.content_hash):
            continue
        if stored.key not in known.embedded:
            found[one.item.id] = stored.content_hash
        elif stored.content_hash != made:
            compared[stored.key] = (one, vectors)
    for key, vectors in _stored(collection, space, list(compared)).items():
        one, arrived = compared[key]
        if one.content_hash is None:
            same = np.array_equal(vectors, arrived)
            found[one.item.id] = known.rows[one.item.id].content_hash if same else found[one.item.id]
        elif not _alike(vectors, arrived):
            found[one.item.id] = ""
    return found


def _alike(a: FloatMatrix, b: FloatMatrix) -> bool:
    """Say whether two runs of one encoder may have made both: a cosine of 0.999 or more, part by part."""
    if a.shape != b.shape:
        return False
    one, two = a.astype(np.float64), b.astype(np.float64)
    norms = np.linalg.norm(one, axis=1) * np.linalg.norm(two, axis=1)
    return bool((np.sum(one * two, axis=1) >= LEAST_COSINE * norms).all())


def _conflict(id: str, space: Space) -> Outcome:
    message = (
        f"its content is stored with another vector of Space {space.short}, and one content has one vector there; "
        "delete the item first, or declare another Space"
    )
    return Outcome(id, "failed", "other_vector", message)


def _stored(collection: Collection, space: Space, keys: Sequence[int]) -> dict[int, FloatMatrix]:
    if not keys:
        return {}
    query = collection.vectors(space).search().where(col("key").isin(list(keys)))
    rows = query.select(["key", "part", "vector"]).to_arrow().sort_by([("key", "ascending"), ("part", "ascending")])
    owners, vectors = rows["key"].to_numpy(), schema.vectors_of(rows)
    return {int(key): vectors[owners == key] for key in np.unique(owners)}


def _decoded(one: Arrival, content_hash: str, known: Known) -> Decoded:
    """Return the item as the write path takes it; of content that is stored already, what it does not say is kept."""
    item, stored = one.item, known.rows.get(one.item.id)
    if stored is not None and stored.content_hash == content_hash and item.path is None and item.text is None:
        row = stored.row
        medium: Medium = "text" if str(row["media_type"]).startswith("text") else "image"
        kept = {name: row[name] for name in ("text", "size", "mtime_ns") if getattr(item, name) is None}
        item = replace(item, medium=medium, source=row["source"], group=item.group or row["group"], **kept)
    return Decoded(item, content_hash, item.text, item.size, item.mtime_ns)


def _status(known: Known, decoded: Decoded) -> Status:
    stored = known.rows.get(decoded.item.id)
    if stored is None:
        return "inserted"
    same = stored.content_hash == decoded.content_hash and stored.key in known.embedded
    return "unchanged" if same and known.describes(decoded.item) else "updated"
