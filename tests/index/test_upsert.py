"""Upserts of ready vectors against a dictionary, in two Spaces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from embedder.errors import UsageError
from index import inspect
from index.known import Known
from index.upsert import upsert_vectors
from tests.index.tools import contents, fresh, planted

A, B = planted(4).space, planted(4, salt="b").space
ROWS = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), min_size=1, max_size=8)


def vector(kind: int) -> np.ndarray:
    """0 is a vector that cannot be stored."""
    return np.zeros(4, dtype=np.float32) if kind == 0 else np.eye(4, dtype=np.float32)[kind] * kind


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(calls=st.lists(st.tuples(ROWS, st.booleans()), min_size=1, max_size=4))
def test_the_last_of_an_id_wins_and_each_vector_has_a_status(
    calls: list[tuple[list[tuple[int, int]], bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    collection = fresh(tmp_path_factory.mktemp("store"))
    model: dict[str, int] = {}
    known: Known | None = None
    for rows, keep in calls:
        ids = [f"i{n}" for n, _ in rows]
        found = upsert_vectors(collection, A, ids, np.stack([vector(k) for _, k in rows]), known=known)
        last = {id: place for place, id in enumerate(ids)}
        for place, (id, (_, kind)) in enumerate(zip(ids, rows, strict=True)):
            expected = "superseded" if last[id] != place else "failed" if not kind else None
            expected = expected or ("unchanged" if model.get(id) == kind else "stored")
            assert (found[place].id, found[place].status) == (id, expected)
        model |= {id: rows[place][1] for id, place in last.items() if rows[place][1]}
        known = Known.read(collection, A) if keep else None
    stored = {id: np.frombuffer(row[1], "<f4") for id, row in contents(collection, A).items()} if model else {}
    assert {id: v.tolist() for id, v in stored.items()} == {id: vector(k).tolist() for id, k in model.items()}
    assert inspect.verify(collection).problems == []


def test_a_second_space_joins_the_items_and_another_vector_is_a_new_version(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    ids, array = ["a", "b"], np.eye(4, dtype=np.float32)[:2]
    types = {"label": "string"}
    upsert_vectors(collection, A, ids, array, texts=["one", "two"], columns={"label": ["x", "y"]}, types=types)
    assert [s.status for s in upsert_vectors(collection, B, ids, array[::-1])] == ["stored", "stored"]
    assert set(contents(collection, A)) == set(contents(collection, B)) == {"a", "b"}
    again = upsert_vectors(collection, A, ["a"], array[:1] * 2, texts=["one"])
    assert again[0].status == "stored"
    assert set(contents(collection, B)) == {"b"}, "the vector of the version before is dead"
    rows = {r["id"]: (r["text"], r["label"]) for r in collection.items.search().to_arrow().to_pylist()}
    assert rows == {"a": ("one", "x"), "b": ("two", "y")}
    assert inspect.verify(collection).problems == []


def test_wrong_shapes_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    for ids, array in ((["a"], np.ones((2, 4))), (["a"], np.ones((1, 3))), (["a"], np.ones(4))):
        with pytest.raises(UsageError, match="came with vectors of shape"):
            upsert_vectors(collection, A, ids, array.astype(np.float32))
    with pytest.raises(UsageError):
        upsert_vectors(collection, A, ["a"], np.ones((1, 4), np.float32), texts=[])
    assert collection.count() == 0
    assert collection.spaces() == {}
