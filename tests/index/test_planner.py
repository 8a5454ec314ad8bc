from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedder.records import FloatMatrix
from index import build, commit, derived, measure, planner
from index.search import search
from index.view import View
from tests.index import filtered
from tests.index.tools import filled, planted_vector


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> tuple[View, FloatMatrix]:
    return filtered.filled(tmp_path_factory.mktemp("filtered"), 10_000)


@pytest.mark.parametrize("kind", filtered.present())
def test_recall_and_full_answers_at_every_selectivity(kind: str, stored: tuple[View, FloatMatrix]) -> None:
    seen = list(filtered.cells(kind, *stored))
    assert len(seen) == 10
    for cell in seen:
        assert cell.fewest == cell.wanted, cell
        assert cell.recall >= 0.95, cell


def test_a_filter_that_follows_the_clusters_empties_no_answer(
    stored: tuple[View, FloatMatrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planner, "min_selectivity", lambda base: 0.05)
    seen = {(c.filter, c.selectivity): c for c in filtered.cells("faiss_hnsw", *stored)}
    assert seen["correlated", 0.5].recall >= 0.95
    assert (seen["random", 0.5].index, seen["random", 0.1].index) == ("faiss_hnsw", "faiss_hnsw")
    monkeypatch.setattr(planner, "SURELY_NEAR", 0.0)
    unguarded = {(c.filter, c.selectivity): c for c in filtered.cells("faiss_hnsw", *stored)}
    assert unguarded["correlated", 0.5].recall < 0.95, "the filter is too easy to show anything"


def test_the_answer_says_how_and_how_much_was_searched(
    stored: tuple[View, FloatMatrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(measure, "min_selectivity", lambda *_: 0.5)
    here, rows = stored
    build.build(here.collection, here.space, kind="faiss_hnsw")
    wide = search(here, rows[:1], where="random < 9000")[0]
    assert (wide.index, wide.exact, wide.searched, wide.selectivity) == ("faiss_hnsw", False, 9000, 0.9)
    narrow = search(here, rows[:1], where="random < 100")[0]
    assert (narrow.index, narrow.exact, narrow.searched, narrow.selectivity) == ("flat", True, 100, 0.01)
    assert narrow.filter_ms > 0
    assert search(here, rows[:1])[0].filter_ms == 0


def test_the_threshold_measured_at_the_build_comes_before_the_kinds_own(stored: tuple[View, FloatMatrix]) -> None:
    here, _ = stored
    base = here.now().base
    assert base is not None
    unmeasured = derived.Loaded(**{**vars(base), "manifest": {"measured": {}}})
    assert planner.min_selectivity(unmeasured) == base.kind.MIN_SELECTIVITY
    measured = derived.Loaded(**{**vars(base), "manifest": {**base.manifest, "min_selectivity": 0.123}})
    assert planner.min_selectivity(measured) == 0.123


def test_deleted_rows_do_not_make_a_scan_of_every_query(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(measure, "min_selectivity", lambda *_: 1.0)
    collection = filled(tmp_path, 200, columns={f"i{k:04d}": {"g": k} for k in range(200)}, types={"g": "int"})
    build.build(collection, collection.space(), kind="faiss_hnsw")
    commit.delete_ids(collection, ["i0007"])
    here = View(collection, collection.space())
    plain = search(here, planted_vector("query")[None])[0]
    assert (plain.index, plain.exact, plain.searched) == ("faiss_hnsw", False, 199)
    assert search(here, planted_vector("query")[None], where="g >= 0")[0].exact


class Leaking:
    """An engine that ignores the filter and answers little."""

    def __init__(self, n: int) -> None:
        self.n = n

    def search(self, queries: FloatMatrix, k: int, allowed: object = None) -> tuple[np.ndarray, np.ndarray]:
        rows = np.tile(np.arange(k), (len(queries), 1))
        return rows, np.zeros(rows.shape, np.float32)


def test_what_an_index_answers_is_checked_against_the_filter(stored: tuple[View, FloatMatrix]) -> None:
    here, rows = stored
    moment = here.now()
    subset = here.subset("random < 6000", moment)
    leaking = planner.Plan(moment, subset, Leaking(len(rows)), "leaking")
    assert subset.mask is not None
    base, _, scanned = leaking.candidates(rows[:3], 8)
    assert subset.mask[base].all()
    # the answer was short, so it was scanned
    assert scanned.all()
    exact, _, _ = leaking.scanned().candidates(rows[:3], 8)
    np.testing.assert_array_equal(np.sort(base), np.sort(exact))


@pytest.mark.parametrize("gathered", [0, 1 << 30])
@pytest.mark.parametrize("block", [7, 16_384])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.3, 0.9])
def test_a_scan_of_some_rows_is_a_plain_product(
    monkeypatch: pytest.MonkeyPatch, stored: tuple[View, FloatMatrix], share: float, block: int, gathered: int
) -> None:
    monkeypatch.setattr(planner, "GATHERED_BYTES", gathered)
    monkeypatch.setattr(planner, "BLOCK_ROWS", block if share < 0.1 else 997)
    here, rows = stored
    moment = here.now()
    assert moment.base is not None
    wanted = np.random.default_rng(3).random(len(rows)) < share
    subset = planner.Subset.of(moment, wanted, np.zeros(0, dtype=bool))
    plan = planner.plan(moment, subset, exact=True)
    if share:
        assert (subset.gathered is not None) == (bool(gathered) and share < planner.SCAN_ALL_FROM)
    base, fresh, _ = plan.candidates(rows[:4], 6)
    assert base.shape == (4, 6)
    assert fresh.shape == (4, 0)
    matrix = np.asarray(moment.base.matrix)
    for query, found in zip(rows[:4], base, strict=True):
        allowed = np.flatnonzero(wanted)
        expected = allowed[np.argsort(-(matrix[allowed] @ query), kind="stable")[:6]]
        assert set(found[found >= 0].tolist()) == set(expected.tolist())


def test_a_filter_is_evaluated_once_for_a_moment(
    stored: tuple[View, FloatMatrix], monkeypatch: pytest.MonkeyPatch
) -> None:
    here, rows = stored
    first = here.subset("random < 77", here.now())
    assert here.subset({"must": [{"key": "random", "range": {"lt": 77}}]}, here.now()) is first
    commit.delete_ids(here.collection, ["5"])
    after = here.subset("random < 77", here.now())
    assert after is not first
    for n in range(300):
        search(here, rows[:1], k=1, where=f"random < {50 + n}")
    monkeypatch.setattr("index.view.CACHED_BYTES", 1)
    search(here, rows[:1], k=1, where="random < 60")
    assert len(here._subsets) == 1
    assert search(here, planted_vector("q", filtered.DIM)[None], k=3, where="random < 0")[0].hits == []
