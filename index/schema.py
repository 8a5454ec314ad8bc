"""The tables of a collection: columns, checksums of rows, and the types of a user's columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from embedder.space import Space, canonical_json
from index.checksums import SUM, row_sums

FORMAT = 1
ITEMS, EDITS, VECTORS = "items", "edits", "vectors_"
SPACE_KEY, GOLDEN_KEY = b"permafrost.space", b"permafrost.golden"

OWN_FIELDS = [
    pa.field("id", pa.string(), nullable=False),
    pa.field("key", pa.int64(), nullable=False),
    pa.field("source", pa.string()),
    pa.field("content_hash", pa.string(), nullable=False),
    pa.field("size", pa.int64()),
    pa.field("mtime_ns", pa.int64()),
    pa.field("media_type", pa.string(), nullable=False),
    pa.field("text", pa.string()),
    pa.field("group", pa.string()),
    pa.field("row_crc", pa.int64(), nullable=False),
]
OWN = tuple(field.name for field in OWN_FIELDS)
CHECKED = ("key", "id", "part", "content_hash", "vector", "row_crc")
RESERVED = frozenset(OWN) - {"group"}
TYPES = {"string": pa.string(), "int": pa.int64(), "float": pa.float64(), "bool": pa.bool_()}


def items_schema() -> Any:
    """Return the Arrow schema of `items` before any user column."""
    return pa.schema(OWN_FIELDS, metadata={b"permafrost.format": str(FORMAT).encode()})


def edits_schema() -> Any:
    """Return the Arrow schema of `edits`: `value` is JSON, `at` is UTC in microseconds."""
    fields = [
        pa.field("id", pa.string(), nullable=False),
        pa.field("name", pa.string(), nullable=False),
        pa.field("value", pa.string(), nullable=False),
        pa.field("by", pa.string(), nullable=False),
        pa.field("at", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("row_crc", pa.int64(), nullable=False),
    ]
    return pa.schema(fields, metadata={b"permafrost.format": str(FORMAT).encode()})


def vectors_schema(space: Space, golden: Mapping[str, str]) -> Any:
    """Return the Arrow schema of one Space's table: the Space stands in the schema and on the vector column."""
    record = canonical_json(space.as_json()).encode()
    vector = pa.list_(pa.float32(), space.dim)
    fields = [
        pa.field("key", pa.int64(), nullable=False),
        pa.field("id", pa.string(), nullable=False),
        pa.field("part", pa.int32(), nullable=False),
        pa.field("content_hash", pa.string(), nullable=False),
        pa.field("vector", vector, nullable=False, metadata={SPACE_KEY: record}),
        pa.field("row_crc", pa.int64(), nullable=False),
    ]
    metadata = {
        SPACE_KEY: record,
        GOLDEN_KEY: json.dumps(dict(golden)).encode(),
        b"permafrost.format": str(FORMAT).encode(),
    }
    return pa.schema(fields, metadata=metadata)


def vector_table(
    schema: Any,
    keys: Any,
    parts: Any,
    ids: Any,
    hashes: Any,
    array: FloatMatrix,
    made: Mapping[str, Any] | None = None,
) -> Any:
    """Return the Arrow rows of one batch, each with its checksum; `parts` counts the vectors of one item from 0.

    Each of the four columns is a list, or an array of NumPy or Arrow; `made` are sums of `row_sums`.
    """
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
    columns = {
        "key": _arrow(keys, pa.int64()), "id": _arrow(ids, pa.string()), "part": _arrow(parts, pa.int32()),
        "content_hash": _arrow(hashes, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, array.shape[1]),
    }  # fmt: skip
    return _summed(columns, schema, made)


def sound(rows: Any) -> Any:
    """Return a mask (n,) of the rows that agree with their checksum; `rows` has all columns of its table."""
    return row_sums(rows) == rows[SUM].to_numpy()


def item_table(schema: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows of `items` as Arrow, each with its checksum; a column that a row lacks is null."""
    return item_columns(schema, {name: [row.get(name) for row in rows] for name in schema.names}, len(rows))


def item_columns(schema: Any, columns: Mapping[str, Any], count: int) -> Any:
    """Return `count` rows of `items` from columns, each row with its checksum; a column that is not given is null."""
    nothing = [None] * count
    fields = [field for field in schema if field.name != SUM]
    return _summed({field.name: _arrow(columns.get(field.name, nothing), field.type) for field in fields}, schema)


def _arrow(values: Any, kind: Any) -> Any:
    return values if isinstance(values, (pa.Array, pa.ChunkedArray)) else pa.array(values, kind)


def _summed(arrays: Mapping[str, Any], schema: Any, made: Mapping[str, Any] | None = None) -> Any:
    sums = pa.array(row_sums(pa.table(arrays), made), pa.int64())
    return pa.table({name: sums if name == SUM else arrays[name] for name in schema.names}, schema=schema)


def vectors_of(table: Any) -> FloatMatrix:
    """Return the `vector` column of an Arrow table as (n, dim) float32, without a copy where it is one chunk."""
    column = table.column("vector")
    dim = column.type.list_size
    merged = column.combine_chunks() if column.num_chunks != 1 else column.chunk(0)
    return np.asarray(merged.flatten().to_numpy(zero_copy_only=False), dtype=np.float32).reshape(-1, dim)


def type_name(arrow_type: Any) -> str:
    """Return the name of a user column's type: string, int, float or bool."""
    return next((name for name, t in TYPES.items() if t == arrow_type), str(arrow_type))


def new_columns(schema: Any, wanted: Mapping[str, str]) -> list[Any]:
    """Return the fields that `wanted` (name to type name) adds to `items`.

    Raises:
        UsageError: a name is one of ours, or it exists with another type; the remedy is in the hint.
    """
    added = []
    for name, kind in wanted.items():
        if name in RESERVED:
            raise UsageError(
                f"a column is called {name!r}, which Permafrost keeps for itself",
                hint=f"--rename {name}=original_{name}",
            )
        if name not in schema.names:
            added.append(pa.field(name, TYPES[kind]))
        elif schema.field(name).type != TYPES[kind]:
            raise UsageError(
                f"column {name!r} holds {type_name(schema.field(name).type)} here, but the source has {kind}",
                hint=f"--rename {name}=another_name, or make the source's values {type_name(schema.field(name).type)}",
            )
    return added
