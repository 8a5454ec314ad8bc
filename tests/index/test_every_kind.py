"""Every kind under histories of writes, under damage, and while queries run: a new file in `index/kinds/` is tested."""

from __future__ import annotations

import random
import tempfile
import threading
from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from embedder import kinds
from embedder.errors import Damaged
from index import build, commit, derived
from index.choose import missing
from index.kinds import _gpu
from index.search import search
from index.store import Collection
from index.view import View
from tests.index.tools import Rows, brute, filled, fresh, planted, planted_vector, run, view

SPACE = planted().space
KINDS = kinds.names("index.kinds")
FLIPS, CUTS = 12, 4


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if missing(derived.kind_of(request.param)):
        for name, fake in (("missing", lambda: None), ("to_gpu", faiss.clone_index), ("to_cpu", faiss.clone_index)):
            monkeypatch.setattr(_gpu, name, fake)
    return str(request.param)


class History(RuleBasedStateMachine):
    """Upserts, deletes, builds and queries against a dictionary and brute force."""

    folder: Path
    kind: str
    built = 0

    @initialize()
    def start(self) -> None:
        self.truth: dict[str, str] = {}
        self.serial = 0
        self.collection = fresh(Path(tempfile.mkdtemp(dir=self.folder)))
        self.put(0, 400)
        self.rebuild()
        self.view = View(self.collection, SPACE)

    @rule(start=st.integers(0, 380), count=st.integers(1, 200))
    def put(self, start: int, count: int) -> None:
        self.serial += 1
        rows = {f"{i}": f"item {i} version {self.serial}" for i in range(start, start + count)}
        run(self.collection, Rows(rows))
        self.truth |= rows

    @rule(start=st.integers(0, 380), step=st.integers(1, 9))
    def delete(self, start: int, step: int) -> None:
        names = [f"{i}" for i in range(start, 500, step) if f"{i}" in self.truth][: len(self.truth) - 1]
        if names:
            commit.delete_ids(self.collection, names)
        for name in names:
            self.truth.pop(name)

    @rule()
    def rebuild(self) -> None:
        build.build(self.collection, SPACE, kind=self.kind, recall=0.99)
        History.built += 1

    @rule()
    def compact(self) -> None:
        self.collection.vectors(SPACE).optimize()

    @invariant()
    def answers_hold(self) -> None:
        if not hasattr(self, "view"):
            return
        vectors = {i: planted_vector(t) for i, t in self.truth.items()}
        query = planted_vector(f"query {self.serial} {len(self.truth)}")
        expected, scores = brute(vectors, query, 5), dict(brute(vectors, query, len(vectors)))
        exact = search(self.view, query[None], k=5, exact=True)[0]
        assert [h.id for h in exact.hits] == [i for i, _ in expected]
        answer = search(self.view, query[None], k=5)[0]
        assert (answer.rows, answer.index_damage) == (len(self.truth), None)
        assert len(answer.hits) == len({h.id for h in answer.hits}) == min(5, len(self.truth))
        for hit in answer.hits:
            assert hit.score == pytest.approx(scores[hit.id], abs=1e-6)
        assert len({h.id for h in answer.hits} & {i for i, _ in expected}) >= min(3, len(expected))


def test_any_history_is_answered(kind: str, tmp_path: Path) -> None:
    History.folder, History.kind, History.built = tmp_path, kind, 0
    run_state_machine_as_test(
        type("HistoryOfOne", (History,), {}),
        settings=settings(
            max_examples=2,
            stateful_step_count=5,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert History.built


def spoiled(path: Path, chance: random.Random) -> list[bytes]:
    """Return the file with single bits flipped, and cut short."""
    data, out = path.read_bytes(), []
    for _ in range(FLIPS):
        flipped = bytearray(data)
        flipped[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        out.append(bytes(flipped))
    return out + [data[: chance.randrange(len(data))] for _ in range(CUTS)]


def test_every_flip_and_cut_is_noticed_before_an_engine_reads(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = filled(tmp_path, 300)
    build.build(collection, SPACE, kind=kind, recall=0.5)
    home = derived.folder_of(collection, SPACE)
    files = [p for p in home.rglob("*") if p.is_file() and p.stat().st_size]
    names = {p.relative_to(home / str(derived.current(collection, SPACE))).parts[0] for p in files if p.parent != home}
    assert names == {"matrix.npy", "keys.npy", "manifest.json", *derived.kind_of(kind).FILES}
    assert derived.load(collection, SPACE) is not None
    read: list[str] = []
    monkeypatch.setattr(derived.kind_of(kind), "load", lambda folder, matrix, args: read.append("read") or matrix)
    for path in files:
        sound = path.read_bytes()
        for bad in spoiled(path, random.Random(f"{kind} {path.name}")):
            path.write_bytes(bad)
            if path.name == "current.json":
                assert_noticed_or_the_same(collection)
                read.clear()
            else:
                with pytest.raises(Damaged, match=r"permafrost index c rebuilds it"):
                    derived.load(collection, SPACE)
                assert not read, "an engine was handed a damaged file"
        path.write_bytes(sound)
    assert derived.load(collection, SPACE) is not None


def assert_noticed_or_the_same(collection: Collection) -> None:
    try:
        loaded = derived.load(collection, SPACE)
    except Damaged:
        return
    assert loaded is not None
    assert len(loaded.matrix) == 300


def test_a_strange_file_beside_an_index_is_noticed(tmp_path: Path) -> None:
    collection = filled(tmp_path, 40)
    build.build(collection, SPACE, kind="flat")
    folder = derived.folder_of(collection, SPACE) / str(derived.current(collection, SPACE))
    (folder / "extra.faiss").write_bytes(b"x")
    answer = search(view(collection), planted_vector("q")[None], k=3)[0]
    assert answer.index_damage is not None
    assert "extra.faiss; permafrost index c rebuilds it" in answer.index_damage
    assert len(answer.hits) == 3


def test_queries_during_swaps_and_deletes_see_one_state_each(tmp_path: Path) -> None:
    """Readers ask for a row's neighbours all along; every answer is full, of live rows, and scored exactly."""
    collection = filled(tmp_path, 200)
    build.build(collection, SPACE, kind="flat")
    vectors = {f"i{k:04d}": planted_vector(f"text {k}") for k in range(200)}
    gone, errors, answers, stop = list[str](), list[BaseException](), list[int](), threading.Event()

    def read(seed: int) -> None:
        mine, chance = View(collection, SPACE), random.Random(seed)
        while not stop.is_set():
            deleted = set(gone)
            query = planted_vector(f"q{chance.randrange(50)}")
            try:
                found = search(mine, query[None], k=10)[0]
                assert found.index_damage is None, found.index_damage
                # a row that is deleted between the ranking and the reading of its columns is left out
                assert len(found.hits) >= 10 - len(set(gone) - deleted) - 1
                assert not deleted & {h.id for h in found.hits}, "a deleted row came back"
                for hit in found.hits:
                    assert hit.score == pytest.approx(float(vectors[hit.id] @ query), abs=1e-5)
                answers.append(1)
            except BaseException as error:  # noqa: BLE001
                errors.append(error)
                return

    readers = [threading.Thread(target=read, args=(seed,)) for seed in range(2)]
    for reader in readers:
        reader.start()
    order = ["flat", "faiss_pq_fs", "faiss_hnsw", "faiss_ivf_flat"]
    for turn in range(20):
        build.build(collection, SPACE, kind=order[turn % len(order)], recall=0.5)
        name = f"i{turn * 3:04d}"
        commit.delete_ids(collection, [name])
        gone.append(name)
        if errors:
            break
    stop.set()
    for reader in readers:
        reader.join()
    assert not errors, errors[0]
    assert len(answers) > 20


def test_a_build_swept_while_it_is_read_is_not_called_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = filled(tmp_path, 40)
    build.build(collection, SPACE, kind="flat")
    honest, turns = derived._open, [0]

    def slow(folder: Path, space: object) -> derived.Loaded:
        turns[0] += 1
        for _ in range(3 if turns[0] == 1 else 0):
            build.build(collection, SPACE, kind="flat")
        return honest(folder, space)  # type: ignore[arg-type]

    monkeypatch.setattr(derived, "_open", slow)
    loaded = derived.load(collection, SPACE)
    assert loaded is not None
    assert (loaded.name, turns[0]) == (derived.current(collection, SPACE), 2)
    assert np.isfinite(np.asarray(loaded.matrix)).all()
