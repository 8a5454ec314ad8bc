from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from embedder.errors import Locked, Refused, UsageError
from index import build, commit, files, inspect, purge, readers, tags, vacuum
from index.search import search
from index.store import Store
from tests.index.tools import Rows, brute, contents, filled, fresh, planted, planted_vector, run, view

SPACE = planted().space
READER = """
import sys, time
import numpy as np
from index.search import search
from index.store import Store
from index.view import View
from tests.index.tools import planted_vector
c = Store.open(sys.argv[1]).collection("c")
view, n, end = View(c, c.space()), 0, time.monotonic() + float(sys.argv[2])
print("ready", flush=True)
while time.monotonic() < end:
    i = 200 + n % 100
    hits = search(view, planted_vector(f"text {i}")[None], k=3, where=None if n % 2 else "id LIKE 'i%'")[0].hits
    assert len(hits) == 3 and hits[0].id == f"i{i:04d}" and abs(hits[0].score - 1) < 1e-6, (i, hits)
    n += 1
print(n)
"""


def test_a_vacuum_sweeps_compacts_and_keeps_every_live_row(tmp_path: Path) -> None:
    collection = filled(tmp_path, 60)
    for k in range(30):
        run(collection, Rows({f"x{k}": f"more {k}"}))
    commit.delete_ids(collection, [f"i{k:04d}" for k in range(30)])
    before = contents(collection, SPACE)
    done = vacuum.vacuum(collection, keep_s=0)
    assert contents(collection, SPACE) == before
    assert done.swept == 30
    assert done.fragments <= 2 + len(collection.tables())
    assert done.bytes_after < done.bytes_before
    (space,) = inspect.describe(collection)["spaces"]
    assert (space["vectors"], space["dead"], space["missing"]) == (60, 0, 0)
    assert sum(len(collection.table(name).list_versions()) for name in collection.tables()) == 3
    assert vacuum.vacuum(collection, keep_s=0).swept == 0
    with pytest.raises(UsageError):
        vacuum.vacuum(collection, keep_s=-1)


def test_versions_are_kept_for_an_hour_by_default(tmp_path: Path) -> None:
    collection = filled(tmp_path, 10)
    commit.delete_ids(collection, ["i0001"])
    version = int(collection.items.version)
    vacuum.vacuum(collection)
    assert version in {v["version"] for v in collection.items.list_versions()}


def test_disk_and_fragments_stay_bounded_over_many_rounds(tmp_path: Path) -> None:
    collection = filled(tmp_path, 200)
    sizes = []
    for round in range(6):
        run(collection, Rows({f"i{k:04d}": f"text {k} of round {round}" for k in range(200)}))
        commit.edit(collection, "i0001", {"group": f"g{round}"}, by="test")
        sizes.append(vacuum.vacuum(collection, keep_s=0).bytes_after)
    assert max(sizes[1:]) < 1.2 * sizes[0]


def test_leftovers_of_killed_writers_go_and_those_of_living_ones_stay(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    table = collection.path / "items.lance" / "data"
    dead = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone = [table / ".tmpAb12", collection.path / f".tmp-{int(dead.stdout)}-1"]
    mine = collection.path / f".tmp-{os.getpid()}-1"
    for path in (*gone, mine):
        path.write_bytes(b"x" * 1000)
    assert vacuum.vacuum(collection).leftovers == 1
    assert gone[0].exists(), "another program may be writing it"
    assert vacuum.vacuum(collection, keep_s=0).leftovers == 1
    assert [path.exists() for path in gone] == [False, False]
    assert mine.exists()


def test_a_tag_of_another_program_is_named_and_stops_no_vacuum(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    collection.items.tags.create("theirs", collection.items.version)
    commit.delete_ids(collection, ["i0001"])
    assert vacuum.vacuum(collection, keep_s=0).kept_by_lance_tags == ["items"]
    with pytest.raises(Refused, match="theirs"):
        purge.purge(collection)


@pytest.mark.parametrize("act", ["vacuum", "purge"])
def test_readers_of_two_processes_see_no_error_and_no_wrong_answer(tmp_path: Path, act: str) -> None:
    collection = filled(tmp_path, 300)
    if act == "vacuum":
        build.build(collection, SPACE, kind="flat")
    reader = subprocess.Popen(
        [sys.executable, "-c", READER, str(tmp_path / "store"), "4"], stdout=subprocess.PIPE, text=True
    )
    assert reader.stdout is not None
    assert reader.stdout.readline() == "ready\n"
    wrong: list[object] = []
    stop = threading.Event()

    def query() -> None:
        mine, n = view(Store.open(tmp_path / "store").collection("c")), 0
        while not stop.is_set():
            n = (n + 1) % 100
            try:
                hits = search(mine, planted_vector(f"text {200 + n}")[None], k=1)[0].hits
                if [hit.id for hit in hits] != [f"i{200 + n:04d}"]:
                    wrong.append(hits)
            except Exception as error:  # noqa: BLE001  whatever it is, a reader must not see it
                wrong.append(error)

    threads = [threading.Thread(target=query) for _ in range(2)]
    for thread in threads:
        thread.start()
    rounds, until = 0, time.monotonic() + 3
    while time.monotonic() < until and reader.poll() is None:
        commit.delete_ids(collection, [f"i{rounds:04d}"])
        run(collection, Rows({f"new{rounds}": f"fresh {rounds}"}))
        if act == "vacuum":
            vacuum.vacuum(collection)
        else:
            purge.purge(collection)
        rounds += 1
    stop.set()
    for thread in threads:
        thread.join()
    out, _ = reader.communicate(timeout=60)
    assert reader.returncode == 0
    assert int(out) > 5
    assert wrong == []
    assert rounds > 1


def test_a_purge_waits_for_a_query_and_lets_no_new_one_in(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    order: list[str] = []
    begun = threading.Event()

    def query() -> None:
        with readers.reading(collection), readers.reading(collection):
            begun.set()
            time.sleep(0.3)
            order.append("read")

    thread = threading.Thread(target=query)
    thread.start()
    begun.wait()
    with pytest.raises(Locked, match="query was still running"):
        purge.purge(collection, wait_s=0.05)
    purge.purge(collection)
    order.append("purged")
    thread.join()
    assert order == ["read", "purged"]


def test_a_purge_is_refused_while_a_run_is_going(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    with files.lease(collection.lock_path(SPACE.fingerprint), what="a run"), pytest.raises(Locked):
        purge.purge(collection)


NEEDLE = "xqz-needle-7319"


def holding(folder: Path, *needles: bytes) -> list[str]:
    found = [p for p in folder.rglob("*") if p.is_file() and any(n in p.read_bytes() for n in needles)]
    return [str(p.relative_to(folder)) for p in found]


def test_a_purge_leaves_the_deleted_bytes_in_no_file(tmp_path: Path) -> None:
    rows = {f"i{k:04d}": f"text {k}" for k in range(300)} | {f"{NEEDLE}-id": f"about {NEEDLE}", "other": "zero"}
    source = Rows(rows, {f"{NEEDLE}-id": {"note": f"note {NEEDLE}"}}, {"note": "string"})
    collection = fresh(tmp_path)
    run(collection, source)
    commit.edit(collection, f"{NEEDLE}-id", {"note": f"edited {NEEDLE}", "group": NEEDLE}, by="test")
    build.build(collection, SPACE, kind="flat")
    build.build(collection, SPACE, kind="faiss_hnsw")
    (collection.path / "runs" / "old").mkdir()
    failed = json.dumps({"id": f"{NEEDLE}-2", "source": NEEDLE, "message": NEEDLE}) + "\n"
    (collection.path / "runs" / "old" / "failures.jsonl").write_text(failed)
    vector = planted_vector(f"about {NEEDLE}")
    needles = (NEEDLE.encode(), vector.tobytes(), vector[:4].tobytes())
    assert len(holding(collection.path, *needles)) > 5
    tags.create(collection, "before")
    commit.delete_ids(collection, [f"{NEEDLE}-id"])
    before = contents(collection, SPACE)
    with pytest.raises(Refused, match="tag before would keep") as caught:
        purge.purge(collection)
    assert "permafrost tag c before --delete" in caught.value.hint
    tags.remove(collection, "before")
    vacuum.vacuum(collection)
    assert holding(collection.path, *needles), "a plain vacuum keeps versions"
    done = purge.purge(collection)
    assert holding(collection.path, *needles) == []
    assert contents(collection, SPACE) == before
    assert (done.edits, [(s, k) for s, k, _ in done.indexes]) == (2, [(SPACE, "faiss_hnsw")])
    found = search(view(collection), planted_vector("text 7")[None], k=5)[0]
    truth = brute({id: np.frombuffer(v, "<f4") for id, (_, v) in before.items()}, planted_vector("text 7"), 5)
    assert [hit.id for hit in found.hits] == [id for id, _ in truth]
    commit.edit(collection, "i0001", {"note": NEEDLE}, by="test")
    commit.delete_ids(collection, ["i0001"])
    tags.create(collection, "late")
    vacuum.vacuum(collection, keep_s=0)
    with pytest.raises(Refused, match="tag late would keep"):
        purge.purge(collection)
    tags.remove(collection, "late")
    purge.purge(collection)
    assert holding(collection.path, *needles) == []
    # a tag of what is still there keeps nothing that was deleted
    tags.create(collection, "after")
    purge.purge(collection)
    assert inspect.verify(collection).problems == []
    assert collection.golden(SPACE).keys() == {"text"}
