from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from lancedb import col, lit

from embedder.errors import NothingToDo, UnknownName, UsageError
from index import build, commit, inspect, schema
from index.edits import edits
from index.features import features
from index.store import Collection, Store
from tests.index.tools import Rows, contents, filled, planted, planted_vector, run

SPACE = planted().space


def test_describe_tells_what_is_stored_missing_dead_and_fresh(tmp_path: Path) -> None:
    collection = filled(tmp_path, 20, columns={"i0000": {"year": 1}}, types={"year": "int"})
    build.build(collection, SPACE, kind="flat")
    other = planted(salt="b")
    run(collection, Rows({"i0001": "text 1"}), other)
    commit.delete_ids(collection, ["i0005"])
    run(collection, Rows({"i0006": "changed", "new": "row"}))
    facts = inspect.describe(collection)
    assert (facts["items"], facts["columns"]) == (20, {"group": "string", "year": "int"})
    spaces = {s["fingerprint"]: s for s in facts["spaces"]}
    first, second = spaces[SPACE.fingerprint], spaces[other.space.fingerprint]
    assert (first["vectors"], first["missing"], first["dead"], first["default"]) == (20, 0, 2, True)
    assert (second["vectors"], second["missing"], second["dead"], second["default"]) == (1, 19, 0, False)
    assert (first["index"]["rows"], first["index"]["fresh"]) == (20, 2)
    assert second["index"] is None
    assert facts["bytes"] > 1000


def test_a_sound_collection_has_no_problems(tmp_path: Path) -> None:
    collection = filled(tmp_path, 20, columns={"i0000": {"year": 1}}, types={"year": "int"})
    commit.edit(collection, "i0003", {"year": 7}, by="test")
    build.build(collection, SPACE, kind="faiss_hnsw")
    verdict = inspect.verify(collection).as_json()
    assert verdict == {
        "ok": True,
        "checked": {"files": 3, "items": 20, "edits": 1, "vectors": 20, "index files": 3},
        "problems": [],
    }


def flip_in_lance(collection: Collection, value: bytes, seed: int) -> bool:
    """Flip one bit of a vector's bytes wherever they lie in Lance's files."""
    for path in sorted((collection.path / f"{schema.VECTORS}{SPACE.fingerprint}.lance" / "data").glob("*.lance")):
        data = bytearray(path.read_bytes())
        at = data.find(value)
        if at >= 0:
            place = random.Random(seed).randrange(len(value))
            data[at + place] ^= 1 << random.Random(seed).randrange(8)
            path.write_bytes(data)
            return True
    return False


@pytest.mark.parametrize("seed", range(6))
def test_a_flipped_bit_is_named_by_row_and_only_that_row_is_redone(tmp_path: Path, seed: int) -> None:
    filled(tmp_path, 30)
    collection = Store.open(tmp_path / "store").collection("c")
    before = contents(collection, SPACE)
    victim = f"i{seed * 4:04d}"
    assert flip_in_lance(collection, before[victim][1], seed)
    collection = Store.open(tmp_path / "store").collection("c")
    verdict = inspect.verify(collection)
    assert [p.id for p in verdict.problems] == [victim]
    assert inspect.mend(collection, verdict) == 1
    again = run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(30)}))
    assert (again.embedded, again.unchanged) == (1, 29)
    assert contents(collection, SPACE) == before
    assert inspect.verify(collection).problems == []


def test_a_changed_label_or_a_doubled_id_is_noticed(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    items = collection.items
    items.update(where=(col("id") == lit("i0002")), values={"text": "tampered"})
    assert [(p.what, p.id) for p in inspect.verify(collection).problems] == [
        ("an item's row fails its checksum", "i0002")
    ]
    row = items.search().where(col("id") == lit("i0001")).to_arrow()
    items.add(row)
    assert "id 'i0001' is stored twice" in [p.what for p in inspect.verify(collection).problems]


def test_edits_are_checked_and_kept(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3, types={"label": "string", "year": "int"})
    commit.edit(collection, "i0001", {"label": "cat", "year": 2020}, by="me")
    row = collection.items.search().where(col("id") == lit("i0001")).to_arrow().to_pylist()[0]
    assert (row["label"], row["year"]) == ("cat", 2020)
    for id, values, error in [
        ("nobody", {"label": "x"}, UnknownName), ("i0001", {"labl": "x"}, UnknownName),
        ("i0001", {"key": 5}, UsageError), ("i0001", {"year": "soon"}, UsageError),
    ]:  # fmt: skip
        with pytest.raises(error):
            commit.edit(collection, id, values, by="me")
    assert edits(collection) == {("i0001", "label"): "cat", ("i0001", "year"): 2020}


def test_features_are_aligned_with_ids_and_columns(tmp_path: Path) -> None:
    n = 25
    columns = {f"i{k:04d}": {"label": f"l{k % 3}"} for k in range(n)}
    collection = filled(tmp_path, n, columns=columns, types={"label": "string"})
    commit.delete_ids(collection, ["i0007"])
    run(collection, Rows({"i0003": "changed"}, columns, {"label": "string"}))
    found = features(collection, SPACE, ["label", "content_hash"])
    assert len(found) == n - 1
    assert found.X.shape == (n - 1, 8)
    assert list(found.keys) == sorted(found.keys)
    for id, row, label in zip(found.ids, found.X, found.columns["label"], strict=True):
        text = "changed" if id == "i0003" else f"text {int(id[1:])}"
        np.testing.assert_allclose(row, planted_vector(text), rtol=1e-6)
        assert label == columns[id]["label"]
    assert features(collection, SPACE, ["label"], where="label = 'l1'").columns["label"] == ["l1"] * 7
    with pytest.raises(UnknownName, match="labels"):
        features(collection, SPACE, ["labels"])
    with pytest.raises(NothingToDo):
        features(collection, SPACE, where="label = 'none'")
