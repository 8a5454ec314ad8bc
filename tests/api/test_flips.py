"""A hundred flipped bits, one at a time, over every kind of file of ours: each is named, or changes nothing."""

from __future__ import annotations

import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from api import doctor
from api.service import Service
from api.settings import Settings
from embedder.errors import Damaged
from heads import saved
from index import build, commit, derived, files, inspect, ledger
from index.store import Collection, Store
from index.view import View
from tests.index.test_faults import values
from tests.index.tools import Rows, planted, run, view

N, FLIPS = 40, 100
TEXTS = {f"i{k:02d}": f"text {k} of a subject" for k in range(N)}
SOURCE = Rows(TEXTS, {id: {"label": "ab"[k % 2], "weight": k / 7} for k, id in enumerate(TEXTS)},
              {"label": "string", "weight": "float"})  # fmt: skip
# not ours to lose: records of runs, and what Lance writes for its own use and can do without
PASSED = ("runs", "locks", "_transactions")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "store"
    collection = Store.open(folder, create=True).collection("c", create=True)
    run(collection, SOURCE)
    commit.edit(collection, "i03", {"label": "a"}, by="test")
    run(collection, Rows({**TEXTS, "i05": "changed"}, SOURCE.values, SOURCE.columns))
    commit.delete_ids(collection, ["i09"])
    for kind in ("flat", "faiss_hnsw"):
        build.build(collection, planted().space, kind=kind)
    service = Service(Settings(store=str(folder)))
    service.train("c", label="label", name="head")
    assert service.verify("c", sample=0)["ok"]
    return folder


def whole(folder: Path) -> dict[str, Any]:
    """All that a store answers from, by value."""
    collection = Store.open(folder).collection("c")
    space = planted().space
    loaded = derived.load(collection, space)
    assert loaded is not None
    head = saved.load_head(collection, "head")
    arrays = {key: np.asarray(value).tobytes() for key, value in sorted(head.model.arrays().items())}
    index = (loaded.matrix.tobytes(), loaded.keys.tobytes(), dict(loaded.manifest["measured"]))
    return {**values(collection), "golden": collection.golden(space), "index": index, "head": arrays}


def kinds_of_files(folder: Path) -> list[list[Path]]:
    """Files of one kind together, so that a hundred flips fall on all kinds."""
    groups: dict[tuple[str, str], list[Path]] = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file() and not set(PASSED) & set(p.parts)):
        where = path.relative_to(folder)
        place = where.parts[1] if len(where.parts) > 1 else ""
        groups.setdefault((place, path.suffix), []).append(path)
    return list(groups.values())


def flip(path: Path, chance: random.Random) -> None:
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def named(folder: Path) -> bool:
    """Say whether opening the store, or `verify`, says that something is wrong."""
    try:
        return not Service(Settings(store=str(folder))).verify("c", sample=0)["ok"]
    except Damaged:
        return True


def test_every_flipped_bit_is_named_or_harmless(sound: Path, tmp_path: Path) -> None:
    chance = random.Random(6)
    store = tmp_path / "store"
    shutil.copytree(sound, store)
    expected, groups = whole(store), kinds_of_files(store)
    found: dict[str, int] = {}
    for n in range(FLIPS):
        path = chance.choice(groups[n % len(groups)])
        before = path.read_bytes()
        if not before:
            continue
        flip(path, chance)
        told = named(store)
        if not told:
            assert whole(store) == expected, f"flip {n} in {path.relative_to(store)} changed an answer in silence"
        found[path.suffix] = found.get(path.suffix, 0) + told
        path.write_bytes(before)
    assert set(found) >= {".lance", ".manifest", ".json", ".npy", ".safetensors", ".arrow"}
    assert sum(found.values()) >= FLIPS // 2
    assert whole(store) == expected


@pytest.mark.parametrize("seed", range(4))
def test_of_a_damaged_table_only_the_named_rows_are_redone(sound: Path, tmp_path: Path, seed: int) -> None:
    """The bytes of a value, in items or vectors: the row is named, removed, and made again from the source."""
    store, chance = tmp_path / "store", random.Random(seed)
    shutil.copytree(sound, store)
    expected = values(Store.open(store).collection("c"))
    victim = f"i{chance.randrange(10, N):02d}"
    vector = expected["vectors"][planted().space.fingerprint][victim][1]
    needle = vector if seed % 2 else TEXTS[victim].encode()
    for path in store.rglob("*.lance"):
        if path.is_file() and (at := path.read_bytes().find(needle)) >= 0:
            data = bytearray(path.read_bytes())
            data[at + chance.randrange(len(needle))] ^= 1 << chance.randrange(7)
            path.write_bytes(data)
    collection = Store.open(store).collection("c")
    verdict = inspect.verify(collection)
    assert {p.id for p in verdict.problems} == {victim}
    assert inspect.mend(collection, verdict) == 1
    again = run(collection, Rows({**TEXTS, "i05": "changed"}, SOURCE.values, SOURCE.columns))
    assert again.embedded - 1 == 1, "the damaged row, and the one that was deleted before"
    commit.delete_ids(collection, ["i09"])
    assert values(Store.open(store).collection("c")) == expected
    assert inspect.verify(collection).problems == []


def newest(collection: Collection, table: str) -> Path:
    return min((collection.path / f"{table}.lance" / "_versions").glob("*.manifest"), key=lambda p: int(p.stem))


@pytest.mark.parametrize("table", ["items", f"vectors_{planted().space.fingerprint}", "edits"])
def test_a_lost_newest_manifest_is_refused_and_put_back(sound: Path, tmp_path: Path, table: str) -> None:
    store = tmp_path / "store"
    shutil.copytree(sound, store)
    expected = values(Store.open(store).collection("c"))
    newest(Collection(store / "c"), table).unlink()
    with pytest.raises(Damaged, match=f"of table {table}, the last that was written, is gone") as refused:
        Store.open(store).collection("c")
    assert refused.value.hint == "permafrost verify c --mend"
    service = Service(Settings(store=str(store)))
    assert not service.verify("c", sample=0)["ok"]
    done = service.verify("c", sample=0, mend=True)
    assert done["ok"]
    assert [line.split(":")[0] for line in done["repaired"]] == [f"table {table}"]
    assert values(Store.open(store).collection("c")) == expected
    assert inspect.verify(Store.open(store).collection("c")).problems == []
    assert ledger.repair(Collection(store / "c")) == []


def test_where_the_copy_is_lost_too_what_is_there_is_taken_as_it_is(sound: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(sound, store)
    collection = Collection(store / "c")
    newest(collection, "items").unlink()
    ledger_file = collection.path / ledger.FILE
    known = files.read_json(ledger_file)
    known["tables"]["items"]["manifest"] = known["tables"]["edits"]["manifest"]
    files.write_json(ledger_file, known)
    assert "is lost: embed its source again" in ledger.repair(collection)[0]
    again = Store.open(store).collection("c")
    run(again, Rows({**TEXTS, "i05": "changed"}, SOURCE.values, SOURCE.columns))
    assert again.count() == N
    assert inspect.verify(again).problems == []


def test_an_older_copy_of_the_tables_under_a_newer_ledger_is_taken_as_it_is(sound: Path, tmp_path: Path) -> None:
    store, old = tmp_path / "store", tmp_path / "old"
    shutil.copytree(sound, store)
    shutil.copytree(sound, old)
    run(Store.open(store).collection("c"), Rows({"new": "one more"}))
    before = values(Store.open(old).collection("c"))
    for table in (store / "c").glob("*.lance"):
        shutil.rmtree(table)
        shutil.copytree(old / "c" / table.name, table)
    with pytest.raises(Damaged, match="the last that was written, is gone"):
        Store.open(store).collection("c")
    said = "; ".join(doctor.examine(str(store), mend=True)["mended"])
    assert "the newest manifest of table items is gone" in said
    collection = Store.open(store).collection("c")
    assert values(collection) == before, "a manifest whose rows are not there was not put back"
    assert inspect.verify(collection).problems == []
    assert run(collection, Rows({"new": "one more"})).embedded == 1


def test_writes_without_us_and_a_missing_ledger_are_no_damage(sound: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    shutil.copytree(sound, store)
    collection = Store.open(store).collection("c")
    collection.items.delete("id = 'i01'")
    assert Store.open(store).collection("c").count() == N - 2
    (store / "c" / "ledger.json").unlink()
    assert inspect.verify(Store.open(store).collection("c")).problems == []


def test_damage_is_said_at_the_first_use_and_the_answer_comes(
    sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    store = tmp_path / "store"
    shutil.copytree(sound, store)
    monkeypatch.setattr("index.audit.SHARE", 1.0)
    assert view(Store.open(store).collection("c")).now().rows == N - 1
    assert caplog.text == ""
    Store.open(store).collection("c").vectors(planted().space).update(values={"row_crc": 1})
    assert View(Store.open(store).collection("c"), planted().space).now().rows == N - 1
    assert "sampled vectors of c are damaged: permafrost verify c --mend" in caplog.text
