"""One number of 64 bits for each row of a table, made for all rows at once: the `row_crc` of our tables.

A value is cut into lanes of 32 bits: a text into its length and its UTF-8 (little-endian, padded with zeros), a number
into its two halves (of a float the bits, of a time the microseconds), a vector into its float32. Its sum is
`P + lane[0] * m[0] + lane[1] * m[1] + ...` modulo 2**64 with fixed odd multipliers, that of a null 0; a row's is the
sum over its columns, each times an odd factor made of the column's name.

A difference that lies in one lane, as any flipped bit does, always changes the sum: an odd number has an inverse modulo
2**64. Any other damage is missed with a chance of at most 2**-32 over the multipliers, as for every multilinear hash
(Carter and Wegman, "Universal classes of hash functions", 1979); that of random damage is 2**-64. It is no signature.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from embedder.records import FloatMatrix

SUM = "row_crc"
PRESENT = np.uint64(0x9E3779B97F4A7C15)
GAMMA, FIRST, SECOND = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
LOW, HALF = np.uint64(0xFFFFFFFF), np.uint64(32)
BLOCK = 1 << 20

Sums = NDArray[np.uint64]


def row_sums(rows: Any, made: Mapping[str, Sums] | None = None) -> NDArray[np.int64]:
    """Return the sum (n,) of each row of an Arrow table; its column `row_crc` has no part in it.

    Args:
        made: the sums (n,) of the values of columns for which they were made before.
    """
    total = np.zeros(rows.num_rows, dtype=np.uint64)
    for name in rows.column_names:
        if name != SUM and rows.num_rows:
            total += factor(name) * (made[name] if made and name in made else value_sums(rows[name]))
    return total.view(np.int64)


def value_sums(column: Any) -> Sums:
    """Return the sum (n,) of each value of a column of a table."""
    parts = [_values(chunk) for chunk in column.chunks if len(chunk)]
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def vector_sums(array: FloatMatrix) -> Sums:
    """Return the sum (n,) of each vector of (n, dim)."""
    lanes = np.ascontiguousarray(array, dtype="<f4").view("<u4")
    return PRESENT + _weighted(lanes, multipliers(lanes.shape[1]))


def factor(name: str) -> np.uint64:
    """Return the odd factor of a column."""
    return np.uint64(int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "little") | 1)


def multipliers(count: int) -> Sums:
    """Return the first `count` odd multipliers: the sequence of splitmix64 from 0, its lowest bits set."""
    found: Sums = _sequence(1 << max(count - 1, 1).bit_length())[:count]
    return found


@cache
def _sequence(count: int) -> Sums:
    odd: Sums = mixed(np.arange(1, count + 1, dtype=np.uint64) * GAMMA) | np.uint64(1)
    return odd


def mixed(values: Sums) -> Sums:
    """Return each value (n,) as splitmix64 mixes it: one to one, and every bit depends on all."""
    values = (values ^ (values >> np.uint64(30))) * FIRST
    values = (values ^ (values >> np.uint64(27))) * SECOND
    values ^= values >> np.uint64(31)
    return values


def _values(column: Any) -> Sums:
    kind = column.type
    if pa.types.is_null(kind):
        return np.zeros(len(column), dtype=np.uint64)
    if pa.types.is_fixed_size_list(kind):
        sums: Sums = vector_sums(column.flatten().to_numpy(zero_copy_only=False).reshape(-1, kind.list_size))
    elif pa.types.is_integer(kind) or pa.types.is_boolean(kind) or pa.types.is_temporal(kind):
        sums = _numbers(column.cast(pa.int64()).fill_null(0).to_numpy(zero_copy_only=False))
    elif pa.types.is_floating(kind):
        floats = column.cast(pa.float64()).fill_null(0).to_numpy(zero_copy_only=False)
        sums = _numbers(np.ascontiguousarray(floats))
    else:
        sums = _texts(column.cast(pa.large_binary()).fill_null(b""))
    if column.null_count:
        sums[pc.is_null(column).to_numpy(zero_copy_only=False)] = 0
    return sums


def _numbers(values: NDArray[Any]) -> Sums:
    bits, by = values.view(np.uint64), multipliers(2)
    sums: Sums = PRESENT + (bits & LOW) * by[0] + (bits >> HALF) * by[1]
    return sums


def _texts(column: Any) -> Sums:
    """Return the sum (n,) of each value of a large_binary array without nulls, so many at once that little is held."""
    offsets = np.frombuffer(column.buffers()[1], dtype=np.int64)[column.offset :][: len(column) + 1]
    data = np.frombuffer(column.buffers()[2] or b"", dtype=np.uint8)
    lengths = np.diff(offsets)
    sums: Sums = PRESENT + lengths.astype(np.uint64) * multipliers(1)[0]
    start, until = 0, np.cumsum(lengths)
    while start < len(sums):
        before = int(until[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(until, before + BLOCK, side="right")))
        sums[start:stop] += _block(data[offsets[start] : offsets[stop]], lengths[start:stop])
        start = stop
    return sums


def _block(data: NDArray[np.uint8], lengths: NDArray[np.int64]) -> Sums:
    lanes = (lengths + 3) // 4
    most, width = int(lanes.max()), int(lengths[0])
    by = multipliers(most + 1)[1:]
    if (lengths == width).all():
        padded = np.zeros((len(lengths), 4 * most), dtype=np.uint8)
        padded[:, :width] = data.reshape(len(lengths), width)
        return _weighted(padded.view("<u4"), by)
    starts = np.cumsum(lanes) - lanes
    shifts = 4 * starts - (np.cumsum(lengths) - lengths)
    flat = np.zeros(4 * int(lanes.sum()), dtype=np.uint8)
    flat[np.arange(len(data)) + np.repeat(shifts, lengths)] = data
    words = flat.view("<u4").astype(np.uint64)
    words *= by[np.arange(len(words)) - np.repeat(starts, lanes)]
    sums, some = np.zeros(len(lengths), dtype=np.uint64), lanes > 0
    sums[some] = np.add.reduceat(words, starts[some])
    return sums


def _weighted(lanes: NDArray[np.uint32], by: Sums) -> Sums:
    summed: Sums = np.einsum("ij,j->i", lanes, by, dtype=np.uint64, casting="unsafe")
    return summed
