from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index import build, commit
from index.sampler import ENOUGH, Figure, Sampler, bucket
from index.search import search
from index.view import View
from tests.index.tools import filled, planted_vector, view

QUERIES = np.stack([planted_vector(f"q{n}") for n in range(30)])


class Forgetful:
    """A graph whose answers lack the nearest rows once it is told to forget."""

    def __init__(self, engine: Any, n: int) -> None:
        self.engine, self.n, self.forgets = engine, n, True

    def search(self, queries: Any, k: int, allowed: Any = None) -> Any:
        n = self.n
        positions, scores = self.engine.search(queries, n, allowed)
        start = min(5, n - k) if self.forgets else 0
        return positions[:, start : start + k], scores[:, start : start + k]


@pytest.fixture
def here(tmp_path: Path) -> View:
    collection = filled(tmp_path, 300, columns={f"i{k:04d}": {"n": k} for k in range(300)}, types={"n": "int"})
    build.build(collection, collection.space(), kind="faiss_hnsw")
    return view(collection)


def spoiled(here: View) -> Forgetful:
    base = here.now().base
    assert base is not None
    engine = Forgetful(base.engine, len(base.matrix))
    object.__setattr__(base, "engine", engine)
    return engine


def ask(here: View, sampler: Sampler, where: str | None = None) -> list[Any]:
    answers = search(here, QUERIES, where=where, trust=sampler.fallback)
    sampler.offer(here, QUERIES, 10, where, answers)
    sampler._queue.join()
    return answers


def test_a_sound_index_keeps_its_trust_and_has_a_figure(here: View) -> None:
    sampler = Sampler(1.0, seed=0)
    assert not ask(here, sampler)[0].exact
    assert not ask(here, sampler)[0].exact
    (figure,) = sampler.figures()
    assert figure["recall"] >= 0.95
    assert (figure["replays"], figure["fallback"], figure["selectivity"]) == (60, False, "over 50%")
    sampler.close()


def test_under_its_target_the_answers_are_exact_until_it_recovers(here: View) -> None:
    sampler, engine = Sampler(1.0, seed=0), spoiled(here)
    truth = search(here, QUERIES, exact=True)
    first = ask(here, sampler)
    assert [a.hits for a in first] != [a.hits for a in truth]
    second = ask(here, sampler)
    assert all(a.exact and a.fallback and "0.95 wanted" in a.fallback for a in second)
    assert [a.hits for a in second] == [a.hits for a in truth]
    engine.forgets = False
    ask(here, sampler)
    trusted = ask(here, sampler)
    assert all(not a.exact and a.fallback is None for a in trusted)
    sampler.close()


def test_a_new_build_starts_with_trust(here: View) -> None:
    sampler, _ = Sampler(1.0, seed=0), spoiled(here)
    ask(here, sampler)
    assert search(here, QUERIES, trust=sampler.fallback)[0].fallback
    build.build(here.collection, here.space, kind="faiss_hnsw")
    assert search(here, QUERIES, trust=sampler.fallback)[0].fallback is None
    ask(here, sampler)
    assert [f["replays"] for f in sampler.figures()] == [30]
    sampler.close()


def test_figures_are_kept_for_each_range_of_selectivity(here: View) -> None:
    sampler, engine = Sampler(1.0, seed=0), spoiled(here)
    engine.forgets = False
    ask(here, sampler)
    assert ask(here, sampler, "n < 30")[0].exact
    assert [f["selectivity"] for f in sampler.figures()] == ["over 50%"]
    assert [bucket(s) for s in (1, 0.51, 0.5, 0.1, 0.011, 0.01, 0.0)] == [
        "over 50%", "over 50%", "10-50%", "1-10%", "1-10%", "up to 1%", "up to 1%",
    ]  # fmt: skip
    sampler.close()


def test_a_share_of_the_queries_is_taken_and_none_at_zero(here: View) -> None:
    for share, low, high in ((0.0, 0, 0), (0.1, 10, 60), (1.0, 300, 300)):
        sampler = Sampler(share, seed=1)
        for _ in range(10):
            ask(here, sampler)
        assert low <= sum(f["replays"] for f in sampler.figures()) <= high
        sampler.close()


def test_noise_around_the_target_is_no_reason() -> None:
    chance = np.random.default_rng(0)
    fair, poor = Figure("b", 0.95), Figure("b", 0.95)
    for _ in range(ENOUGH - 1):
        poor.add(0.0)
    assert not poor.distrusted, "too few to judge"
    poor.add(0.0)
    assert poor.distrusted
    for _ in range(100):
        fair.add(float(chance.binomial(10, 0.96)) / 10)
    assert not fair.distrusted


def test_a_collection_that_is_gone_stops_no_replay(here: View, tmp_path: Path) -> None:
    sampler = Sampler(1.0, seed=0)
    answers = search(here, QUERIES)
    keys = [hit.id for hit in search(here, QUERIES[:1], k=300)[0].hits]
    commit.delete_ids(here.collection, keys)
    sampler.offer(here, QUERIES, 10, None, answers)
    sampler._queue.join()
    here.collection.path.rename(tmp_path / "gone")
    sampler.offer(here, QUERIES, 10, None, answers)
    sampler._queue.join()
    assert sampler.figures() == []
    sampler.close()
    sampler.close()
