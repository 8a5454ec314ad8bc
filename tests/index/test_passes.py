"""Several Spaces from one pass over a source: the same store as one run after the other, whatever fails in between."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder.encoder import Encoder
from embedder.errors import Locked
from embedder.records import Failure, Item
from index import commit, files, inspect
from index.ingest import Run, ingest_all, passes
from index.known import BEHIND, KeySet, Known
from index.selection import IngestOptions
from index.store import Collection, Store
from tests.index.test_parts import cutting, many
from tests.index.tools import DIM, Rows, contents, fresh, planted, planted_vector, run

A, B, C = planted(), planted(salt="b"), planted(salt="c")
TEXTS = {f"{k}": f"text {k}" for k in range(12)}


class Broken(Exception):
    """A write that failed."""


class Counted(Rows):
    """Counts how often its items are read."""

    reads = 0

    def __iter__(self) -> Iterator[Item | Failure]:
        for item in super().__iter__():
            self.reads += 1
            yield item


def several(collection: Collection, source: Any, *encoders: Encoder, **options: Any) -> list[Run]:
    return ingest_all(collection, source, encoders, IngestOptions(**options), lambda encoder, run: None)


def without(encoder: Encoder, *texts: str) -> Encoder:
    """The encoder, with a vector of zeros for these texts."""
    assert encoder.text is not None
    forward = encoder.text.forward

    def holed(batch: Any) -> Any:
        return forward(batch) * np.array([[text not in texts] for text in batch], dtype=np.float32)

    return replace(encoder, text=replace(encoder.text, forward=holed))


def counts(runs: list[Run]) -> list[tuple[int, int, int, int]]:
    return [(r.found, r.embedded, r.unchanged, r.failed) for r in runs]


def test_one_pass_leaves_what_one_run_after_the_other_leaves(tmp_path: Path) -> None:
    source = Counted(TEXTS | {"bad": " "}, {"1": {"label": "a"}}, {"label": "string"})
    together, apart = fresh(tmp_path / "together"), fresh(tmp_path / "apart")
    runs = several(together, source, A, B, C)
    assert source.reads == 13
    for encoder in (A, B, C):
        run(apart, source, encoder)
        assert contents(together, encoder.space) == contents(apart, encoder.space)
    assert counts(runs) == [(13, 12, 0, 1)] * 3
    assert len({r.id for r in runs}) == 3
    for found in runs:
        assert found.failures is not None
        assert [json.loads(line)["id"] for line in found.failures.read_text().splitlines()] == ["bad"]
    records = [json.loads((r.failures.parent / "run.json").read_text()) for r in runs if r.failures]
    assert [r["space"] for r in records] == [e.space.fingerprint for e in (A, B, C)]
    assert {r["state"] for r in records} == {"finished"}
    assert counts(several(together, source, A, B, C)) == [(13, 0, 12, 1)] * 3
    assert inspect.verify(together).problems == []


def test_only_the_space_that_lacks_an_item_gets_it(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run(collection, Rows({k: TEXTS[k] for k in "01234"}), A)
    before = contents(collection, A.space)
    runs = several(collection, Rows(TEXTS), A, B)
    assert counts(runs) == [(12, 7, 5, 0), (12, 12, 0, 0)]
    after = contents(collection, A.space)
    assert {id: after[id] for id in before} == before
    assert collection.vectors(A.space).count_rows() == collection.vectors(B.space).count_rows() == 12


def test_a_zero_vector_in_one_space_costs_no_other_its_vector(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    runs = several(collection, Rows(TEXTS), A, without(B, "text 3"), C)
    assert counts(runs) == [(12, 12, 0, 0), (12, 11, 0, 1), (12, 12, 0, 0)]
    assert set(contents(collection, B.space)) == set(TEXTS) - {"3"}
    assert [r.failures is not None for r in runs] == [False, True, False]
    assert dict(runs[1].reasons) == {"encode: non_finite": 1}
    again = several(collection, Rows(TEXTS), A, without(B, "text 3"), C)
    assert counts(again) == [(12, 0, 12, 0), (12, 0, 11, 1), (12, 0, 12, 0)]
    assert counts(several(collection, Rows(TEXTS), A, B, C)) == [(12, 0, 12, 0), (12, 1, 11, 0), (12, 0, 12, 0)]


def test_what_cannot_be_read_any_more_stays_unchanged_where_it_is_stored(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run(collection, Rows(TEXTS), A)
    runs = several(collection, Rows(TEXTS), without(A, *TEXTS.values()), without(B, "text 3"))
    assert counts(runs) == [(12, 0, 12, 0), (12, 11, 0, 1)]
    assert len(contents(collection, A.space)) == 12


def test_new_content_is_embedded_in_all_spaces_and_labels_arrive(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    several(collection, Rows(TEXTS, {}, {"label": "string"}), A, B)
    changed = Rows(TEXTS | {"3": "changed"}, {"3": {"label": "x"}, "4": {"label": "y"}}, {"label": "string"})
    assert counts(several(collection, changed, A, B)) == [(12, 1, 11, 0)] * 2
    rows = {r["id"]: r for r in collection.items.search().to_arrow().to_pylist()}
    assert (rows["3"]["label"], rows["4"]["label"], rows["5"]["label"]) == ("x", "y", None)
    for encoder, salt in ((A, ""), (B, "b")):
        now = np.frombuffer(contents(collection, encoder.space)["3"][1], "<f4")
        np.testing.assert_allclose(now, planted_vector("changed", DIM, salt), rtol=1e-6)


def test_a_new_label_arrives_also_where_only_one_space_has_the_item(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run(collection, Rows(TEXTS, {}, {"label": "string"}), A)
    source = Rows(TEXTS, {"3": {"label": "x"}}, {"label": "string"})
    several(collection, source, A, without(B, "text 3"))
    rows = {r["id"]: r["label"] for r in collection.items.search().to_arrow().to_pylist()}
    assert rows["3"] == "x"


def test_prune_counts_in_every_run(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    several(collection, Rows(TEXTS), A, B)
    runs = several(collection, Rows({k: TEXTS[k] for k in "012"}), A, B, prune=True)
    assert [r.pruned for r in runs] == [9, 9]
    assert set(contents(collection, B.space)) == set("012")


def test_one_spaces_commit_leaves_the_pictures_of_the_others_fresh(tmp_path: Path, monkeypatch: Any) -> None:
    seen: list[Known] = []
    write = commit.commit

    def watched(collection: Collection, space: Any, known: Known, *rest: Any) -> Any:
        seen.append(known)
        return write(collection, space, known, *rest)

    monkeypatch.setattr(commit, "commit", watched)
    monkeypatch.setattr("index.ingest.COMMIT_ROWS", 4)
    monkeypatch.setattr("embedder.extract.WINDOW", 4)
    several(fresh(tmp_path), Rows(TEXTS), A, B)
    assert len(seen) == 6
    assert all(known.picture.version != BEHIND for known in seen)


def test_texts_in_parts_go_into_each_space_whole(tmp_path: Path) -> None:
    one = cutting()
    assert one.text is not None
    assert B.text is not None
    other = replace(one.space, identity={**one.space.identity, "architecture": "another"})
    two = replace(one, space=other, text=replace(one.text, forward=B.text.forward))
    texts = many(6)
    runs = several(fresh(tmp_path), Rows(texts), one, without(two, " ".join(texts["i2"].split()[:4])))
    assert counts(runs) == [(6, 6, 0, 0), (6, 5, 0, 1)]
    together, apart = Store.open(tmp_path / "store").collection("c"), fresh(tmp_path / "apart")
    several(together, Rows(texts), one, two)
    for encoder in (one, two):
        run(apart, Rows(texts), encoder)
        assert parts(together, encoder) == parts(apart, encoder)


def parts(collection: Collection, encoder: Encoder) -> dict[tuple[str, int], bytes]:
    rows = collection.vectors(encoder.space).search().to_arrow().to_pylist()
    return {(r["id"], r["part"]): np.asarray(r["vector"], "<f4").tobytes() for r in rows}


def test_equal_spaces_and_other_inputs_go_one_after_the_other(tmp_path: Path) -> None:
    longer = planted(dim=16)
    assert passes([A, B, longer, A, planted(dim=16, salt="x")], "text") == [[0, 1], [2, 4], [3]]
    runs = several(fresh(tmp_path), Rows(TEXTS), A, B, longer, A)
    assert counts(runs) == [(12, 12, 0, 0)] * 3 + [(12, 0, 12, 0)]


def test_a_lease_that_is_taken_stops_the_pass_before_it_writes(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    with files.lease(collection.lock_path(B.space.fingerprint), what="B"), pytest.raises(Locked):
        several(collection, Rows(TEXTS), A, B)
    assert not files.is_leased(collection.lock_path(A.space.fingerprint))
    assert collection.count() == 0


def test_a_dry_run_counts_each_space_and_writes_nothing(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run(collection, Rows(TEXTS), A)
    runs = several(collection, Rows(TEXTS), A, B, dry_run=True)
    assert [(r.found, r.unchanged, r.skipped) for r in runs] == [(12, 12, 0), (12, 0, 12)]
    assert list(collection.spaces()) == [A.space.fingerprint]


def failing_at(n: int, seen: list[str]) -> Callable[[str], None]:
    def fault(point: str) -> None:
        seen.append(point)
        if len(seen) == n:
            raise Broken(point)

    return fault


def test_whichever_write_fails_the_next_run_fills_in_what_is_missing(tmp_path: Path, monkeypatch: Any) -> None:
    """The n-th write fails, for every n there is; also between the commits of two Spaces."""
    first = Rows({k: TEXTS[k] for k in "0123456"}, {"1": {"label": "a"}}, {"label": "string"})
    second = Rows({f"{k}": f"text {k % 5}" for k in range(3, 9)} | {"bad": ""}, {"5": {"label": "b"}}, first.columns)
    monkeypatch.setattr("index.ingest.COMMIT_ROWS", 4)
    monkeypatch.setattr("embedder.extract.WINDOW", 4)
    clean = fresh(tmp_path / "clean")
    for source in (first, second):
        several(clean, source, A, B)
    expected = [contents(clean, e.space) for e in (A, B)]
    lopsided, n = 0, 0
    while True:
        n += 1
        collection = fresh(tmp_path / f"f{n}")
        seen: list[str] = []
        monkeypatch.setattr(files, "fault", failing_at(n, seen))
        finished = True
        for source in (first, second):
            try:
                several(collection, source, A, B)
            except Broken:
                finished = False
        monkeypatch.setattr(files, "fault", lambda point: None)
        have = [KeySet.read(collection, e.space).keys for e in (A, B)]
        last = [several(collection, source, A, B) for source in (first, second)]
        lopsided += len(have[0]) != len(have[1])
        assert [contents(collection, e.space) for e in (A, B)] == expected, f"write {n}"
        assert inspect.verify(collection).problems == []
        assert all(r.found == r.embedded + r.unchanged + r.failed for runs in last for r in runs)
        if finished:
            break
    assert n > 15
    assert lopsided >= 1, "no run was caught between the commits of the two Spaces"
