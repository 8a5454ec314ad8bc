"""kill -9 at random moments, and two writers at once, with real processes."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index import inspect
from index.known import KeySet
from index.store import Store
from tests.index.tools import Rows, contents, fresh, planted, run

N = 400
WRITER = """
import sys, time
import embedder.extract, index.ingest
from index import files
from index.store import Store
from tests.index.tools import Rows, planted, run
embedder.extract.WINDOW = 16
index.ingest.COMMIT_ROWS = 16
files.fault = lambda point: time.sleep(0.02)
store, first, stop, salt = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
collection = Store.open(store, create=True).collection("c", create=True)
print("ready", flush=True)
result = run(collection, Rows({f"i{k}": f"text {k % 377}" for k in range(first, stop)}), planted(salt=salt))
print("done", result.embedded, flush=True)
"""


def start(store: Path, first: int, stop: int, salt: str = "") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(store), str(first), str(stop), salt]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("seed", range(2))
def test_a_killed_run_resumes_to_the_undisturbed_store(tmp_path: Path, seed: int) -> None:
    random_moment = random.Random(seed)
    clean = fresh(tmp_path / "clean")
    run(clean, Rows({f"i{k}": f"text {k % 377}" for k in range(N)}))
    store = tmp_path / "killed"
    kills = 0
    for _ in range(3):
        writer = start(store, 0, N)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(random_moment.uniform(0.02, 0.9))
        writer.send_signal(signal.SIGKILL)
        kills += "done" not in writer.communicate()[0]
    collection = Store.open(store).collection("c")
    already = KeySet.read(collection, planted().space).keys if collection.spaces() else set()
    last = run(collection, Rows({f"i{k}": f"text {k % 377}" for k in range(N)}))
    assert kills >= 1, "no run was caught alive; the moments are too late"
    assert contents(collection, planted().space) == contents(clean, planted().space)
    assert last.unchanged == len(already)
    assert inspect.verify(collection).problems == []


def test_two_processes_on_one_collection_leave_no_doubled_id(tmp_path: Path) -> None:
    """Two Spaces, so that neither waits for the other's lease; both insert the same ids."""
    store = tmp_path / "store"
    fresh(tmp_path)
    writers = [start(store, 0, 300, ""), start(store, 100, N, "b")]
    outputs = [w.communicate(timeout=120)[0] for w in writers]
    assert [o.split()[-1] for o in outputs] == ["300", "300"]
    collection = Store.open(store).collection("c")
    rows = collection.items.search().to_arrow()
    assert sorted(rows["id"].to_pylist()) == sorted(f"i{k}" for k in range(N))
    assert len(set(rows["key"].to_pylist())) == N
    assert len(contents(collection, planted().space)) == 300
    assert len(contents(collection, planted(salt="b").space)) == 300
    assert inspect.verify(collection).problems == []


def test_a_second_run_of_one_space_exits_while_the_first_goes_on(tmp_path: Path) -> None:
    from embedder.errors import Locked
    from index import files

    collection = fresh(tmp_path)
    with files.lease(collection.lock_path(planted().space.fingerprint), what="a run"):
        writer = subprocess.run(
            [sys.executable, "-c", WRITER, str(tmp_path / "store"), "0", "9", ""],
            capture_output=True,
            text=True,
            check=False,
        )
    assert Locked.__name__ in writer.stderr
    assert collection.count() == 0
