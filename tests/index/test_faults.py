"""Writes that fail, and kills: after the same command again, the store is the undisturbed one, by value.

`--all-writes` makes every write of every act fail in turn, else every fourth does; `--kills N` kills at N instants.
"""

from __future__ import annotations

import errno
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from embedder.errors import PermafrostError
from index import build, commit, files, inspect
from index.edits import edits
from index.store import Collection, Store
from tests.index import zygote
from tests.index.tools import Rows, contents, planted, run

LABELS = {"label": "string"}
FIRST = Rows({f"{k}": f"text {k}" for k in range(7)}, {"1": {"label": "a"}, "2": {"label": "b"}}, LABELS)
SECOND = Rows({f"{k}": f"text {k % 4}" for k in range(3, 9)} | {"bad": ""}, {"5": {"label": "c"}}, LABELS)
OTHER = planted(salt="b")
STRIDE = 4
Act = Callable[[Collection], Any]
ACTS: dict[str, Act] = {
    "embed": lambda c: run(c, FIRST),
    "edit": lambda c: commit.edit(c, "1", {"label": "by hand"}, by="test"),
    "embed changed": lambda c: run(c, SECOND),
    "second space": lambda c: run(c, FIRST, OTHER),
    "compact": lambda c: [commit.compact(c, e.space) for e in (planted(), OTHER)],
    "delete": lambda c: commit.delete_ids(c, ["2", "6"]),
    "index": lambda c: build.build(c, planted().space, kind="flat"),
    "prune": lambda c: run(c, SECOND, prune=True),
}


def values(collection: Collection) -> dict[str, Any]:
    """All that a collection holds, by id; keys and checksums, which contain keys, are left out."""
    rows = collection.items.search().to_arrow().to_pylist()
    items = {row["id"]: {n: v for n, v in row.items() if n not in ("key", "row_crc")} for row in rows}
    assert len(items) == len(rows), "an id is there twice"
    vectors = {s.fingerprint: contents(collection, s) for s in collection.spaces().values()}
    settings = collection.settings
    return {
        "items": items, "vectors": vectors, "edits": edits(collection),
        "aliases": settings["aliases"], "roots": settings["roots"],
    }  # fmt: skip


def opened(folder: Path) -> Collection:
    return Store.open(folder, create=True).collection("c", create=True)


class Disk:
    """The n-th write fails, as a full disk does or a broken one."""

    def __init__(self, n: int) -> None:
        self.n, self.seen = n, list[str]()
        self.code = random.Random(n).choice([errno.ENOSPC, errno.EIO])

    def __call__(self, point: str) -> None:
        self.seen.append(point)
        if len(self.seen) == self.n:
            raise OSError(self.code, os.strerror(self.code), point)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, value in (("ingest.COMMIT_ROWS", 4), ("commit.OPTIMIZE_AFTER", 1)):
        monkeypatch.setattr(f"index.{name}", value)
    monkeypatch.setattr("embedder.extract.WINDOW", 4)
    yield
    monkeypatch.setattr(files, "fault", lambda point: None)


@pytest.mark.usefixtures("small")
def test_whichever_write_of_any_act_fails_it_says_so_and_a_second_try_ends_in_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pytestconfig: pytest.Config
) -> None:
    stride = 1 if pytestconfig.getoption("--all-writes") else STRIDE
    before, after = tmp_path / "before", tmp_path / "after"
    opened(before)
    points: list[str] = []
    tried = 0
    for name, act in ACTS.items():
        shutil.copytree(before, after)
        undisturbed = Disk(0)
        monkeypatch.setattr(files, "fault", undisturbed)
        act(opened(after))
        monkeypatch.setattr(files, "fault", lambda point: None)
        expected = values(opened(after))
        points += undisturbed.seen
        for n in range(1 + random.Random(name).randrange(stride), len(undisturbed.seen) + 1, stride):
            store, disk = tmp_path / "failing", Disk(n)
            shutil.copytree(before, store)
            monkeypatch.setattr(files, "fault", disk)
            with pytest.raises((OSError, PermafrostError)):
                act(opened(store))
            monkeypatch.setattr(files, "fault", lambda point: None)
            assert disk.seen[:n] == undisturbed.seen[:n], f"{name}: another write than the {n}-th failed"
            act(opened(store))
            assert values(opened(store)) == expected, f"{name}: write {n} ({disk.seen[n - 1]})"
            assert inspect.verify(opened(store)).problems == []
            assert not list(store.rglob(".tmp-*")), "a file aside was left"
            shutil.rmtree(store)
            tried += 1
        shutil.rmtree(before)
        after.rename(before)
    wanted = {"items", "vectors", "edits", "delete", "optimize", "columns", "table", "failures", "index:swap"}
    assert wanted <= set(points)
    assert len(points) > 50
    assert tried >= len(points) // stride - len(ACTS)


def test_a_table_that_was_half_made_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "store" / "c"
    for name in ("items", "edits", f"vectors_{planted().space.fingerprint}"):
        for part in ("_versions", "data"):
            (folder / f"{name}.lance" / part).mkdir(parents=True)
    files.write_json(tmp_path / "store" / "permafrost.json", {"format": 1})
    collection = opened(tmp_path / "store")
    assert collection.spaces() == {}
    assert run(collection, FIRST).embedded == 7
    assert set(contents(collection, planted().space)) == {str(k) for k in range(7)}


@pytest.fixture
def writers() -> Iterator[Callable[[Path, str], str]]:
    command = [sys.executable, "-m", "tests.index.zygote"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        ask, answers = process.stdin, process.stdout

        def write(store: Path, instant: str) -> str:
            ask.write(f"{store} {instant}\n")
            ask.flush()
            return answers.readline().strip()

        yield write
        ask.close()


def test_killed_at_any_instant_the_next_run_ends_in_the_same_store(
    tmp_path: Path, writers: Callable[[Path, str], str], pytestconfig: pytest.Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the instants are writes, spread over the run; half are moments drawn from the time that a run takes.

    A kill costs the vectors that were made and not yet committed: one commit's at most, counted as they are made.
    """
    kills = int(pytestconfig.getoption("--kills"))
    clean, points = tmp_path / "clean", list[str]()
    monkeypatch.setattr("embedder.extract.WINDOW", zygote.BATCH)
    monkeypatch.setattr("index.ingest.COMMIT_ROWS", zygote.BATCH)
    monkeypatch.setattr(files, "fault", points.append)
    run(opened(clean), zygote.rows(), batch_size=zygote.PASS)
    monkeypatch.setattr(files, "fault", lambda point: None)
    expected = values(opened(clean))
    chance = random.Random(kills)
    caught, partial, costs = 0, 0, list[int]()
    stride = max(1, 2 * len(points) // kills)
    for n in range(kills):
        store = tmp_path / f"k{n}"
        instant = f"@{n // 2 * stride % len(points) + 1}" if n % 2 else f"{chance.uniform(0.01, 0.4):.3f}"
        ended = writers(store, instant)
        assert ended in ("killed", "exit 0"), f"kill {n} at {instant}: {ended}"
        assert ended == "killed" or not instant.startswith("@")
        caught += ended == "killed"
        already = 0
        if (store / "c" / "collection.json").exists() and opened(store).spaces():
            already = len(contents(opened(store), planted().space))
        partial += 0 < already < zygote.N
        log = store.with_suffix(".log")
        last = run(opened(store), zygote.rows(), zygote.logging(log), batch_size=zygote.PASS)
        made = zygote.made(log)
        assert set(made) == {text for _, text in zygote.rows().rows}
        costs.append(made.total() - zygote.N)
        assert costs[-1] <= zygote.BATCH, f"kill {n} at {instant}: {costs[-1]} made again, a commit is {zygote.BATCH}"
        assert last.unchanged == already, f"kill {n} at {instant}"
        assert values(opened(store)) == expected, f"kill {n} at {instant}"
        assert inspect.verify(opened(store)).problems == []
        shutil.rmtree(store)
    assert caught >= kills // 2
    assert partial >= kills // 6, "too few runs were caught between two commits"
    assert max(costs) > 0 or kills < 10, "no kill cost anything: what is counted is not what is lost"
