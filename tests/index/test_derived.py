"""Damage: each flipped byte or cut of an index file is noticed before an engine reads it; search answers exactly."""

from __future__ import annotations

import os
import random
from pathlib import Path

import numpy as np
import pytest

from embedder.errors import Damaged, NothingToDo, Refused, SpaceMismatch, UnknownName, UsageError
from index import build, derived, files
from index.search import search
from index.store import Collection
from index.view import View
from tests.index.tools import Rows, brute, filled, fresh, planted, planted_vector, run, view

SPACE = planted().space


def folder(collection: Collection) -> Path:
    return derived.folder_of(collection, SPACE) / str(derived.current(collection, SPACE))


def answer_is_exact(collection: Collection, n: int) -> bool:
    query = planted_vector("q")
    found = search(view(collection), query[None], k=5)[0]
    expected = brute({f"i{k:04d}": planted_vector(f"text {k}") for k in range(n)}, query, 5)
    assert [h.id for h in found.hits] == [i for i, _ in expected]
    return found.index_damage is not None


@pytest.mark.parametrize("file", ["matrix.npy", "keys.npy", "hnsw.faiss", "manifest.json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_damage_is_noticed_and_answered_exactly_and_mended_by_a_build(tmp_path: Path, file: str, how: str) -> None:
    collection = filled(tmp_path, 40)
    build.build(collection, SPACE, kind="faiss_hnsw")
    path = folder(collection) / file
    data = bytearray(path.read_bytes())
    if how == "flip":
        at = random.Random(file).randrange(len(data)) if file != "manifest.json" else data.index(b'"keys.npy"') + 40
        data[at] ^= 1
        path.write_bytes(data)
    elif how == "cut":
        os.truncate(path, len(data) // 2)
    else:
        path.unlink()
    with pytest.raises(Damaged):
        derived.load(collection, SPACE)
    assert answer_is_exact(collection, 40)
    build.build(collection, SPACE, kind="faiss_hnsw")
    assert not answer_is_exact(collection, 40)


def test_faiss_never_sees_a_file_that_fails_its_checksum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import faiss

    collection = filled(tmp_path, 40)
    build.build(collection, SPACE, kind="faiss_hnsw")
    path = folder(collection) / "hnsw.faiss"
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)

    def read(name: str) -> None:
        raise AssertionError("FAISS was handed a damaged file")

    monkeypatch.setattr(faiss, "read_index", read)
    assert answer_is_exact(collection, 40)


def test_an_index_of_another_space_is_refused_by_name(tmp_path: Path) -> None:
    collection = filled(tmp_path, 20)
    other = planted(salt="b")
    run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(20)}), other)
    build.build(collection, SPACE, kind="flat")
    home = derived.folder_of(collection, SPACE)
    home.rename(derived.folder_of(collection, other.space))
    with pytest.raises(SpaceMismatch) as caught:
        derived.load(collection, other.space)
    assert SPACE.short in str(caught.value)
    assert other.space.short in str(caught.value)


def test_an_index_under_its_target_is_not_swapped_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(tmp_path, 40)
    build.build(collection, SPACE, kind="flat")
    before = derived.current(collection, SPACE)
    monkeypatch.setattr(
        "index.kinds._faiss.Searcher.search", lambda self, q, k, allowed=None: (np.zeros((len(q), k), np.int64), None)
    )
    with pytest.raises(Refused, match=r"faiss_hnsw: recall@10 0\.\d+, 0\.95 wanted"):
        build.build(collection, SPACE, kind="faiss_hnsw")
    assert derived.current(collection, SPACE) == before
    assert sorted(p.name for p in derived.folder_of(collection, SPACE).iterdir()) == sorted(
        [str(before), "current.json"]
    )


def test_recall_is_measured_not_assumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from index.kinds import _faiss

    collection = filled(tmp_path, 200)
    honest = _faiss.Searcher.search

    def half(self, queries, k, allowed=None):  # type: ignore[no-untyped-def]
        positions, scores = honest(self, queries, k, allowed)
        return np.where(positions % 2 == 0, positions, -1), scores

    monkeypatch.setattr(_faiss.Searcher, "search", half)
    built = build.build(collection, SPACE, kind="faiss_hnsw", recall=0.1)
    assert 0.35 < built.recall_at_10 < 0.65


def test_budgets_choose_and_refuse(tmp_path: Path) -> None:
    collection = filled(tmp_path, 40)
    assert build.build(collection, SPACE).kind == "flat"
    with pytest.raises(Refused, match=r"needs 1,280 bytes, 10 allowed"):
        build.build(collection, SPACE, memory=10)
    with pytest.raises(UnknownName, match="faiss_hns"):
        build.build(collection, SPACE, kind="faiss_hns")
    with pytest.raises(UnknownName, match=r"(?s)'link'.*did you mean links"):
        build.build(collection, SPACE, kind="faiss_hnsw", args={"link": 3})
    for wrong in ("many", "-3", 2.5, True, None):
        with pytest.raises(UsageError, match="links takes int values of at least 0, not"):
            build.build(collection, SPACE, kind="faiss_hnsw", args={"links": wrong})
    with pytest.raises(UsageError, match="arguments are for one kind"):
        build.build(collection, SPACE, args={"links": 3})
    empty = fresh(tmp_path, "empty")
    empty.add_space(SPACE, {"text": ""})
    with pytest.raises(NothingToDo):
        build.build(empty, SPACE)


def test_old_builds_and_leftovers_are_swept_while_readers_keep_theirs(tmp_path: Path) -> None:
    collection = filled(tmp_path, 40)
    build.build(collection, SPACE, kind="flat")
    reader = View(collection, SPACE)
    held = reader.now()
    leftover = derived.folder_of(collection, SPACE) / ".tmp-killed"
    leftover.mkdir()
    for _ in range(4):
        build.build(collection, SPACE, kind="flat")
    kept = [p.name for p in derived.folder_of(collection, SPACE).iterdir() if p.is_dir()]
    assert len(kept) == derived.KEPT_BUILDS
    assert held.base is not None
    assert np.isfinite(np.asarray(held.base.matrix)).all()


def test_a_row_with_a_wrong_checksum_is_left_out_of_the_index_and_named(tmp_path: Path) -> None:
    from lancedb import col, lit

    collection = filled(tmp_path, 20)
    collection.vectors(SPACE).update(where=(col("id") == lit("i0004")), values={"row_crc": 1})
    built = build.build(collection, SPACE, kind="flat")
    assert (built.damaged, built.rows) == (["i0004"], 19)


def test_the_manifest_is_written_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(tmp_path, 20)

    def stop(point: str) -> None:
        if point == "index:swap":
            raise KeyboardInterrupt

    monkeypatch.setattr(files, "fault", stop)
    with pytest.raises(KeyboardInterrupt):
        build.build(collection, SPACE, kind="flat")
    monkeypatch.setattr(files, "fault", lambda point: None)
    assert derived.current(collection, SPACE) is None
    assert derived.load(collection, SPACE) is None
