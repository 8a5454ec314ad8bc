from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from heads.report.compare import Resampler, holm, items_needed, mcnemar, nadeau_bengio, paired
from tests.heads.report.tools import ORACLES, even, probe, share


def test_nadeau_and_bengio_as_planted_and_the_naive_test_without_overlap() -> None:
    case = ORACLES["nadeau_bengio"]
    found = nadeau_bengio(np.array(case["diffs"]), case["n_test_over_n_train"])
    assert (found.t, found.p) == (pytest.approx(case["t"]), pytest.approx(case["p_two_sided"]))
    assert found.df == case["df"]
    assert found.interval == pytest.approx(tuple(case["ci95"]))
    naive = nadeau_bengio(np.array(case["diffs"]), 0.0)
    assert (naive.t, naive.p) == (pytest.approx(case["naive_t"]), pytest.approx(case["naive_p"]))


def test_differences_without_spread_have_a_p_all_the_same() -> None:
    assert nadeau_bengio(np.zeros(5), 0.25).p == 1.0
    assert nadeau_bengio(np.full(5, 0.125), 0.25).p == 0.0


@pytest.mark.parametrize("case", ORACLES["mcnemar_exact"])
def test_mcnemar_as_planted(case: dict[str, float]) -> None:
    assert mcnemar(int(case["b"]), int(case["c"])) == pytest.approx(case["p"])
    assert mcnemar(0, 0) == 1.0


def test_holm_as_planted_whatever_the_order() -> None:
    case = ORACLES["holm"]
    assert holm(case["p"]) == pytest.approx(case["adjusted"])
    assert holm(case["p"][::-1]) == pytest.approx(case["adjusted"][::-1])
    assert holm([]) == []


@pytest.mark.parametrize("case", ORACLES["paired_n_for_80pct_power"])
def test_items_needed_as_planted(case: dict[str, float]) -> None:
    assert items_needed(case["delta"], case["discordant"]) == pytest.approx(case["n"], abs=1)


def test_items_needed_give_the_power_they_promise() -> None:
    n = round(items_needed(0.05, 0.15))
    rng = np.random.default_rng(0)
    drawn = rng.choice([1, -1, 0], p=[0.1, 0.05, 0.85], size=(4000, n))
    z = drawn.mean(axis=1) / drawn.std(axis=1) * np.sqrt(n)
    assert (z > 1.96).mean() == pytest.approx(0.8, abs=0.02)


def test_resampled_means_are_those_of_rows_drawn_by_unit() -> None:
    units = np.array([0, 0, 1, 2, 2, 2])
    values = np.random.default_rng(1).normal(size=(6, 3))
    made = Resampler(units, draws=300, seed=5)
    weights = made.weights[:, units].astype(float)
    expected = weights @ values / weights.sum(axis=1, keepdims=True)
    assert np.allclose(made.means(values), expected)
    out = made.means(values, out_of_bag=True)
    hidden = (weights == 0).astype(float)
    some = hidden.any(axis=1)
    assert np.allclose(out[some], hidden[some] @ values / hidden[some].sum(axis=1, keepdims=True))
    assert np.isnan(out[~some]).all()
    assert np.array_equal(made.weights, Resampler(units, draws=300, seed=5).weights)


def test_the_interval_is_the_textbook_one_on_many_rows() -> None:
    right = np.arange(1000) % 10 < 7
    low, high = Resampler(np.arange(1000)).interval(right.astype(float))
    half = 1.96 * np.sqrt(0.21 / 1000)
    assert (low, high) == (pytest.approx(0.7 - half, abs=0.003), pytest.approx(0.7 + half, abs=0.003))


def test_copies_add_rows_but_no_evidence() -> None:
    alone = even(200)
    a, b = share(alone, 0.8, 1), share(alone, 0.7, 2)
    once = paired(probe(alone, a).correct, probe(alone, b).correct, alone.fold, alone.resampler)
    many = even(800, copies=4)
    four = paired(
        probe(many, np.repeat(a, 4)).correct, probe(many, np.repeat(b, 4)).correct, many.fold, many.resampler
    )  # fmt: skip
    assert four.interval == pytest.approx(once.interval)
    assert four.design == pytest.approx(4 * once.design)
    assert four.needed() == pytest.approx((once.needed()[0], 4 * once.needed()[1]))
    assert (four.items, four.units) == (800, 200)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.floats(0.3, 0.95), st.floats(0.3, 0.95))
def test_swapping_the_two_mirrors_the_comparison(seed: int, first: float, second: float) -> None:
    on = even(60)
    a, b = probe(on, share(on, first, seed)), probe(on, share(on, second, seed + 1), "b")
    ab, ba = on.compare(a, b), on.compare(b, a)
    assert ab.difference == pytest.approx(-ba.difference)
    assert ab.interval == pytest.approx(tuple(-end for end in reversed(ba.interval)), abs=1e-9)
    assert (ab.p, ab.mcnemar, ab.spread) == (pytest.approx(ba.p), pytest.approx(ba.mcnemar), pytest.approx(ba.spread))
    assert ab.sure[0] <= ab.interval[0] <= ab.interval[1] <= ab.sure[1]


def test_single_items_have_a_design_of_one_and_the_t_test_of_pairs() -> None:
    on = even(400, repeats=1)
    a, b = share(on, 0.8, 3), share(on, 0.7, 4)
    found = on.compare(probe(on, a), probe(on, b, "b"))
    assert found.design == pytest.approx(1, abs=0.01)
    assert found.p == pytest.approx(float(stats.ttest_rel(a * 1.0, b * 1.0).pvalue), rel=1e-6)
    assert found.mcnemar == mcnemar(int((a & ~b).sum()), int((b & ~a).sum()))
    assert found.sure == (min(found.interval[0], found.t_interval[0]), max(found.interval[1], found.t_interval[1]))
    assert stats.ttest_rel(a * 1.0, b * 1.0).confidence_interval() == pytest.approx(found.t_interval)


def test_needed_names_the_margin_then_the_difference_that_was_seen() -> None:
    on = even(200)
    unsure = on.compare(probe(on, share(on, 0.7, 5)), probe(on, share(on, 0.7, 6), "b"))
    delta, n = unsure.needed(0.03)
    assert delta == 0.03
    assert n == pytest.approx(items_needed(0.03, unsure.spread) * unsure.design)
    seen, more = unsure.needed(0.5)
    assert seen == max(abs(unsure.difference), 0.005)
    assert more > 200
    assert on.compare(probe(on, True), probe(on, True, "b")).as_json()["p"] == 1.0


def test_several_repeats_read_nadeau_and_bengio_too_and_one_does_not() -> None:
    for repeats in (1, 2):
        on = even(100, repeats=repeats)
        found = on.compare(probe(on, True), probe(on, on.fold != 0, "b"))
        nb = found.nadeau_bengio
        assert nb.interval[0] < 0 < found.t_interval[0] < found.tie_interval[0]
        assert nb.interval[0] < nb.tie_interval[0] < found.difference < nb.tie_interval[1] < nb.interval[1]
        read = found.sure[0], found.tie_sure[1], found.p
        assert (read == (nb.interval[0], nb.tie_interval[1], nb.p)) == (repeats == 2)
        assert (found.sure[0] > 0) == (repeats == 1)


@pytest.mark.parametrize(("repeats", "said"), [(1, "undecided"), (2, "above")])
def test_a_small_difference_on_folds_that_were_dealt_once_must_be_farther_from_zero(repeats: int, said: str) -> None:
    once = even(1200, repeats=1)
    wrong = np.concatenate([np.flatnonzero(once.fold[0] == k)[:5] for k in range(5)])
    on = replace(once, fold=np.repeat(once.fold, repeats, axis=0))
    found = on.compare(probe(on, True), probe(on, ~np.isin(np.arange(1200), wrong), "b"))
    assert 2 < 2 * found.difference / (found.sure[1] - found.sure[0]) < 3
    assert found.direction() == said
