"""One JSON document: plain, finite, ASCII."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.documents import dumps, plain

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(JSON)
def test_plain_values_come_back_equal(value: Any) -> None:
    text = dumps(value)
    assert text.isascii()
    assert json.loads(text) == value


def test_what_is_not_finite_becomes_null() -> None:
    assert json.loads(dumps({"a": float("nan"), "b": [float("inf"), np.float32("nan")]})) == {
        "a": None,
        "b": [None, None],
    }


def test_foreign_values_become_plain_ones() -> None:
    value = {
        "numpy": np.array([[1, 2]], dtype=np.int64), "scalar": np.float64(0.5), "path": Path("a/b"), "set": {1},
        "counter": Counter("aab"), "when": datetime(2026, 1, 2, tzinfo=UTC), 3: "key",
    }  # fmt: skip
    assert plain(value) == {
        "numpy": [[1, 2]], "scalar": 0.5, "path": "a/b", "set": [1], "counter": {"a": 2, "b": 1},
        "when": "2026-01-02T00:00:00+00:00", "3": "key",
    }  # fmt: skip


def test_what_has_no_json_form_is_refused() -> None:
    with pytest.raises(TypeError, match="bytes has no JSON form"):
        dumps({"image": b"\xff"})


def test_floats_keep_every_digit() -> None:
    value = 0.1234567890123456
    assert json.loads(dumps(value)) == value
