"""The root hash: one number for all that a collection holds, by value.

It is the same for two collections with the same items, edits and vectors, whatever their histories: keys, versions,
row order and files have no part in it. Each row is hashed by itself, and the sorted hashes are hashed together.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator

import numpy as np
import pyarrow as pa

from embedder.space import canonical_json
from index import schema
from index.live import Live
from index.store import Collection, scan

ROWS = 8192
NOT_VALUES = ("key", "row_crc")


def root(collection: Collection) -> str:
    """Return the sha256 over items, the edits in force, and the vectors of live items, in hex."""
    parts = [_combined("items", _items(collection)), _combined("edits", _edits(collection))]
    live = Live.read(collection)
    parts += [_combined(f, _vectors(collection, f, live)) for f in sorted(collection.spaces())]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def _combined(name: str, digests: Iterator[bytes]) -> bytes:
    total = hashlib.sha256(name.encode() + b"\0")
    for digest in sorted(digests):
        total.update(digest)
    return total.digest()


def _items(collection: Collection) -> Iterator[bytes]:
    for batch in collection.items.search().to_batches(ROWS):
        for row in batch.to_pylist():
            values = {name: value for name, value in row.items() if value is not None and name not in NOT_VALUES}
            yield hashlib.sha256(canonical_json(values).encode()).digest()


def _edits(collection: Collection) -> Iterator[bytes]:
    rows = scan(collection.table(schema.EDITS), ["id", "name", "value", "at"]).to_pylist()
    latest = {(row["id"], row["name"]): row["value"] for row in sorted(rows, key=lambda row: row["at"])}
    for (id, name), value in latest.items():
        yield hashlib.sha256(json.dumps([id, name, value]).encode()).digest()


def _vectors(collection: Collection, fingerprint: str, live: Live) -> Iterator[bytes]:
    columns = ["key", "id", "part", "content_hash", "vector"]
    for batch in collection.table(schema.VECTORS + fingerprint).search().select(columns).to_batches(ROWS):
        rows = pa.Table.from_batches([batch])
        rows = rows.filter(pa.array(live.holds(rows["key"].to_numpy().astype(np.int64))))
        if not rows.num_rows:
            continue
        vectors = np.ascontiguousarray(schema.vectors_of(rows), dtype="<f4")
        facts = zip(*(rows[name].to_pylist() for name in ("id", "part", "content_hash")), strict=True)
        for fact, vector in zip(facts, vectors, strict=True):
            yield hashlib.sha256(json.dumps(fact).encode() + b"\0" + vector.tobytes()).digest()
