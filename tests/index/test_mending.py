"""What a crash leaves behind is found, named and put right, and nothing that is stored is lost by it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from index import build, commit, derived, files, inspect, mending, restoring, tags, vacuum
from index.standing import locks, standing
from index.store import Store
from tests.index.tools import Rows, contents, filled, planted, run

SPACE = planted().space


def found(tmp_path: Path) -> list[mending.Fault]:
    return list(mending.faults(Store.open(tmp_path / "store")))


def mend(tmp_path: Path) -> None:
    for fault in found(tmp_path):
        assert fault.mend is not None
        fault.mend()
    assert found(tmp_path) == []


def test_a_sound_store_has_no_faults(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    build.build(collection, SPACE, kind="flat")
    tags.create(collection, "t")
    assert found(tmp_path) == []


def test_leftovers_everywhere_are_removed_and_nothing_else(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    build.build(collection, SPACE, kind="flat")
    before = contents(collection, SPACE)
    home = derived.folder_of(collection, SPACE)
    gone = [
        collection.path / "items.lance" / "data" / ".tmpXyZ", collection.path / ".tmp-999999999-1",
        collection.path / "tags" / ".tmp-999999999-t" / "x", home / ".tmp-20260101t000000-1" / "matrix.npy",
        home / "20250101t000000-000000001" / "matrix.npy", collection.path / "runs" / "r" / ".tmp-999999999-2",
        collection.path / "heads" / "h" / ".tmp-3" / "head.safetensors", tmp_path / "store" / ".tmp-999999999-c" / "x",
        collection.path / "locks" / "gone.owner.json",
    ]  # fmt: skip
    for path in gone:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"{}")
    assert all(fault.harmless for fault in found(tmp_path))
    mend(tmp_path)
    assert [path for path in gone if path.exists()] == []
    assert contents(collection, SPACE) == before
    assert derived.load(collection, SPACE) is not None


@pytest.mark.parametrize("damage", ["lost", "torn"])
def test_the_counter_of_keys_is_made_again_past_every_key_ever_used(tmp_path: Path, damage: str) -> None:
    collection = filled(tmp_path, 5)
    run(collection, Rows({"late": "row"}))
    tags.create(collection, "t")
    used = {r["key"] for r in collection.items.search().to_arrow().to_pylist()}
    commit.delete_ids(collection, ["late"])
    vacuum.vacuum(collection, keep_s=0)
    path = collection.path / "keys.json"
    path.unlink() if damage == "lost" else path.write_bytes(b'{"ne')
    assert [fault.harmless for fault in found(tmp_path)] == [False]
    mend(tmp_path)
    run(collection, Rows({"new": "text"}))
    keys = {r["key"] for r in collection.items.search().where("id = 'new'").to_arrow().to_pylist()}
    assert min(keys) > max(used)
    assert inspect.verify(collection).problems == []


def test_lost_settings_are_made_again_from_the_tables(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    before = contents(collection, SPACE)
    (collection.path / "collection.json").unlink()
    assert Store.open(tmp_path / "store").names() == []
    mend(tmp_path)
    again = Store.open(tmp_path / "store").collection("c")
    assert again.space() == SPACE
    assert contents(again, SPACE) == before
    (collection.path / "collection.json").write_bytes(b"\0\0")
    mend(tmp_path)
    assert run(again, Rows({f"i{k:04d}": f"text {k}" for k in range(5)})).unchanged == 5


def test_a_killed_deletion_is_finished_and_is_not_taken_for_lost_settings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = filled(tmp_path, 5)

    def dies(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "rmtree", dies)
        with pytest.raises(KeyboardInterrupt):
            Store.open(tmp_path / "store").delete("c")
    assert Store.open(tmp_path / "store").names() == []
    mend(tmp_path)
    assert not collection.path.exists()


def test_an_index_that_points_nowhere_and_an_unfinished_restore(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    before = contents(collection, SPACE)
    tags.create(collection, "t")
    build.build(collection, SPACE, kind="flat")
    shutil.rmtree(derived.folder_of(collection, SPACE) / str(derived.current(collection, SPACE)))
    commit.delete_ids(collection, ["i0001"])
    files.write_json(collection.path / restoring.NOTE, {"tag": "t"})
    assert standing(collection)["unfinished"] == ["restore"]
    assert [fault.harmless for fault in found(tmp_path)] == [False, True]
    mend(tmp_path)
    assert contents(collection, SPACE) == before


def test_an_alias_of_a_space_that_is_gone_is_left_to_a_person(tmp_path: Path) -> None:
    collection = filled(tmp_path, 2)
    collection.change_settings("aliases", "old", "f" * 32)
    (fault,) = found(tmp_path)
    assert fault.mend is None
    assert fault.do == "permafrost alias c old SPACE"


def test_who_holds_a_lock_is_named_and_a_dead_holder_holds_nothing(tmp_path: Path) -> None:
    collection = filled(tmp_path, 2)
    path = collection.lock_path(SPACE.fingerprint)
    holder = subprocess.Popen(
        [
            sys.executable, "-c",
            f"import time; from index import files; from pathlib import Path\n"
            f"with files.lease(Path({str(path)!r}), what='a run'): print('held', flush=True); time.sleep(60)",
        ],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    (lock,) = locks(collection)
    assert (lock["lock"], lock["what"], lock["pid"]) == (SPACE.fingerprint, "a run", holder.pid)
    assert found(tmp_path) == []
    holder.kill()
    holder.communicate()
    assert locks(collection) == []
    assert ["ended" in fault.what for fault in found(tmp_path)] == [True]
    mend(tmp_path)
    assert json.loads((collection.path / "collection.json").read_bytes())["aliases"]
