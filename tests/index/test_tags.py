from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import lancedb
import numpy as np
import pytest

from embedder.errors import Refused, UnknownName, UsageError
from index import build, commit, contents, files, inspect, restoring, tags, vacuum
from index.features import features
from index.search import search
from index.store import Collection, Store
from tests.index.tools import Rows, filled, fresh, planted, planted_vector, run, view
from tests.index.tools import contents as stored

SPACE = planted().space


def state(collection: Collection) -> tuple[dict[str, tuple[str, bytes]], list[dict[str, object]], str]:
    rows = collection.items.search().to_arrow().sort_by("id").to_pylist()
    return stored(collection, SPACE), rows, contents.root(collection)


def test_a_tag_brings_back_items_edits_and_vectors_after_everything_was_cleaned_away(tmp_path: Path) -> None:
    collection = filled(tmp_path, 30, columns={"i0001": {"year": 1}}, types={"year": "int"})
    commit.edit(collection, "i0002", {"year": 2}, by="test")
    before = state(collection)
    made = tags.create(collection, "good")
    commit.delete_ids(collection, [f"i{k:04d}" for k in range(20)])
    commit.edit(collection, "i0025", {"year": 9}, by="test")
    run(collection, Rows({"i0026": "other text", "new": "row"}, {"new": {"colour": "red"}}, {"colour": "string"}))
    after = state(collection)
    vacuum.vacuum(collection, keep_s=0)
    done = restoring.to_tag(collection, "good")
    assert (done.source, done.items, done.changed, done.vectors) == ("tag good", 30, 23, 21)
    assert done.before < done.after
    found = state(collection)
    assert found[0] == before[0]
    assert [{k: v for k, v in row.items() if k != "colour"} for row in found[1]] == before[1]
    assert found[2] == before[2]
    assert made.version == tags.find(collection, "good").version
    # and back again: the edit of i0025 too
    restoring.to_tag(collection, done.undo)
    assert state(collection) == after
    assert inspect.verify(collection).problems == []


def test_edits_are_as_they_were_so_that_a_run_after_a_restore_reverts_none_of_them(tmp_path: Path) -> None:
    rows = Rows({"a": "x", "b": "y"}, {"a": {"year": 1}, "b": {"year": 1}}, {"year": "int"})
    collection = fresh(tmp_path)
    run(collection, rows)
    commit.edit(collection, "a", {"year": 5}, by="me")
    tags.create(collection, "t")
    commit.edit(collection, "a", {"year": 6}, by="me")
    commit.edit(collection, "b", {"year": 7}, by="me")
    restoring.to_tag(collection, "t")
    run(collection, rows)
    assert {r["id"]: r["year"] for r in collection.items.search().to_arrow().to_pylist()} == {"a": 5, "b": 1}


def test_a_key_is_never_used_again_after_a_restore_and_an_old_index_ranks_no_dead_row(tmp_path: Path) -> None:
    collection = filled(tmp_path, 10)
    tags.create(collection, "t")
    run(collection, Rows({f"j{k}": f"later {k}" for k in range(10)}))
    build.build(collection, SPACE, kind="flat")
    later = set(collection.items.search().to_arrow()["key"].to_pylist())
    restoring.to_tag(collection, "t")
    hits = search(view(collection), planted_vector("later 3")[None], k=20)[0].hits
    assert sorted(hit.id for hit in hits) == [f"i{k:04d}" for k in range(10)]
    run(collection, Rows({f"k{n}": f"newest {n}" for n in range(5)}))
    newest = set(collection.items.search().where("id LIKE 'k%'").to_arrow()["key"].to_pylist())
    assert len(newest) == 5
    assert min(newest) > max(later)


def test_a_version_is_restored_with_the_edits_and_vectors_of_its_time(tmp_path: Path) -> None:
    collection = filled(tmp_path, 10, columns={"i0001": {"year": 1}}, types={"year": "int"})
    commit.edit(collection, "i0003", {"year": 3}, by="test")
    before, version = state(collection), int(collection.items.version)
    commit.edit(collection, "i0003", {"year": 4}, by="test")
    commit.delete_ids(collection, ["i0000"])
    vacuum.vacuum(collection)
    done = restoring.to_version(collection, version)
    assert state(collection) == before
    assert (done.source, done.vectors) == (f"version {version}", 1)
    with pytest.raises(UnknownName, match="version 99999"):
        restoring.to_version(collection, 99999)


def test_a_space_that_came_later_stays_and_says_what_it_lacks(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    tags.create(collection, "t")
    other = planted(salt="b")
    commit.delete_ids(collection, ["i0000"])
    run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(1, 5)}), other)
    restoring.to_tag(collection, "t")
    spaces = {s["fingerprint"]: s for s in inspect.describe(collection)["spaces"]}
    assert (spaces[other.space.fingerprint]["vectors"], spaces[other.space.fingerprint]["missing"]) == (4, 1)


def test_a_tag_is_a_database_of_its_own_that_shares_its_files(tmp_path: Path) -> None:
    collection = filled(tmp_path, 50)
    tags.create(collection, "t")
    copy = collection.path / "tags" / "t"
    data = list((copy / f"vectors_{SPACE.fingerprint}.lance" / "data").glob("*.lance"))
    assert [os.stat(path).st_nlink for path in data] == [2] * len(data)
    assert lancedb.connect(str(copy)).open_table("items").count_rows() == 50


def test_where_files_cannot_be_linked_they_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*args: object) -> None:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", no_links)
    collection = filled(tmp_path, 5)
    before = state(collection)
    tags.create(collection, "t")
    commit.delete_ids(collection, ["i0001"])
    vacuum.vacuum(collection, keep_s=0)
    restoring.to_tag(collection, "t")
    assert state(collection) == before


def test_names_of_tags_are_taken_once_and_unknown_ones_are_answered(tmp_path: Path) -> None:
    collection = filled(tmp_path, 2)
    with pytest.raises(UnknownName, match="'x'") as caught:
        restoring.to_tag(collection, "x")
    assert "none yet" in caught.value.hint
    tags.create(collection, "release")
    with pytest.raises(Refused, match="there is a tag"):
        tags.create(collection, "release")
    with pytest.raises(UnknownName) as caught:
        tags.remove(collection, "realease")
    assert "did you mean release" in caught.value.hint
    with pytest.raises(UsageError):
        tags.create(collection, "../x")
    tags.remove(collection, "release")
    assert tags.listed(collection) == []
    assert list((collection.path / "tags").iterdir()) == []


@pytest.mark.parametrize("point", ["tag:link", "tag:rename", "restore:edits", "restore:items", "file:restoring.json"])
def test_a_killed_tag_leaves_none_and_a_killed_restore_is_finished(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    collection = filled(tmp_path, 10, columns={"i0001": {"year": 1}}, types={"year": "int"})
    before = state(collection)
    if point.startswith("tag"):
        killed(monkeypatch, point, lambda: tags.create(collection, "t"))
        assert tags.listed(collection) == []
        tags.create(collection, "t")
    else:
        tags.create(collection, "t")
    commit.delete_ids(collection, ["i0003"])
    commit.edit(collection, "i0004", {"year": 8}, by="test")
    if not point.startswith("tag"):
        changed = state(collection)
        killed(monkeypatch, point, lambda: restoring.to_tag(collection, "t"))
        collection = Store.open(tmp_path / "store").collection("c")
        assert restoring.finish(collection) == (point != "file:restoring.json")
        assert state(collection) == (changed if point == "file:restoring.json" else before)
    restoring.to_tag(collection, "t")
    assert state(collection) == before
    assert len(features(collection, SPACE).X) == 10
    assert np.isfinite(features(collection, SPACE).X).all()


def killed(monkeypatch: pytest.MonkeyPatch, point: str, act: Callable[[], object]) -> None:
    """Do something, and die when it comes to `point`."""

    def fault(at: str) -> None:
        if at == point:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(files, "fault", fault)
        with pytest.raises(KeyboardInterrupt):
            act()
