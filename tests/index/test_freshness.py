"""A query sees every commit that was made before it, by any process, without opening a table where nothing changed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from index import build, freshness, rowcache
from index.freshness import Folder
from index.search import search
from index.store import Collection
from tests.index.tools import Rows, filled, planted_vector, run, view

ROOT = Path(__file__).parents[2]


def test_a_folder_that_changes_within_one_tick_of_the_clock_is_noticed(tmp_path: Path) -> None:
    folder = Folder(tmp_path)
    seen = [folder.token()]
    for name in ("a", "b", "c"):
        (tmp_path / name).touch()
        os.utime(tmp_path, ns=(1, 2**61))  # one time for all, and it is not settled
        assert folder.token() == folder.token() != seen[-1]
        seen.append(folder.token())
    (tmp_path / "a").unlink()
    os.utime(tmp_path, ns=(1, 2**61))
    assert folder.token() not in seen
    assert Folder(tmp_path / "none").token() is None
    assert freshness.file_token(tmp_path / "none") is None


def test_a_settled_folder_is_not_listed_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.utime(tmp_path, ns=(1, 1))
    folder = Folder(tmp_path)
    first = folder.token()
    monkeypatch.setattr(os, "listdir", lambda path: pytest.fail("listed again"))
    assert folder.token() is first


def test_a_query_where_nothing_changed_opens_no_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(tmp_path, 40)
    watching = view(collection)
    for n in range(4):
        search(watching, planted_vector(f"q{n}")[None])
    monkeypatch.setattr(Collection, "table", lambda self, name: pytest.fail(f"opened {name}"))
    answer = search(watching, planted_vector("another")[None], k=7, where="text LIKE '%1%'")[0]
    assert len(answer.hits) == 7
    assert answer.selectivity == pytest.approx(sum("1" in str(n) for n in range(40)) / 40)


def test_what_another_process_writes_is_in_the_next_answer(tmp_path: Path) -> None:
    collection = filled(tmp_path, 12)
    build.build(collection, collection.space(), kind="flat")
    watching = view(collection)
    program = f"""
import sys
from pathlib import Path
from index import commit
from index.store import Store
from tests.index.tools import Rows, run
here = Store.open({str(tmp_path / "store")!r}).collection("c")
for line in sys.stdin:
    what, id = line.split()
    run(here, Rows({{id: "text " + id}}, root=id), prefix=id + "/") if what == "put" else commit.delete_ids(here, [id])
    print("done", flush=True)
"""
    other = subprocess.Popen(
        [sys.executable, "-c", program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert other.stdin
    assert other.stdout
    with other:
        for n in range(4):
            for what in ("put", "delete"):
                id = f"new{n}" if what == "put" else f"new{n}/new{n}"
                other.stdin.write(f"{what} {id}\n")
                other.stdin.flush()
                assert other.stdout.readline() == "done\n"
                hits = search(watching, planted_vector(f"text new{n}")[None], k=20)[0].hits
                assert (f"new{n}/new{n}" in {hit.id for hit in hits}) is (what == "put")
        other.stdin.close()


def test_labels_set_by_hand_are_in_the_next_answer(tmp_path: Path) -> None:
    from index import commit

    collection = filled(tmp_path, 12, columns={"i0003": {"label": "x"}}, types={"label": "string"})
    watching = view(collection)
    for n in range(5):
        commit.edit(collection, "i0003", {"label": f"v{n}"}, by="test")
        answers = [search(watching, planted_vector("text 3")[None], k=1, where=w)[0] for w in (None, f"label = 'v{n}'")]
        assert [[(hit.id, hit.item["label"]) for hit in a.hits] for a in answers] == [[("i0003", f"v{n}")]] * 2


@pytest.mark.parametrize("bound", [0, 400, 1 << 20])
def test_rows_are_the_same_however_few_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: int) -> None:
    monkeypatch.setattr(rowcache, "MOST_BYTES", bound)
    collection = filled(tmp_path, 60)
    watching = view(collection)
    for n in range(6):
        for hit in search(watching, planted_vector(f"q{n}")[None], k=25)[0].hits:
            assert hit.item == {
                "source": f"rows#{hit.id}",
                "media_type": "text/plain",
                "text": f"text {int(hit.id[1:])}",
            }
            hit.item["text"] = "changed by the caller"
    run(collection, Rows({"i0001": "rewritten"}))
    hits = search(watching, planted_vector("rewritten")[None], k=1)[0].hits
    assert (hits[0].id, hits[0].item["text"]) == ("i0001", "rewritten")
