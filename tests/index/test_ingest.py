from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from embedder.errors import Locked, NothingToDo, Refused, SpaceMismatch, UsageError
from embedder.records import Failure
from index import commit, files, inspect
from index.itself import Itself
from index.store import Collection
from tests.index.tools import Rows, contents, filled, fresh, planted, planted_vector, run

SPACE = planted().space
ROOT = Path(__file__).parents[2]


def keys(collection: Collection) -> dict[str, int]:
    return {r["id"]: r["key"] for r in collection.items.search().to_arrow().to_pylist()}


def column(collection: Collection, name: str) -> dict[str, object]:
    return {r["id"]: r[name] for r in collection.items.search().to_arrow().to_pylist()}


def test_stored_vectors_are_those_of_the_encoder(tmp_path: Path) -> None:
    collection = filled(tmp_path, 30)
    for id, (_, data) in contents(collection, SPACE).items():
        expected = planted_vector(f"text {int(id[1:])}")
        np.testing.assert_allclose(np.frombuffer(data, "<f4"), expected, rtol=1e-6)


def test_a_second_run_changes_nothing(tmp_path: Path) -> None:
    collection = filled(tmp_path, 30)
    before, versions = contents(collection, SPACE), (collection.items.version, collection.vectors(SPACE).version)
    again = run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(30)}))
    assert (again.found, again.embedded, again.unchanged, again.failed) == (30, 0, 30, 0)
    assert contents(collection, SPACE) == before
    assert (collection.items.version, collection.vectors(SPACE).version) == versions


def test_only_what_changed_gets_a_new_key_and_a_new_vector(tmp_path: Path) -> None:
    collection = filled(tmp_path, 5)
    before = keys(collection)
    again = run(
        collection,
        Rows({"front": "new in front"} | {f"i{k:04d}": f"text {k}" for k in range(5)} | {"i0003": "changed"}),
    )
    after = keys(collection)
    assert (again.embedded, again.unchanged) == (2, 4)
    assert after["i0003"] > max(before.values())
    assert {i: k for i, k in after.items() if i not in ("i0003", "front")} == {
        i: k for i, k in before.items() if i != "i0003"
    }
    stored = np.frombuffer(contents(collection, SPACE)["i0003"][1], "<f4")
    np.testing.assert_allclose(stored, planted_vector("changed"), rtol=1e-6)


def test_the_counts_agree_and_every_failure_is_named(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    rows = [
        ("a", "fine"),
        ("b", "   "),
        ("c", "zero vector"),
        ("d", "nan vector"),
        ("a", "again"),
        ("e", "also fine"),
        ("f", "half \ud800"),
    ]
    result = run(collection, Rows(rows))
    assert (result.found, result.embedded, result.failed) == (7, 2, 5)
    assert result.failures is not None
    lines = [json.loads(line) for line in result.failures.read_text().splitlines()]
    assert {(r["id"], r["stage"], r["reason"]) for r in lines} == {
        ("b", "decode", "empty_text"), ("c", "encode", "non_finite"), ("d", "encode", "non_finite"),
        ("a", "list", "duplicate_id"), ("f", "decode", "bad_unicode"),
    }  # fmt: skip
    assert set(contents(collection, SPACE)) == {"a", "e"}
    assert json.loads((result.failures.parent / "run.json").read_text())["state"] == "finished"


@pytest.mark.parametrize("rows", [{}, {"a": "", "b": " "}])
def test_nothing_found_or_nothing_kept_is_an_error(tmp_path: Path, rows: dict[str, str]) -> None:
    with pytest.raises(NothingToDo, match="0 items were found" if not rows else "0 of 2 items were kept"):
        run(fresh(tmp_path), Rows(rows))


def test_a_filter_that_leaves_nothing_says_so(tmp_path: Path) -> None:
    with pytest.raises(NothingToDo, match="none of 1 passed the filter"):
        run(fresh(tmp_path), Rows({"a": "x"}), where="id = 'b'")


def test_where_limit_prefix_and_rename(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    rows = Rows(
        {f"{k}": f"text {k}" for k in range(9)},
        {f"{k}": {"source": f"s{k % 3}"} for k in range(9)},
        {"source": "string"},
    )
    with pytest.raises(UsageError, match="keeps for itself"):
        run(collection, rows)
    result = run(collection, rows, where="origin = 's1'", limit=2, prefix="p/", rename={"source": "origin"})
    assert result.embedded == 2
    assert column(collection, "origin") == {"p/1": "s1", "p/4": "s1"}


def test_a_second_root_needs_a_prefix(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    with pytest.raises(UsageError, match="was made from rows, this is elsewhere"):
        run(collection, Rows({"i0000": "other"}, root="elsewhere"))
    run(collection, Rows({"i0000": "other"}, root="elsewhere"), prefix="e/")
    assert set(keys(collection)) == {"i0000", "i0001", "i0002", "e/i0000"}
    run(collection, Rows({"i0000": "text 0"}, root="moved"), relocate=True)
    assert column(collection, "source")["i0000"] == "moved#i0000"
    assert len(contents(collection, SPACE)) == 4


def test_prune_removes_what_the_source_no_longer_has_and_nothing_else(tmp_path: Path) -> None:
    collection = filled(tmp_path, 4)
    run(collection, Rows({"a": "from another root"}, root="other"), prefix="o/")
    result = run(collection, Rows({"i0001": "text 1", "i0002": "text 2"}), prune=True)
    assert result.pruned == 2
    assert set(keys(collection)) == {"i0001", "i0002", "o/a"}


def test_prune_keeps_what_could_not_be_read_and_refuses_where_the_source_is_not_whole(tmp_path: Path) -> None:
    collection = filled(tmp_path, 4)
    for part in ({"where": "id = 'i0001'"}, {"limit": 1}):
        with pytest.raises(UsageError, match="needs the whole source"):
            run(collection, Rows({"i0001": "text 1"}), prune=True, **part)

    class Half(Rows):
        stage = "read"

        def __iter__(self):  # type: ignore[no-untyped-def]
            yield from super().__iter__()
            yield Failure("i0002", "rows#i0002", self.stage, "permission", "OSError", "denied")  # type: ignore[arg-type]

        def __len__(self) -> int:
            return super().__len__() + 1

    assert run(collection, Half({"i0001": "text 1"}), prune=True).pruned == 2
    assert set(keys(collection)) == {"i0001", "i0002"}
    unlisted = Half({"i0001": "text 1"})
    unlisted.stage = "list"
    with pytest.raises(Refused, match="could not be listed"):
        run(collection, unlisted, prune=True)
    assert set(keys(collection)) == {"i0001", "i0002"}


def test_new_labels_in_the_source_arrive_without_embedding_again_and_edits_stay(tmp_path: Path) -> None:
    texts = {f"{k}": f"text {k}" for k in range(3)}
    collection = fresh(tmp_path)
    run(collection, Rows(texts, {"0": {"label": "cat"}, "1": {"label": "dog"}}, {"label": "string"}))
    commit.edit(collection, "0", {"label": "tiger"}, by="test")
    before = keys(collection)
    result = run(collection, Rows(texts, {"0": {"label": "lion"}, "1": {"label": "wolf"}}, {"label": "string"}))
    assert (result.embedded, result.unchanged) == (0, 3)
    assert column(collection, "label") == {"0": "tiger", "1": "wolf", "2": None}
    assert keys(collection) == before
    changed = run(collection, Rows(texts | {"0": "new content"}, {"0": {"label": "lion"}}, {"label": "string"}))
    assert changed.embedded == 1
    assert column(collection, "label")["0"] == "tiger"


def test_a_second_space_keeps_the_keys_and_a_collection_is_a_source(tmp_path: Path) -> None:
    collection = filled(tmp_path, 6)
    before, labels = keys(collection), column(collection, "source")
    other = planted(salt="b")
    result = run(collection, Itself(collection, None), other)
    assert result.embedded == 6
    assert keys(collection) == before
    assert column(collection, "source") == labels
    assert set(contents(collection, other.space)) == set(contents(collection, SPACE))
    assert run(collection, Itself(collection, None), other).unchanged == 6


def test_an_encoder_that_changed_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    drifted = planted(salt="drifted")
    impostor = type(drifted)(drifted.name, SPACE, "cpu", text=drifted.text)
    with pytest.raises(SpaceMismatch, match="no longer makes the vectors"):
        run(collection, Rows({"x": "y"}), impostor)
    assert collection.count() == 3


def test_a_dry_run_counts_and_writes_nothing(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    version = collection.items.version
    result = run(collection, Rows({"i0000": "text 0", "i0001": "changed", "n": "new"}), dry_run=True)
    assert (result.found, result.unchanged, result.skipped) == (3, 1, 2)
    assert collection.items.version == version


def test_a_run_of_the_same_space_at_the_same_time_is_refused(tmp_path: Path) -> None:
    collection = filled(tmp_path, 3)
    with files.lease(collection.lock_path(SPACE.fingerprint), what="run"), pytest.raises(Locked, match="is busy"):
        run(collection, Rows({"x": "y"}))


INTERRUPTED = """
import os, signal, sys
from pathlib import Path
from index import files
from tests.index.tools import Rows, fresh, run
# a process that a script starts in the background ignores Ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
sent = []
def fault(point):
    if point == sys.argv[2] and not sent:
        sent.append(point)
        os.kill(os.getpid(), signal.SIGINT)
files.fault = fault
try:
    run(fresh(Path(sys.argv[1])), Rows({f"{k}": f"text {k}" for k in range(5)}))
except KeyboardInterrupt:
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    print("interrupted", *sent)
"""
IMPATIENT = """
import os, signal
from index import files
signal.signal(signal.SIGINT, signal.default_int_handler)
try:
    with files.unbroken():
        for n in range(2):
            os.kill(os.getpid(), signal.SIGINT)
            print(n)
except KeyboardInterrupt:
    print("interrupted")
"""


def said_by(program: str, *words: object) -> list[str]:
    """What a process of its own prints: a signal that goes astray must not end the tests."""
    command = [sys.executable, "-c", program, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("point", ["items", "vectors"])
def test_a_signal_within_a_commit_waits_for_its_end(tmp_path: Path, point: str) -> None:
    """Between the two tables of a commit a signal would lose what was encoded; after it nothing is lost."""
    assert said_by(INTERRUPTED, tmp_path, point) == ["interrupted", point]
    assert len(contents(fresh(tmp_path), SPACE)) == 5


def test_a_second_signal_does_not_wait() -> None:
    assert said_by(IMPATIENT) == ["0", "interrupted"]


class Broken(Exception):
    pass


def test_whichever_write_fails_the_next_run_ends_in_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The n-th write fails, for every n there is; each store ends equal to the undisturbed one."""
    first = Rows({f"{k}": f"text {k}" for k in range(12)}, {"1": {"label": "a"}}, {"label": "string"})
    second = Rows(
        {f"{k}": f"text {k % 7}" for k in range(3, 15)} | {"bad": ""}, {"5": {"label": "b"}}, {"label": "string"}
    )
    monkeypatch.setattr("index.ingest.COMMIT_ROWS", 5)
    monkeypatch.setattr("embedder.extract.WINDOW", 4)
    clean = fresh(tmp_path / "clean")
    run(clean, first)
    run(clean, second)
    expected = contents(clean, SPACE)
    n = 0
    while True:
        n += 1
        collection = fresh(tmp_path / f"f{n}")
        seen: list[str] = []

        def fault(point: str, seen: list[str] = seen, limit: int = n) -> None:
            seen.append(point)
            if len(seen) == limit:
                raise Broken(point)

        monkeypatch.setattr(files, "fault", fault)
        finished = True
        for source in (first, second):
            try:
                run(collection, source)
            except Broken:
                finished = False
        monkeypatch.setattr(files, "fault", lambda point: None)
        run(collection, first)
        run(collection, second)
        assert contents(collection, SPACE) == expected, f"write {n} ({seen[n - 1] if len(seen) >= n else 'none'})"
        assert inspect.verify(collection).problems == []
        if finished:
            break
    assert n > 15


def test_failures_of_the_source_are_counted(tmp_path: Path) -> None:
    class WithFailure(Rows):
        def __iter__(self):  # type: ignore[no-untyped-def]
            yield from super().__iter__()
            yield Failure("row 9", "rows#9", "list", "ragged_row", "ValueError", "3 cells")

        def __len__(self) -> int:
            return super().__len__() + 1

    result = run(fresh(tmp_path), WithFailure({"a": "b"}))
    assert (result.found, result.embedded, result.failed, dict(result.reasons)) == (2, 1, 1, {"list: ragged_row": 1})
