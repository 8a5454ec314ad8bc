"""What a run knows of the store, beside a plain dictionary; and the files that it hashes, or does not open."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.records import Item
from embedder.sources.folder import Folder
from embedder.sourcing import SourceOptions
from index import commit
from index import known as known_module
from index.known import Facts, KeySet, Known, Seen, digest_of
from tests.index.tools import Rows, contents, filled, fresh, planted, run

SPACE = planted().space


@pytest.mark.parametrize("collide", [False, True])
def test_ids_are_found_as_in_a_dictionary_also_where_every_hash_collides(
    tmp_path: Path, collide: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if collide:
        monkeypatch.setattr(known_module, "_hashes", lambda ids: np.array([len(i) % 2 for i in ids], dtype=np.int64))
    collection = filled(tmp_path, 40)
    facts = Facts.read(collection)
    order = facts.said["id"].to_pylist()
    asked = ["i0007", "nobody", "i0039", "", "i0000", "half \ud800", "i00071"]
    found = facts.find(asked).tolist()
    assert found == [order.index(id) if id in order else -1 for id in asked]
    assert facts.find([]).tolist() == []
    assert Facts.read(collection, ["i0003", "nobody"]).said["id"].to_pylist() == ["i0003"]
    assert facts.nbytes / 40 < 250


def test_an_empty_collection_is_known(tmp_path: Path) -> None:
    known = Known.read(fresh(tmp_path), SPACE)
    assert known.picture.facts.find(["a", "b"]).tolist() == [-1, -1]
    assert known.have(np.array([-1, -1])).tolist() == [False, False]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 90)), st.lists(st.integers(0, 90)), st.lists(st.integers(0, 200)))
def test_a_set_of_keys_is_a_set(first: list[int], second: list[int], asked: list[int]) -> None:
    held = KeySet(np.array(first, dtype=np.int64))
    held.add(np.array(second, dtype=np.int64))
    both = {*first, *second}
    assert held.holds(np.array(asked, dtype=np.int64)).tolist() == [key in both for key in asked]
    assert held.keys.tolist() == sorted(both)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.integers(0, 12), max_size=8), max_size=6))
def test_an_id_comes_for_the_first_time_once(windows: list[list[int]]) -> None:
    class Six:
        def __len__(self) -> int:
            return 6

    seen, before = Seen(Six()), set[int]()  # type: ignore[arg-type]
    for window in windows:
        rows = np.array([n if n < 6 else -1 for n in window], dtype=np.int64)
        expected = [n not in before and n not in window[:i] for i, n in enumerate(window)]
        assert seen.admit([f"i{n}" for n in window], rows).tolist() == expected
        before.update(window)


def test_hashes_that_are_no_hex_are_names_too() -> None:
    assert digest_of("ab" * 32) == bytes.fromhex("ab" * 32)
    assert digest_of("odd") == hashlib.sha256(b"odd").digest()
    assert len({digest_of(text) for text in ("a" * 64, "a" * 62 + "  ", "a " * 32, "")}) == 4


@pytest.mark.parametrize(
    ("stored", "said", "same"),
    [
        ({"n": 1, "f": float("nan"), "b": True, "s": "x"}, {"n": 1, "f": float("nan"), "b": True, "s": "x"}, True),
        ({"n": 1}, {"n": 2}, False), ({"n": 1}, {"n": None}, False), ({"n": None}, {"n": None}, True),
        ({"n": None}, {"n": 0}, False), ({"s": ""}, {"s": None}, False), ({"f": 0.5}, {"f": 0.25}, False),
        ({"n": 1}, {"n": "1"}, False), ({"n": 1}, {"other": None}, True), ({"n": 1}, {"other": 1}, False),
    ],
)  # fmt: skip
def test_columns_are_compared_by_value(
    tmp_path: Path, stored: dict[str, Any], said: dict[str, Any], same: bool
) -> None:
    types = {"n": "int", "f": "float", "b": "bool", "s": "string"}
    collection = filled(tmp_path, 2, columns={"i0001": stored}, types=types)
    facts = Facts.read(collection)
    item = Item(id="i0001", medium="text", source="rows#i0001", text="text 1", columns=said)
    assert facts.describe(facts.find(["i0001"]), [item], {}).tolist() == [same]
    moved = Item(id="i0001", medium="text", source="elsewhere", text="text 1", columns=said)
    assert not facts.describe(facts.find(["i0001"]), [moved], {})[0]


def folder(path: Path, texts: dict[str, str]) -> Folder:
    path.mkdir(exist_ok=True)
    for name, text in texts.items():
        (path / name).write_text(text)
    return Folder(path, SourceOptions(media="text"))


def test_an_unchanged_file_is_not_opened_and_rehash_opens_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"{k}.txt": f"text {k}" for k in range(8)}
    source, collection = folder(tmp_path / "in", {**texts, "bom.txt": "\ufeffmarked"}), fresh(tmp_path)
    assert run(collection, source).embedded == 9
    opened: list[str] = []
    from index import changes

    real = changes.read_file
    monkeypatch.setattr(changes, "read_file", lambda path: opened.append(path) or real(path))
    assert run(collection, source).unchanged == 9
    assert opened == []
    before = contents(collection, SPACE)
    # the same size and time, another content: what only hashing can see
    stat = (tmp_path / "in" / "3.txt").stat()
    (tmp_path / "in" / "3.txt").write_text("text X")
    os.utime(tmp_path / "in" / "3.txt", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert run(collection, source).unchanged == 9
    assert contents(collection, SPACE) == before
    again = run(collection, source, rehash=True)
    assert (again.embedded, again.unchanged, len(opened)) == (1, 8, 9)
    assert {id for id, row in contents(collection, SPACE).items() if row != before[id]} == {"3.txt"}


def test_a_touched_file_is_hashed_and_not_embedded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, collection = folder(tmp_path / "in", {f"{k}.txt": f"text {k}" for k in range(4)}), fresh(tmp_path)
    run(collection, source)
    keys = Facts.read(collection).keys.tolist()
    os.utime(tmp_path / "in" / "2.txt", ns=(5, 5))
    (tmp_path / "in" / "1.txt").write_text("other")
    result = run(collection, source)
    assert (result.embedded, result.unchanged) == (1, 3)
    rows = {row["id"]: row["mtime_ns"] for row in collection.items.search().to_arrow().to_pylist()}
    assert rows["2.txt"] == 5
    assert len(set(keys) & set(Facts.read(collection).keys.tolist())) == 3
    version = collection.items.version
    assert run(collection, source).unchanged == 4
    assert collection.items.version == version


def test_an_edit_of_another_process_during_a_run_stays(tmp_path: Path) -> None:
    """The run has read the edits before; the commit must not write the source's word over the person's."""
    texts = {f"{k}": f"text {k}" for k in range(3)}
    source = Rows(texts, {"0": {"label": "cat"}}, {"label": "string"})
    collection = fresh(tmp_path)
    run(collection, source)

    class Edited(Rows):
        def __iter__(self):  # type: ignore[no-untyped-def]
            for item in super().__iter__():
                if item.id == "1":  # type: ignore[union-attr]
                    commit.edit(collection, "0", {"label": "tiger"}, by="person")
                yield item

    changed = Edited({**texts, "0": "changed"}, {"0": {"label": "dog"}}, {"label": "string"})
    assert run(collection, changed).embedded == 1
    rows = {row["id"]: row["label"] for row in collection.items.search().to_arrow().to_pylist()}
    assert rows["0"] == "tiger"
