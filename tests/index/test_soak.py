"""Queries while the store is written, rebuilt and compacted: no error, and no list that mixes two states."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from index import build, commit, files
from index.diversify import Refinement
from index.search import search
from index.store import Collection, Store
from index.view import View
from tests.index.tools import Rows, brute, filled, fresh, planted, planted_vector, run, view

SECONDS = 3.0
N = 80


def test_queries_during_rebuilds_compaction_and_swaps(tmp_path: Path) -> None:
    collection = filled(tmp_path, N, columns={f"i{k:04d}": {"n": k} for k in range(N)}, types={"n": "int"})
    build.build(collection, collection.space(), kind="faiss_hnsw")
    shared = view(collection)
    wrong: list[str] = []
    counts = [0, 0, 0]
    end = time.monotonic() + float(os.environ.get("SOAK_SECONDS", SECONDS))
    still = {f"i{k:04d}": planted_vector(f"text {k}") for k in range(0, N, 2)}

    def ask(at: int) -> None:
        chance = np.random.default_rng(at)
        while time.monotonic() < end and not wrong:
            query = planted_vector(f"q{at} {counts[at]}")
            where = None if chance.random() < 0.5 else f"n < {int(chance.integers(1, N))}"
            answer = search(shared, query[None], k=N, where=where)[0]
            ids = [hit.id for hit in answer.hits]
            limit = N if where is None else int(where.split()[-1])
            # even items never change; odd ones come and go, with one of two texts
            missing = {id for id in still if int(id[1:]) < limit} - set(ids)
            stale = [h for h in answer.hits if abs(h.score - float(planted_vector(h.item["text"]) @ query)) > 1e-5]
            passed = [id for id in ids if int(id[1:]) >= limit]
            scores = [hit.score for hit in answer.hits]
            if missing or stale or passed or len(set(ids)) != len(ids) or scores != sorted(scores, reverse=True):
                wrong.append(f"missing {missing}, stale {stale}, passed {passed}, of {len(ids)}")
            counts[at] += 1

    def guarded(at: int) -> None:
        try:
            ask(at)
        except Exception as error:  # the thread's end must be seen by the test
            wrong.append(f"{type(error).__name__}: {error}")
            raise

    threads = [threading.Thread(target=guarded, args=(at,)) for at in range(len(counts))]
    for thread in threads:
        thread.start()
    rounds = 0
    writer = Store.open(tmp_path / "store").collection("c")
    while time.monotonic() < end and not wrong:
        write(writer, rounds)
        rounds += 1
    for thread in threads:
        thread.join()
    assert not wrong
    assert rounds >= 1
    assert min(counts) > 3


def write(writer: Collection, rounds: int) -> None:
    """Change the odd items, build the other kind, delete some and compact."""
    odd = {f"i{k:04d}": f"text {k}" + " again" * (rounds % 2) for k in range(1, N, 2)}
    run(writer, Rows(odd, {id: {"n": int(id[1:])} for id in odd}, {"n": "int"}))
    build.build(writer, writer.space(), kind=("flat", "faiss_hnsw")[rounds % 2], recall=0.0)
    commit.delete_ids(writer, [f"i{k:04d}" for k in range(1, N, 4)])
    with files.lock(writer.lock_path("commit")):
        writer.items.optimize()
        writer.vectors(writer.space()).optimize()


class Filtered(RuleBasedStateMachine):
    """Writes, deletes, labels, builds and filtered, grouped, thresholded queries against a plain loop."""

    folder: Path
    compared = 0

    @initialize()
    def start(self) -> None:
        import tempfile

        self.truth: dict[str, tuple[str, int]] = {}
        self.collection = fresh(Path(tempfile.mkdtemp(dir=self.folder)))
        self.put(list(range(12)), 0)
        self.view = View(self.collection, planted().space)

    @rule(ids=st.lists(st.integers(0, 30), min_size=1, max_size=12, unique=True), version=st.integers(0, 2))
    def put(self, ids: list[int], version: int) -> None:
        rows = {f"{i}": (f"item {i} version {version}", (i + version) % 5) for i in ids}
        columns = {id: {"g": g} for id, (_, g) in rows.items()}
        run(self.collection, Rows({id: text for id, (text, _) in rows.items()}, columns, {"g": "int"}))
        self.truth |= rows

    @rule(ids=st.lists(st.integers(0, 30), min_size=1, max_size=8, unique=True))
    def delete(self, ids: list[int]) -> None:
        commit.delete_ids(self.collection, [f"{i}" for i in ids])
        for i in ids:
            self.truth.pop(f"{i}", None)

    @rule(kind=st.sampled_from(["flat", "faiss_hnsw"]))
    def rebuild(self, kind: str) -> None:
        if self.truth:
            build.build(self.collection, planted().space, kind=kind, recall=0.0)

    @invariant()
    def answers_are_those_of_a_plain_loop(self) -> None:
        if not hasattr(self, "view"):
            return
        query = planted_vector(f"query {Filtered.compared}")
        for limit in (0, 1, 4, 5):
            kept = {id: planted_vector(text) for id, (text, g) in self.truth.items() if g < limit}
            expected = brute(kept, query, len(kept))
            plain, score = f"g < {limit}", 0.2
            answer = search(self.view, query[None], k=6, where=plain)[0]
            assert [hit.id for hit in answer.hits] == [id for id, _ in expected][:6]
            assert answer.searched == len(kept)
            near = search(self.view, query[None], k=50, where=plain, refinement=Refinement(min_score=score))[0]
            assert [hit.id for hit in near.hits] == [id for id, s in expected if s >= score]
            first: dict[int, str] = {}
            for id, _ in expected:
                first.setdefault(self.truth[id][1], id)
            grouped = search(self.view, query[None], k=3, where=plain, refinement=Refinement(group_by="g"))[0]
            assert [hit.id for hit in grouped.hits] == list(first.values())[:3]
            Filtered.compared += 1


@pytest.mark.parametrize("examples", [5])
def test_any_history_answers_filtered_queries_like_a_plain_loop(tmp_path: Path, examples: int) -> None:
    Filtered.folder, Filtered.compared = tmp_path, 0
    few = settings(max_examples=examples, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck))
    run_state_machine_as_test(type("History", (Filtered,), {}), settings=few)
    assert Filtered.compared > 60
