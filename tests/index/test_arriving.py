"""Ready vectors in the store: the protocol of embedded ones, one outcome per arrival, nothing bad stored."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder.declared import declare
from embedder.records import Item
from index import files, inspect
from index.arriving import Arrival, Outcome, upsert, vectors_hash
from index.commit import Known
from index.store import Collection
from tests.index.tools import DIM, Rows, contents, filled, fresh, planted, planted_vector, run

SPACE = declare("made elsewhere", DIM, ["text"])


def arrival(id: str, vector: Any, text: str | None = None, hash: str | None = None, **facts: Any) -> Arrival:
    item = Item(id=id, medium="text", source=f"from#{id}", text=text, **facts)
    return Arrival(item, np.atleast_2d(np.asarray(vector)), hash)


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def ready(folder: Path) -> Collection:
    collection = fresh(folder)
    collection.add_space(SPACE, {})
    return collection


def put(collection: Collection, *batch: Arrival, space: Any = SPACE, **options: Any) -> list[Outcome]:
    return upsert(collection, space, Known.read(collection, space), batch, **options)


def statuses(outcomes: list[Outcome]) -> list[str]:
    return [o.reason or o.status for o in outcomes]


def test_the_last_of_one_id_wins_and_each_arrival_is_told(tmp_path: Path) -> None:
    collection = ready(tmp_path)
    rows = [planted_vector(str(i)) for i in range(4)]
    said = put(collection, arrival("a", rows[0]), arrival("b", rows[1]), arrival("a", rows[2]))
    assert [(o.id, o.status) for o in said] == [("a", "superseded"), ("b", "inserted"), ("a", "inserted")]
    assert contents(collection, SPACE) == {
        "a": (vectors_hash(rows[2][None]), rows[2].tobytes()),
        "b": (vectors_hash(rows[1][None]), rows[1].tobytes()),
    }
    assert statuses(put(collection, arrival("a", rows[2]), arrival("b", rows[3]))) == ["unchanged", "updated"]
    assert contents(collection, SPACE)["b"][1] == rows[3].tobytes()
    assert inspect.verify(collection).problems == []


BAD = {
    "non_finite": [np.nan] * DIM,
    "zero_norm": [0.0] * DIM,
    "wrong_dim": [1.0] * (DIM + 1),
}


@pytest.mark.parametrize("reason", BAD)
def test_a_bad_vector_is_named_and_stops_nothing(tmp_path: Path, reason: str) -> None:
    collection = ready(tmp_path)
    good = planted_vector("good")
    said = put(collection, arrival("bad", BAD[reason]), arrival("good", good))
    assert statuses(said) == [reason, "inserted"]
    assert said[0].message
    assert set(contents(collection, SPACE)) == {"good"}
    # one that is stored already stays as it is
    assert statuses(put(collection, arrival("good", BAD[reason]))) == [reason]
    assert contents(collection, SPACE)["good"][1] == good.tobytes()


def test_what_overflows_float32_is_not_finite(tmp_path: Path) -> None:
    collection = ready(tmp_path)
    wide = np.full(DIM, 1e300)
    long = np.full(DIM, 3e38)
    tiny = np.full(DIM, 1e-45)
    said = put(collection, arrival("a", wide), arrival("b", long), arrival("c", tiny))
    assert statuses(said) == ["non_finite", "non_finite", "zero_norm"]


def test_a_space_of_unit_length_takes_no_other_unless_asked(tmp_path: Path) -> None:
    unit = declare("unit", DIM, ["text"], normalize=True)
    collection = fresh(tmp_path)
    collection.add_space(unit, {})
    row = planted_vector("x")
    assert statuses(put(collection, arrival("a", 2 * row), arrival("b", row), space=unit)) == ["not_unit", "inserted"]
    # half precision, as clip-retrieval writes it, is near enough
    assert statuses(put(collection, arrival("h", row.astype(np.float16)), space=unit)) == ["inserted"]
    assert statuses(put(collection, arrival("a", 2 * row), space=unit, normalize=True)) == ["inserted"]
    stored = np.frombuffer(contents(collection, unit)["a"][1], "<f4")
    assert np.allclose(stored, row, atol=1e-6)


def test_a_second_space_joins_the_items_that_are_there(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    old = collection.space()
    before = contents(collection, old)
    collection.add_space(SPACE, {})
    assert statuses(put(collection, arrival("i0000", planted_vector("other")))) == ["updated"]
    assert contents(collection, old) == before
    assert contents(collection, SPACE)["i0000"][0] == sha("text 0")
    row = collection.items.search().where("id = 'i0000'").to_list()[0]
    assert (row["text"], row["source"], row["media_type"]) == ("text 0", "rows#i0000", "text/plain")
    # again: nothing to do; and another vector is another version, in all Spaces
    assert statuses(put(collection, arrival("i0000", planted_vector("other")))) == ["unchanged"]
    assert statuses(put(collection, arrival("i0000", planted_vector("third")))) == ["updated"]
    assert set(contents(collection, old)) == {"i0001", "i0002"}


def test_one_content_has_one_vector_in_a_space(tmp_path: Path) -> None:
    collection = filled(tmp_path, 2)
    space = collection.space()
    same, other = planted_vector("text 0"), planted_vector("not it")
    before = contents(collection, space)
    near = (same + np.float32(1e-4)).astype(np.float32)
    again = arrival("i0000", near / np.linalg.norm(near), "text 0", sha("text 0"))
    again = replace(again, item=replace(again.item, source="rows#i0000"))
    assert statuses(put(collection, again, space=space)) == ["unchanged"]
    said = put(collection, arrival("i0000", other, "text 0", sha("text 0")), space=space)
    assert statuses(said) == ["other_vector"]
    assert "delete the item" in said[0].message
    assert contents(collection, space) == before
    changed = put(collection, arrival("i0000", other, "new text", sha("new text")), space=space)
    assert statuses(changed) == ["updated"]
    assert contents(collection, space)["i0000"] == (sha("new text"), other.tobytes())


def test_parts_come_and_stay_together(tmp_path: Path) -> None:
    collection = ready(tmp_path)
    parts = np.stack([planted_vector(str(i)) for i in range(3)])
    assert statuses(put(collection, arrival("a", parts), arrival("b", parts[:1]))) == ["inserted", "inserted"]
    rows = collection.vectors(SPACE).search().where("id = 'a'").to_arrow().sort_by("part")
    assert rows["part"].to_pylist() == [0, 1, 2]
    assert np.array_equal(np.array(rows["vector"].to_pylist(), dtype=np.float32), parts)
    assert statuses(put(collection, arrival("a", parts))) == ["unchanged"]
    broken = parts.copy()
    broken[1] = np.inf
    assert statuses(put(collection, arrival("a", broken))) == ["non_finite"]
    assert inspect.verify(collection).problems == []


def test_a_writer_that_dies_between_the_two_commits_is_repaired_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = ready(tmp_path)

    def die(point: str) -> None:
        if point == "vectors":
            raise KeyboardInterrupt

    batch = [arrival(str(i), planted_vector(str(i))) for i in range(5)]
    monkeypatch.setattr(files, "fault", die)
    with pytest.raises(KeyboardInterrupt):
        put(collection, *batch)
    monkeypatch.undo()
    assert (collection.count(), contents(collection, SPACE)) == (5, {})
    assert set(statuses(put(collection, *batch))) == {"updated"}
    assert len(contents(collection, SPACE)) == 5
    assert inspect.verify(collection).problems == []


def test_what_a_person_set_by_hand_is_not_reverted(tmp_path: Path) -> None:
    from index import commit

    collection = ready(tmp_path)
    commit.ensure_columns(collection, {"label": "string"})
    one = arrival("a", planted_vector("a"), columns={"label": "cat"})
    put(collection, one)
    commit.edit(collection, "a", {"label": "dog"}, by="me")
    assert statuses(put(collection, one)) == ["unchanged"]
    assert collection.items.search().to_list()[0]["label"] == "dog"
    other = replace(one, item=replace(one.item, columns={"label": "cow"}))
    put(collection, other)
    assert collection.items.search().to_list()[0]["label"] == "dog"


def test_an_embed_of_the_same_texts_finds_them_unchanged(tmp_path: Path) -> None:
    collection, encoder = fresh(tmp_path), planted()
    collection.add_space(encoder.space, {})
    texts = {f"t{i}": f"text {i}" for i in range(4)}
    batch = [arrival(id, planted_vector(text), text, sha(text)) for id, text in texts.items()]
    put(collection, *batch, space=encoder.space)
    found = run(collection, Rows(texts), encoder)
    assert (found.embedded, found.unchanged) == (0, 4)
