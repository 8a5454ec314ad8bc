"""Checksums of rows against the formula, written out in plain integers."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index import checksums
from index.checksums import factor, multipliers, row_sums

MASK = (1 << 64) - 1
KINDS = {
    "text": (pa.string(), st.text(max_size=30)),
    "int": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "float": (pa.float64(), st.floats()),
    "bool": (pa.bool_(), st.booleans()),
    "vector": (pa.list_(pa.float32(), 3), st.lists(st.floats(width=32), min_size=3, max_size=3)),
}
ROWS = st.lists(
    st.tuples(*(values if name == "vector" else st.none() | values for name, (_, values) in KINDS.items())), max_size=6
)


def lanes(name: str, value: Any) -> list[int]:
    if name == "text":
        data = value.encode()
        padded = data + bytes(-len(data) % 4)
        return [len(data), *(v for (v,) in struct.iter_unpack("<I", padded))]
    if name == "vector":
        return list(struct.unpack("<3I", struct.pack("<3f", *value)))
    return list(struct.unpack("<2I", struct.pack("<d", value) if name == "float" else struct.pack("<q", int(value))))


def expected(row: dict[str, Any]) -> int:
    total = 0
    for name, value in row.items():
        if value is not None:
            found = lanes(name, value)
            by = [int(m) for m in multipliers(len(found))]
            part = int(checksums.PRESENT) + sum(a * b for a, b in zip(found, by, strict=True))
            total += int(factor(name)) * part
    return (total & MASK) - ((total & (1 << 63)) << 1)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_the_sums_of_all_rows_are_the_formula_of_each(rows: list[tuple[Any, ...]]) -> None:
    records = [dict(zip(KINDS, row, strict=True)) for row in rows]
    table = pa.table({n: pa.array([r[n] for r in records], kind) for n, (kind, _) in KINDS.items()})
    assert row_sums(table).tolist() == [expected(row) for row in records]
    split = pa.concat_tables([table.slice(0, 1), table.slice(1)])
    assert row_sums(split).tolist() == row_sums(table).tolist()


def test_every_flipped_bit_of_every_value_changes_the_sum() -> None:
    row = np.random.default_rng(0).standard_normal((1, 24)).astype(np.float32)
    vectors = np.repeat(row, 24 * 32 + 1, axis=0)
    bits = vectors.view(np.uint32)
    for at in range(24 * 32):
        bits[at, at // 32] ^= np.uint32(1 << at % 32)
    sums = checksums.vector_sums(vectors)
    assert (sums[:-1] != sums[-1]).all()
    assert len(np.unique(sums)) == len(sums)
    text = b"pictures/00000017.jpg"
    flipped = [bytes(b ^ (1 << at % 8) if i == at // 8 else b for i, b in enumerate(text)) for at in range(8 * 21)]
    said = row_sums(pa.table({"id": pa.array([text, *flipped], pa.binary())}))
    assert len(set(said.tolist())) == len(said)


def test_damage_at_random_is_found_and_so_are_swapped_columns() -> None:
    chance = np.random.default_rng(1)
    vectors = chance.standard_normal((20_000, 8)).astype(np.float32)
    before = checksums.vector_sums(vectors)
    for lanes_hit in (2, 3, 8):
        damaged = vectors.copy()
        # the signs of an even number of numbers are what a weaker sum does not see
        damaged[:, :lanes_hit] *= -1
        assert (checksums.vector_sums(damaged) != before).all()
    one = pa.table({"source": ["a"], "group": ["b"], "size": [1], "mtime_ns": [None]})
    for other in ({"source": ["b"], "group": ["a"]}, {"size": [None], "mtime_ns": [1]}, {"source": [""]}):
        changed = pa.table({name: other.get(name, one[name].to_pylist()) for name in one.column_names})
        assert row_sums(changed)[0] != row_sums(one)[0]


@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_long_texts_are_summed_a_block_at_a_time(size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["x" * (i % 5) + "\u00e9" * (i % 3) for i in range(50)] + [""] * 3 + ["y" * 100]
    table = pa.table({"text": texts})
    whole = row_sums(table).tolist()
    monkeypatch.setattr(checksums, "BLOCK", size)
    assert row_sums(table).tolist() == whole == [expected({"text": text}) for text in texts]


def test_a_time_is_its_microseconds() -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    table = pa.table({"at": pa.array([at], pa.timestamp("us", tz="UTC"))})
    micros = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert row_sums(table).tolist() == row_sums(pa.table({"at": [micros]})).tolist()
