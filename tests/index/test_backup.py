from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from embedder.errors import Damaged, Refused, UnknownName, UsageError
from index import backup, build, commit, contents, files, inspect, vacuum
from index.search import search
from index.store import Store
from tests.index.test_inspect import flip_in_lance
from tests.index.tools import Rows, filled, fresh, planted, planted_vector, run, view
from tests.index.tools import contents as stored

SPACE = planted().space


def written(tmp_path: Path) -> tuple[Store, Path]:
    collection = filled(tmp_path, 40, columns={"i0001": {"year": 1}}, types={"year": "int"})
    run(collection, Rows({"i0003": "text 3"}), planted(salt="b"))
    commit.edit(collection, "i0002", {"year": 2}, by="test")
    commit.delete_ids(collection, ["i0009"])
    build.build(collection, SPACE, kind="flat")
    store = Store.open(tmp_path / "store")
    (done,) = backup.write(store, ["c"], tmp_path / "backup")
    assert (done.items, sorted(done.vectors.values())) == (39, [1, 39])
    assert done.root == contents.root(collection)
    return store, tmp_path / "backup"


def test_a_backup_is_restored_elsewhere_with_the_same_root_hash_and_goes_on_living(tmp_path: Path) -> None:
    store, path = written(tmp_path)
    collection = store.collection("c")
    shutil.move(path, tmp_path / "moved")
    other = Store.open(tmp_path / "elsewhere", create=True)
    done = backup.restore(other, tmp_path / "moved", "c", into="again")
    again = other.collection("again")
    assert done.root == contents.root(again) == contents.root(collection)
    assert stored(again, SPACE) == stored(collection, SPACE)
    query = planted_vector("text 7")[None]
    assert [h.id for h in search(view(again), query, k=9)[0].hits] == [
        h.id for h in search(view(collection), query, k=9)[0].hits
    ]
    before = set(again.items.search().to_arrow()["key"].to_pylist())
    ran = run(again, Rows({f"i{k:04d}": f"text {k}" for k in range(41)}, {}, {"year": "int"}))
    assert (ran.embedded, ran.unchanged) == (2, 39)
    assert len(set(again.items.search().to_arrow()["key"].to_pylist()) - before) == 2
    assert again.items.search().where("id = 'i0002'").to_arrow()["year"].to_pylist() == [2]
    assert inspect.verify(again).problems == []
    assert again.golden(SPACE) == collection.golden(SPACE)


def test_a_backup_is_a_store_that_opens_as_it_is(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    assert Store.open(path).names() == ["c"]
    assert inspect.verify(Store.open(path).collection("c")).problems == []
    assert [one.collection for one in backup.check(path)] == ["c"], "reading it changes nothing that is checked"


@pytest.mark.parametrize("seed", range(12))
def test_a_flipped_bit_anywhere_in_a_backup_is_found_and_nothing_is_restored(tmp_path: Path, seed: int) -> None:
    store, path = written(tmp_path)
    chance = random.Random(seed)
    victim = chance.choice(sorted(p for p in path.rglob("*") if p.is_file() and p.stat().st_size))
    data = bytearray(victim.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    victim.write_bytes(data)
    with pytest.raises(Damaged) as caught:
        backup.restore(store, path, "c", into="x")
    assert victim.name in caught.value.what
    assert store.names() == ["c"]
    assert not list(store.path.glob(".tmp-*"))


def test_a_missing_or_added_file_is_found(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    (path / "c" / "extra").write_text("x")
    with pytest.raises(Damaged, match="extra in the backup"):
        backup.check(path)
    (path / "c" / "extra").unlink()
    (path / "c" / "keys.json").unlink()
    with pytest.raises(Damaged, match="missing in the backup"):
        backup.check(path)
    with pytest.raises(UsageError, match="not a backup"):
        backup.check(tmp_path)


def test_a_damaged_row_is_not_backed_up_as_if_it_were_sound(tmp_path: Path) -> None:
    collection = filled(tmp_path, 10)
    assert flip_in_lance(collection, stored(collection, SPACE)["i0004"][1], 0)
    with pytest.raises(Damaged, match="i0004"):
        backup.write(Store.open(tmp_path / "store"), ["c"], tmp_path / "backup")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["store"]
    assert list((collection.path / "tags").iterdir()) == []


def test_a_backup_is_one_moment_although_writers_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(tmp_path, 20)
    before = contents.root(collection)
    real = backup._fill
    written_meanwhile = []

    def fill(*args: object) -> int:
        if not written_meanwhile:
            run(collection, Rows({"late": "row"}))
            commit.delete_ids(collection, ["i0001"])
            vacuum.vacuum(collection, keep_s=0)
            written_meanwhile.append(True)
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(backup, "_fill", fill)
    (done,) = backup.write(Store.open(tmp_path / "store"), ["c"], tmp_path / "backup")
    assert done.root == before
    assert contents.root(Store.open(tmp_path / "backup").collection("c")) == before


def test_names_and_places_that_cannot_be_are_refused(tmp_path: Path) -> None:
    store, path = written(tmp_path)
    with pytest.raises(Refused, match="has a collection 'c'"):
        backup.restore(store, path, "c")
    with pytest.raises(UnknownName, match="'d'"):
        backup.restore(store, path, "d")
    with pytest.raises(UsageError, match="not an empty folder"):
        backup.write(store, ["c"], path)
    with pytest.raises(UsageError, match="in the store itself"):
        backup.write(store, ["c"], store.path / "inside")


def test_the_root_hash_is_of_contents_and_of_nothing_else(tmp_path: Path) -> None:
    rows = {f"i{k}": f"text {k}" for k in range(9)}
    one, two = fresh(tmp_path / "1"), fresh(tmp_path / "2")
    run(one, Rows(rows))
    for id, text in reversed(rows.items()):
        run(two, Rows({id: "before"}))
        run(two, Rows({id: text}))
    commit.delete_ids(two, [])
    run(two, Rows({"gone": "x"}))
    commit.delete_ids(two, ["gone"])
    assert contents.root(one) == contents.root(two)
    seen = {contents.root(one)}
    commit.edit(one, "i1", {"group": "g"}, by="test")
    seen.add(contents.root(one))
    run(one, Rows({"i2": "other"}))
    seen.add(contents.root(one))
    run(one, Rows({"i3": "text 3"}), planted(salt="b"))
    seen.add(contents.root(one))
    assert len(seen) == 4


def test_a_list_that_was_written_again_by_hand_is_refused(tmp_path: Path) -> None:
    _, path = written(tmp_path)
    record = json.loads((path / "backup.json").read_bytes())
    record["collections"][0]["root"] = "0" * 64
    files.write_json(path / "backup.json", record)
    with pytest.raises(Damaged, match=r"backup\.json fails its checksum"):
        backup.check(path)
