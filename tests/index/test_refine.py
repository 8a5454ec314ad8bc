"""What is passed over: groups, near-duplicates, diversity, a least score; and queries made of examples."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.errors import UnknownName, UsageError
from index import build
from index.diversify import Refinement, mmr
from index.examples import combine, of_items
from index.search import search
from tests.index.tools import Rows, brute, filled, planted_vector, run, view

N = 120
TEXTS = {f"i{k:04d}": f"text {k}" for k in range(N)}
LABELS = {id: {"label": None if n % 10 == 0 else f"c{n % 30}", "n": n} for n, id in enumerate(TEXTS)}
TYPES = {"label": "string", "n": "int"}
QUERY = planted_vector("the query")


def ranked(texts: dict[str, str] = TEXTS) -> list[tuple[str, float]]:
    return brute({id: planted_vector(text) for id, text in texts.items()}, QUERY, len(texts))


@pytest.mark.parametrize("kind", [None, "flat", "faiss_hnsw"])
@pytest.mark.parametrize("k", [1, 5, 27, 40])
def test_the_best_of_each_group_and_all_groups_there_are(tmp_path: Path, kind: str | None, k: int) -> None:
    collection = filled(tmp_path, N, columns=LABELS, types=TYPES)
    if kind:
        build.build(collection, collection.space(), kind=kind, recall=0.0)
        run(collection, Rows({"late": "text late"}, {"late": {"label": "late"}}, {"label": "string"}), prefix="late/")
    texts, labels = dict(TEXTS), {id: row["label"] for id, row in LABELS.items()}
    if kind:
        texts |= {"late/late": "text late"}
        labels |= {"late/late": "late"}
    best: dict[str, str] = {}
    for id, _ in ranked(texts):
        if (label := labels[id]) is not None:
            best.setdefault(str(label), id)
    hits = search(view(collection), QUERY[None], k=k, refinement=Refinement(group_by="label"))[0].hits
    assert [hit.id for hit in hits] == list(best.values())[:k]
    assert all(hit.item["label"] == labels[hit.id] for hit in hits)
    with pytest.raises(UnknownName, match="lable"):
        search(view(collection), QUERY[None], refinement=Refinement(group_by="lable"))


def test_of_near_duplicates_the_nearest_stays_and_k_is_filled(tmp_path: Path) -> None:
    collection = filled(tmp_path, 20)
    copies = {f"copy{n:02d}": "the copied text" for n in range(60)}
    run(collection, Rows(copies, root="o"), prefix="o/")
    query = planted_vector("the copied text")[None]
    plain = search(view(collection), query, k=10)[0].hits
    assert all(hit.score > 0.999 for hit in plain)
    hits = search(view(collection), query, k=10, refinement=Refinement(unique=0.98))[0].hits
    assert len(hits) == 10
    assert [hit.score > 0.999 for hit in hits] == [True] + [False] * 9
    left = search(view(collection), query, k=100, refinement=Refinement(unique=0.98))[0].hits
    assert len(left) == 21
    vectors = np.stack([planted_vector(str(hit.item["text"])) for hit in left])
    likeness = vectors @ vectors.T
    assert (likeness[~np.eye(len(left), dtype=bool)] < 0.98).all()


def by_the_paper(likeness: np.ndarray, scores: np.ndarray, k: int, weight: float) -> list[int]:
    """Carbonell & Goldstein's formula, word for word."""
    chosen: list[int] = []
    while len(chosen) < min(k, len(scores)):
        left = [i for i in range(len(scores)) if i not in chosen]
        chosen.append(
            max(
                left, key=lambda i: weight * scores[i] - (1 - weight) * max((likeness[i][j] for j in chosen), default=0)
            )
        )
    return chosen


@given(seed=st.integers(0, 5000), weight=st.sampled_from([0.0, 0.3, 0.7, 1.0]), k=st.integers(1, 12))
@settings(max_examples=60, deadline=None)
def test_diversity_is_maximal_marginal_relevance(seed: int, weight: float, k: int) -> None:
    vectors = np.random.default_rng(seed).normal(size=(9, 5))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    scores = np.sort(vectors @ vectors[0])[::-1]
    expected = by_the_paper(vectors @ vectors.T, scores, k, weight)
    # with weight 0 the first is free: the nearest is taken
    if weight == 0:
        assert mmr(vectors @ vectors.T, scores, k, weight)[0] == 0
    else:
        assert mmr(vectors @ vectors.T, scores, k, weight).tolist() == expected


def test_diversity_spreads_the_hits(tmp_path: Path) -> None:
    collection = filled(tmp_path, N)
    run(collection, Rows({f"copy{n}": "the query" for n in range(30)}, root="o"), prefix="o/")

    def likeness(diversity: float) -> float:
        hits = search(view(collection), QUERY[None], k=8, refinement=Refinement(diversity=diversity))[0].hits
        assert len({hit.id for hit in hits}) == 8
        vectors = np.stack([planted_vector(str(hit.item["text"])) for hit in hits])
        return float(np.mean([vectors[i] @ vectors[j] for i, j in itertools.combinations(range(8), 2)]))

    assert likeness(0.0) > 0.99 > likeness(0.6)


def test_every_item_within_a_score_and_no_other(tmp_path: Path) -> None:
    collection = filled(tmp_path, N)
    build.build(collection, collection.space(), kind="faiss_hnsw", recall=0.0)
    expected = [(id, score) for id, score in ranked() if score >= 0.3]
    assert 10 < len(expected) < N
    answer = search(view(collection), QUERY[None], k=1000, refinement=Refinement(min_score=0.3))[0]
    assert [hit.id for hit in answer.hits] == [id for id, _ in expected]
    assert (answer.exact, answer.more) == (True, False)
    edge = Refinement(min_score=answer.hits[4].score)
    assert len(search(view(collection), QUERY[None], k=1000, refinement=edge)[0].hits) == 5
    cut = search(view(collection), QUERY[None], k=5, refinement=Refinement(min_score=0.3))[0]
    assert (len(cut.hits), cut.more) == (5, True)
    assert search(view(collection), QUERY[None], k=5, refinement=Refinement(min_score=1.0))[0].hits == []


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"diversity": 1.5}, "diversity is 0 to 1"),
        ({"unique": -0.1}, "unique is 0 to 1"),
        ({"min_score": 2}, "min_score"),
    ],
)
def test_numbers_out_of_range_are_refused(tmp_path: Path, wrong: dict[str, float], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        search(view(filled(tmp_path, 3)), QUERY[None], refinement=Refinement(**wrong))  # type: ignore[arg-type]


def test_examples_are_combined_by_the_stated_formula(tmp_path: Path) -> None:
    like, unlike = np.random.default_rng(0).normal(size=(3, 8)), np.random.default_rng(1).normal(size=(2, 8))
    p, n = (np.mean(v / np.linalg.norm(v, axis=1, keepdims=True), axis=0) for v in (like, unlike))
    expected = (2 * p - n) / np.linalg.norm(2 * p - n)
    np.testing.assert_allclose(combine(like.astype("f4"), unlike.astype("f4"))[0], expected, atol=1e-6)
    np.testing.assert_allclose(combine(7 * like.astype("f4"))[0], p / np.linalg.norm(p), atol=1e-6)
    one = planted_vector("text 3")
    with pytest.raises(UsageError, match="cancel out"):
        combine(np.stack([one, -one]))
    here = view(filled(tmp_path, 10))
    np.testing.assert_allclose(of_items(here, ["i0003"])[0], one, atol=1e-6)
    expected = 2 * one - planted_vector("text 4")
    np.testing.assert_allclose(of_items(here, ["i0003"], ["i0004"])[0], expected / np.linalg.norm(expected), atol=1e-6)
    for like_ids, unlike_ids, says in (
        ([], ["i0001"], "--like"),
        (["i0001"], ["i0001"], "both"),
        (["i1"] * 300, [], "256"),
    ):
        with pytest.raises(UsageError) as caught:
            of_items(here, like_ids, unlike_ids)
        assert says in str(caught.value) + str(caught.value.hint)
    with pytest.raises(UnknownName, match="nobody"):
        of_items(here, ["nobody"])
