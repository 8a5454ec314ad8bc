from __future__ import annotations

import json
from pathlib import Path

import lancedb
import numpy as np
import pyarrow as pa
import pytest

from embedder.errors import Damaged, UnknownName, UsageError
from index import commit, schema
from index.known import Known
from index.store import Store
from tests.index.tools import Rows, contents, filled, fresh, planted, planted_vector, run


def test_a_store_is_made_only_when_asked_and_knows_its_format(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="no store"):
        Store.open(tmp_path / "s")
    Store.open(tmp_path / "s", create=True)
    assert Store.open(tmp_path / "s").names() == []
    (tmp_path / "s" / "permafrost.json").write_text('{"format": 99}')
    with pytest.raises(Damaged, match="format 99"):
        Store.open(tmp_path / "s")


def test_a_folder_that_is_something_else_is_not_taken(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").write_bytes(b"x")
    with pytest.raises(UsageError, match="not a store"):
        Store.open(tmp_path, create=True)
    with pytest.raises(UsageError, match="object stores"):
        Store.open("s3://bucket/store")


@pytest.mark.parametrize("name", ["A", "-a", "../x", "", "a/b", "a" * 64, "a b", "é", "con\0"])
def test_names_that_could_leave_the_folder_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError):
        Store.open(tmp_path / "s", create=True).collection(name, create=True)


def test_a_wrong_collection_is_answered_with_the_nearest(tmp_path: Path) -> None:
    filled(tmp_path, 2, "photos")
    with pytest.raises(UnknownName, match="'photo'") as caught:
        Store.open(tmp_path / "store").collection("photo")
    assert "did you mean photos" in caught.value.hint


def test_plain_lancedb_opens_and_queries_what_we_wrote(tmp_path: Path) -> None:
    collection = filled(tmp_path, 20)
    db = lancedb.connect(str(collection.path))
    table = db.open_table(schema.VECTORS + planted().space.fingerprint)
    query = planted_vector("text 7")
    found = table.search(query).distance_type("cosine").limit(1).to_arrow().to_pylist()[0]
    assert found["id"] == "i0007"
    assert db.open_table("items").search().where("id = 'i0007'").to_arrow().to_pylist()[0]["text"] == "text 7"


def test_the_space_survives_every_kind_of_write(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    space = planted().space
    run(collection, Rows({"i0001": "changed", "new": "row"}, {"new": {"year": 3}}, {"year": "int"}))
    commit.delete_ids(collection, ["i0002"])
    collection.vectors(space).optimize()
    again = Store.open(tmp_path / "store").collection("c")
    assert again.space() == space
    table = again.vectors(space)
    assert json.loads(table.schema.metadata[schema.SPACE_KEY])["fingerprint"] == space.fingerprint
    assert json.loads(table.schema.field("vector").metadata[schema.SPACE_KEY])["fingerprint"] == space.fingerprint
    assert again.golden(space).keys() == {"text"}


def test_a_table_whose_space_was_edited_is_refused(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    name = schema.VECTORS + planted().space.fingerprint
    other = planted(salt="other").space
    table = collection.db.open_table(name)
    rows = table.search().to_arrow()
    changed = rows.replace_schema_metadata({schema.SPACE_KEY: json.dumps(other.as_json()).encode()})
    collection.db.create_table(name, changed, mode="overwrite")
    with pytest.raises(Damaged, match="holds vectors of Space"):
        Store.open(tmp_path / "store").collection("c").spaces()


def test_spaces_are_found_by_alias_prefix_and_encoder(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    other = planted(salt="b")
    run(collection, Rows({"i0000": "text 0"}), other)
    assert collection.space() == planted().space
    assert collection.space("default") == planted().space
    assert collection.space(other.space.fingerprint[:8]) == other.space
    assert collection.space("planted:b8") == other.space
    with pytest.raises(UnknownName, match="planted:c8"):
        collection.space("planted:c8")
    with pytest.raises(UnknownName, match="no vectors yet"):
        fresh(tmp_path, "empty").space()


def test_keys_are_never_used_again(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    before = set(collection.items.search().to_arrow()["key"].to_pylist())
    commit.delete_ids(collection, ["i0000", "i0001", "i0002"])
    run(collection, Rows({"i0000": "text 0", "x": "y"}))
    after = set(collection.items.search().to_arrow()["key"].to_pylist())
    assert not before & after
    assert min(after) > max(before)


def test_a_lost_counter_is_refused_not_guessed(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    (collection.path / "keys.json").unlink()
    with pytest.raises(Damaged, match="counter of keys"):
        run(collection, Rows({"new": "text"}))


def test_a_vector_that_cannot_be_is_refused_before_it_is_written(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    space = planted().space
    known = Known.read(collection, space)
    from embedder.records import Decoded, Item

    one = Decoded(Item("z", "text", "s", text="z"), "h", "z", 1)
    for bad in (np.zeros((1, 8)), np.full((1, 8), np.inf), np.full((1, 8), np.nan), np.ones((1, 7)), np.ones((2, 8))):
        with pytest.raises(Exception, match=r"zero norm|shape"):
            commit.commit(collection, space, known, [one], bad.astype(np.float32))
    assert len(contents(collection, space)) == 3
    assert collection.count() == 3


def test_user_columns_are_added_once_and_keep_their_type(tmp_path: Path) -> None:
    collection = filled(tmp_path, 2, types={"year": "int"}, columns={"i0000": {"year": 1999}})
    with pytest.raises(UsageError, match="holds int here") as caught:
        commit.ensure_columns(collection, {"year": "string"})
    assert "--rename year=" in caught.value.hint
    with pytest.raises(UsageError, match="keeps for itself") as caught:
        commit.ensure_columns(collection, {"source": "string"})
    assert "--rename source=" in caught.value.hint
    commit.ensure_columns(collection, {"ok": "bool", "year": "int"})
    assert collection.items.schema.field("ok").type == pa.bool_()
    assert [r["year"] for r in collection.items.search().to_arrow().to_pylist()] == [1999, None]


def test_deleting_a_collection_leaves_the_others(tmp_path: Path) -> None:
    filled(tmp_path, 2, "a")
    kept = filled(tmp_path, 2, "b")
    store = Store.open(tmp_path / "store")
    store.delete("a")
    assert store.names() == ["b"]
    assert not (store.path / "a").exists()
    assert kept.count() == 2
