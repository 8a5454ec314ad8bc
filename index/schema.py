"""The tables of a collection: columns, checksums of rows, and the types of a user's columns."""

from __future__ import annotations

import itertools
import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from embedder.space import Space, canonical_json

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


def item_crcs(rows: Any) -> list[int]:
    """Return a crc32 a row of `items` or `edits`: over `name NUL length NUL value NUL` of its columns, no nulls.

    `value` is UTF-8, its length is in bytes; of a float it is the 64 bits as a signed integer, of a time microseconds.
    """
    names = sorted(set(rows.column_names) - {"row_crc"})
    parts = [_crc_part(name, rows[name]) for name in names]
    joined = pc.binary_join_element_wise(*parts, pa.scalar("", pa.large_string()))
    return [crc for chunk in joined.chunks for crc in _crcs(chunk)]


def _crc_part(name: str, column: Any) -> Any:
    if pa.types.is_timestamp(column.type):
        column = column.cast(pa.int64())
    if pa.types.is_floating(column.type):
        arrays = [_bits(chunk) for chunk in column.chunks]
        column = pa.chunked_array(arrays, pa.int64())
    text = column.cast(pa.large_string())
    length = pc.binary_length(text).cast(pa.large_string())
    nul, head = (pa.scalar(value, pa.large_string()) for value in ("\0", name))
    whole = pc.binary_join_element_wise(head, length, text, pa.scalar("", pa.large_string()), nul)
    return pc.fill_null(whole, "")


def _bits(floats: Any) -> Any:
    values = np.ascontiguousarray(floats.fill_null(0).to_numpy(zero_copy_only=False))
    return pa.array(values.view(np.int64), mask=floats.is_null().to_numpy(zero_copy_only=False))


def _crcs(joined: Any) -> list[int]:
    """Return the crc32 of each value of a large_string array."""
    offsets = np.frombuffer(joined.buffers()[1], dtype=np.int64)[joined.offset : joined.offset + len(joined) + 1]
    data, ends = memoryview(joined.buffers()[2] or b""), offsets.tolist()
    return [zlib.crc32(data[start:end]) for start, end in itertools.pairwise(ends)]


def vector_crcs(
    keys: Sequence[int], parts: Sequence[int], hashes: Sequence[str], ids: Sequence[str], array: FloatMatrix
) -> list[int]:
    """Return one crc32 a row, over key, part, content hash, id and the vector's little-endian bytes."""
    return _vector_crcs(keys, parts, [h.encode() for h in hashes], [i.encode() for i in ids], array)


def _vector_crcs(
    keys: Sequence[int], parts: Sequence[int], hashes: Sequence[bytes], ids: Sequence[bytes], array: FloatMatrix
) -> list[int]:
    data = np.ascontiguousarray(array, dtype="<f4")
    size, flat = data.shape[1] * 4, data.reshape(-1).view(np.uint8).data
    heads = [b"%d\0%d\0%b\0%b\0" % row for row in zip(keys, parts, hashes, ids, strict=True)]
    starts = range(0, len(heads) * size, size)
    return [zlib.crc32(flat[at : at + size], zlib.crc32(head)) for at, head in zip(starts, heads, strict=True)]


def vector_table(
    schema: Any,
    keys: Sequence[int],
    parts: Sequence[int],
    ids: Sequence[str],
    hashes: Sequence[str],
    array: FloatMatrix,
) -> Any:
    """Return the Arrow rows of one batch; `parts` counts the vectors of one item from 0."""
    flat = pa.array(np.ascontiguousarray(array, dtype=np.float32).reshape(-1))
    columns = {
        "key": pa.array(keys, pa.int64()), "id": pa.array(ids, pa.string()), "part": pa.array(parts, pa.int32()),
        "content_hash": pa.array(hashes, pa.string()),
        "vector": pa.FixedSizeListArray.from_arrays(flat, array.shape[1]),
        "row_crc": pa.array(vector_crcs(keys, parts, hashes, ids, array), pa.int64()),
    }  # fmt: skip
    return pa.table(columns, schema=schema)


def sound(rows: Any, vectors: FloatMatrix) -> Any:
    """Return a mask (n,) of the vector rows that agree with their checksum."""
    keys, parts = rows["key"].to_pylist(), rows["part"].to_pylist()
    # as bytes: letters that a flipped bit broke are no text any more
    hashes, ids = (rows[name].cast(pa.binary()).to_pylist() for name in ("content_hash", "id"))
    return np.asarray(_vector_crcs(keys, parts, hashes, ids, vectors)) == rows["row_crc"].to_numpy()


def item_table(schema: Any, rows: Sequence[Mapping[str, Any]]) -> Any:
    """Return rows of `items` as Arrow, each with its checksum; a column that a row lacks is null."""
    return item_columns(schema, {name: [row.get(name) for row in rows] for name in schema.names}, len(rows))


def item_columns(schema: Any, columns: Mapping[str, Any], count: int) -> Any:
    """Return `count` rows of `items` from columns, each row with its checksum; a column that is not given is null."""
    nothing = [None] * count
    fields = [field for field in schema if field.name != "row_crc"]
    arrays = {field.name: pa.array(columns.get(field.name, nothing), field.type) for field in fields}
    crcs = pa.array(item_crcs(pa.table(arrays)), pa.int64())
    return pa.table({name: crcs if name == "row_crc" else arrays[name] for name in schema.names}, schema=schema)


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
