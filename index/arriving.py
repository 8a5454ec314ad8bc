"""Vectors that come ready: items and vectors of a declared Space, stored by the same protocol as embedded ones.

An item that brings the hash of its content is the version of its content that the hash says. One that brings none, and
is stored without a vector in this Space, is taken to be what is stored; else its version is named after its vectors, so
that the same vectors are unchanged and others are a new version, which ends the item's vectors in all Spaces.

What is stored is looked at under the commit lock: what another process wrote a moment before is seen, not overwritten.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, overload

import numpy as np
from lancedb import col
from numpy.typing import NDArray

from embedder.records import Decoded, FloatMatrix, Item, Medium
from embedder.space import Space
from index import commit, ledger, schema
from index.checksums import GAMMA, Sums, mixed, multipliers, vector_sums
from index.known import NONE, Facts, Known, Mask, Rows, digest_of
from index.store import Collection

Status = Literal["inserted", "updated", "unchanged", "superseded", "failed"]
UNIT_TOLERANCE = 1e-3
LEAST_COSINE = 0.999
# squares between these neither overflow float32 nor vanish in it
SAFE_NORMS = (1e-15, 1e15)
MEDIA_TYPES: dict[Medium, str] = {"text": "text/plain", "image": "image/*"}


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


@dataclass(frozen=True)
class Ready:
    """Many ready vectors in columns: one (dim,) of any float dtype for each id, and what is known of each item.

    `columns` holds (n,) values of the user's columns and of `group`; `texts` are the contents, where there are any.
    """

    ids: Sequence[str]
    vectors: NDArray[Any]
    medium: Medium
    source: str
    columns: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    texts: Sequence[str] | None = None

    def arrivals(self) -> list[Arrival]:
        """Return the same, an object for each."""
        found = []
        for i, (id, vector) in enumerate(zip(self.ids, self.vectors, strict=True)):
            said = {name: values[i] for name, values in self.columns.items()}
            group, text = said.pop("group", None), None if self.texts is None else self.texts[i]
            size = None if text is None else len(text.encode())
            item = Item(id, self.medium, self.source, text=text, size=size, group=group, columns=said)
            found.append(Arrival(item, vector[None], None if text is None else _sha256(text)))
        return found


class Inserted(Sequence[Outcome]):
    """One outcome for each id: all of them were inserted."""

    def __init__(self, ids: Sequence[str]) -> None:
        self._ids = ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, place: int) -> Outcome: ...

    @overload
    def __getitem__(self, place: slice) -> Inserted: ...

    def __getitem__(self, place: int | slice) -> Outcome | Inserted:
        return Inserted(self._ids[place]) if isinstance(place, slice) else Outcome(self._ids[place], "inserted")


def upsert_columns(
    collection: Collection, space: Space, known: Known, ready: Ready, *, normalize: bool = False
) -> Sequence[Outcome]:
    """Store ready vectors as `upsert` does; where all are new and good, without an object for each."""
    if ready.vectors.shape == (len(ready.ids), space.dim) and len(set(ready.ids)) == len(ready.ids):
        vectors, bad = _judged(space, ready.vectors, normalize=normalize)
        if not bad:
            sums = vector_sums(vectors)
            columns = _columns(ready, sums)
            with ledger.committing(collection):
                if commit.are_new(collection, known, ready.ids):
                    commit.write_new(collection, space, known, columns, vectors, sums)
                    return Inserted(ready.ids)
    return upsert(collection, space, known, ready.arrivals(), normalize=normalize)


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
    made = _checked(space, batch, normalize=normalize)
    last = {one.item.id: at for at, one in enumerate(batch) if not isinstance(made[at], Outcome)}
    chosen = [(batch[at], vectors) for at in last.values() if not isinstance(vectors := made[at], Outcome)]
    done: dict[str, Outcome] = {}
    if chosen:
        with ledger.committing(collection):
            done = _store(collection, space, known, chosen)
    outcomes: list[Outcome] = []
    for at, one in enumerate(batch):
        bad, id = made[at], one.item.id
        if isinstance(bad, Outcome):
            outcomes.append(bad)
        else:
            outcomes.append(done[id] if last[id] == at else Outcome(id, "superseded"))
    return outcomes


def vectors_hashes(array: FloatMatrix, counts: Sequence[int]) -> list[str]:
    """Return 64 hex digits for each item: the name of content that nobody has, made of its vectors.

    It is made of the 64 bits of `vector_sums` of its parts, and no cryptographic hash: that two vectors of one id are
    the same is decided by comparing them.
    """
    return _names(vector_sums(array), counts)


def _names(sums: Sums, counts: Sequence[int]) -> list[str]:
    sizes = np.asarray(counts, dtype=np.int64)
    starts = np.cumsum(sizes) - sizes
    places = np.arange(len(sums)) - np.repeat(starts, sizes)
    by = multipliers(int(sizes.max(initial=0)))
    total = np.add.reduceat(sums * by[places], starts) if len(sums) else np.empty(0, dtype=np.uint64)
    words = mixed(total[:, None] + np.arange(1, 5, dtype=np.uint64) * GAMMA)
    text = words.astype("<u8").tobytes().hex()
    return [text[at : at + 64] for at in range(0, len(text), 64)]


def _columns(ready: Ready, sums: Sums) -> dict[str, Any]:
    count, texts = len(ready.ids), ready.texts
    data = [text.encode() for text in texts or ()]
    return {
        **ready.columns, "id": ready.ids, "source": [ready.source] * count, "text": texts or [None] * count,
        "media_type": [MEDIA_TYPES[ready.medium]] * count, "size": [len(one) for one in data] or [None] * count,
        "content_hash": [hashlib.sha256(one).hexdigest() for one in data] or _names(sums, [1] * count),
    }  # fmt: skip


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _checked(space: Space, batch: Sequence[Arrival], *, normalize: bool) -> list[FloatMatrix | Outcome]:
    """Return the vectors of each arrival as they can be stored, or why they cannot."""
    made: list[FloatMatrix | Outcome] = []
    for one in batch:
        given = np.asarray(one.vectors)
        if given.ndim != 2 or given.shape[1:] != (space.dim,) or not len(given) or given.dtype.kind not in "fiu":
            shape = "x".join(map(str, given.shape[1:])) or "none"
            message = f"a vector of {shape} dimensions, not {space.dim}"
            made.append(Outcome(one.item.id, "failed", "wrong_dim", message))
        else:
            made.append(given)
    arrays = [found for found in made if not isinstance(found, Outcome)]
    if not arrays:
        return made
    vectors, bad = _judged(space, np.concatenate(arrays), normalize=normalize)
    start = 0
    for at, array in enumerate(made):
        if not isinstance(array, Outcome):
            rows = range(start, start := start + len(array))
            why = next((bad[row] for row in rows if row in bad), None) if bad else None
            made[at] = vectors[rows.start : rows.stop] if why is None else Outcome(batch[at].item.id, "failed", *why)
    return made


def _judged(space: Space, array: NDArray[Any], *, normalize: bool) -> tuple[FloatMatrix, dict[int, tuple[str, str]]]:
    """Return vectors (n, dim) as they are stored, and for each that cannot be, by row, the reason and a message."""
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        vectors = np.ascontiguousarray(array, dtype=np.float32)
        norms = np.sqrt(np.einsum("ij,ij->i", vectors, vectors)).astype(np.float64)
        doubtful = np.flatnonzero(~((norms > SAFE_NORMS[0]) & (norms < SAFE_NORMS[1])))
        norms[doubtful] = np.linalg.norm(vectors[doubtful].astype(np.float64), axis=1)
    bad: dict[int, tuple[str, str]] = {}
    for row in doubtful.tolist():
        if not np.isfinite(norms[row]):
            bad[row] = ("non_finite", "the vector holds NaN or infinity")
        # a norm below the smallest float32 is zero to whoever reads the vector
        elif norms[row] <= np.finfo(np.float32).tiny:
            bad[row] = ("zero_norm", "the vector has zero norm")
        elif norms[row] >= np.finfo(np.float32).max:
            bad[row] = ("non_finite", "the vector's norm does not fit into float32")
    if space.identity.get("normalize"):
        off = [row for row in np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE)).tolist() if row not in bad]
        if normalize and off:
            exact = np.linalg.norm(vectors[off].astype(np.float64), axis=1)
            vectors = vectors.copy()
            vectors[off] = vectors[off] / exact[:, None]
        for row in () if normalize else off:
            unit = f"and Space {space.short} has unit length; --normalize scales it"
            bad[row] = ("not_unit", f"the vector has length {norms[row]:.4g}, {unit}")
    return vectors, bad


def _store(
    collection: Collection, space: Space, known: Known, chosen: Sequence[tuple[Arrival, FloatMatrix]]
) -> dict[str, Outcome]:
    """Store arrivals with distinct ids and return what became of each; call it under the commit lock."""
    ids = [one.item.id for one, _ in chosen]
    facts = known.picture.current(collection, ids)
    rows = facts.find(ids)
    stored = np.flatnonzero(rows >= 0)
    held = np.zeros(len(ids), dtype=bool)
    held[stored] = known.embedded.holds(facts.keys[rows[stored]])
    versions, renewed = _versions(collection, space, facts, rows, held, chosen)
    kept = [at for at, version in enumerate(versions) if version]
    batch = {at: _decoded(chosen[at][0], versions[at], facts, int(rows[at])) for at in kept}
    done = {id: _conflict(id, space) for id, version in zip(ids, versions, strict=True) if not version}
    same = _same(known, facts, rows, [at for at in kept if held[at] and ids[at] not in renewed], batch)
    for at in kept:
        status: Status = "inserted" if rows[at] < 0 else "unchanged" if same[at] else "updated"
        done[ids[at]] = Outcome(ids[at], status)
    if batch:
        arrays = [chosen[at][1] for at in kept]
        sizes = [len(array) for array in arrays]
        commit.write(collection, space, known, list(batch.values()), np.concatenate(arrays), sizes, renewed)
    return done


def _same(known: Known, facts: Facts, rows: Rows, held: Sequence[int], batch: Mapping[int, Decoded]) -> Mask:
    """Return a mask (n,) of those that are held, with the content and the columns that they come with."""
    same = np.zeros(len(rows), dtype=bool)
    at = [i for i in held if digest_of(batch[i].content_hash) == bytes(facts.digests[rows[i]])]
    if at:
        same[at] = facts.describe(rows[at], [batch[i].item for i in at], known.picture.edits)
    return same


def _versions(
    collection: Collection, space: Space, facts: Facts, rows: Rows, held: Mask,
    chosen: Sequence[tuple[Arrival, FloatMatrix]],
) -> tuple[list[str], set[str]]:  # fmt: skip
    """Return each item's content hash, "" where its content is stored with another vector of this Space.

    The ids in the second part are new versions, though by chance their vectors may be named as those before.
    """
    arrays = [vectors for _, vectors in chosen]
    made = vectors_hashes(np.concatenate(arrays), [len(array) for array in arrays])
    found = [one.content_hash or name for (one, _), name in zip(chosen, made, strict=True)]
    compared: dict[int, int] = {}
    renewed: set[str] = set()
    for at in np.flatnonzero(rows >= 0).tolist():
        said, stored = chosen[at][0].content_hash, bytes(facts.digests[rows[at]])
        if said is not None and digest_of(said) != stored:
            continue
        if held[at]:
            compared[int(facts.keys[rows[at]])] = at
        else:
            found[at] = stored.hex()
    for key, before in _stored(collection, space, list(compared)).items():
        at = compared[key]
        one, arrived = chosen[at]
        if one.content_hash is None:
            if np.array_equal(before, arrived):
                found[at] = bytes(facts.digests[rows[at]]).hex()
            else:
                renewed.add(one.item.id)
        elif not _alike(before, arrived):
            found[at] = ""
    return found, renewed


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


def _decoded(one: Arrival, content_hash: str, facts: Facts, row: int) -> Decoded:
    """Return the item as the write path takes it; of content that is stored already, what it does not say is kept."""
    item = one.item
    same = row >= 0 and bytes(facts.digests[row]) == digest_of(content_hash)
    if same and item.path is None and item.text is None:
        said = {name: facts.said[name][row].as_py() for name in ("source", "group", "media_type")}
        medium: Medium = "text" if str(said["media_type"]).startswith("text") else "image"
        numbers = {"size": int(facts.sizes[row]), "mtime_ns": int(facts.mtimes[row])}
        kept: dict[str, Any] = {n: None if v == NONE else v for n, v in numbers.items() if getattr(item, n) is None}
        item = replace(item, medium=medium, source=said["source"], group=item.group or said["group"], **kept)
    return Decoded(item, content_hash, item.text, item.size, item.mtime_ns)
