from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import softmax
from scipy.stats import betabinom, kstest

from heads import conformal
from heads.conformal import Sets, fit, measured, quantile
from tests.heads.planted import alone, drawn, most, oracle


@pytest.mark.parametrize("case", oracle("conformal_quantile"))
def test_the_rank_is_that_of_known_cases(case: dict[str, float]) -> None:
    scores = np.random.default_rng(0).permutation(int(case["n"])).astype(float) + 1
    found = quantile(scores, 1 - case["alpha"])
    assert found == (float("inf") if case["infinite"] else case["k"])


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(0, 1), max_size=40), st.sampled_from([0.5, 0.8, 0.9, 0.95, 0.99]))
def test_a_quantile_is_the_least_value_that_enough_scores_do_not_exceed(scores: list[float], coverage: float) -> None:
    found, needed = quantile(np.array(scores), coverage), round(coverage * 100) * (len(scores) + 1)
    if np.isinf(found):
        assert 100 * len(scores) < needed
    else:
        assert 100 * sum(s <= found for s in scores) >= needed
        assert 100 * sum(s < found for s in scores) < needed


@pytest.mark.planted
def test_coverage_lies_in_its_exact_band(seeds: range) -> None:
    n, tested, k = 200, 500, 181
    low, high = betabinom.ppf([0.025, 0.975], tested, k, n + 1 - k)
    counts = []
    for seed in seeds:
        y, P = drawn(n + tested, 5, seed)
        inside = fit(P[:n], y[:n], 0.9).mask(P[n:])
        counts.append(int(inside[np.arange(tested), y[n:]].sum()))
    assert sum(not low <= count <= high for count in counts) <= most(len(counts), 0.05)
    spread = np.random.default_rng(0).random(len(counts))
    below = betabinom.cdf(np.array(counts) - 1, tested, k, n + 1 - k)
    uniform = below + spread * betabinom.pmf(counts, tested, k, n + 1 - k)
    assert kstest(uniform, "uniform").pvalue > 0.001
    assert np.mean(counts) / tested == pytest.approx(k / (n + 1), abs=0.01)


@pytest.mark.planted
def test_every_class_is_covered_where_that_was_asked(seeds: range) -> None:
    plain, each = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        y = rng.choice(3, size=2000, p=[0.45, 0.45, 0.1])
        z = 3.0 * np.eye(3)[y] + rng.normal(size=(2000, 3))
        z[y == 2] = rng.normal(size=((y == 2).sum(), 3)) + np.array([2.0, 0, 0])
        P = softmax(z, axis=1)
        hard = np.flatnonzero(y[1000:] == 2)
        for kept, per_class in ((plain, False), (each, True)):
            mask = fit(P[:1000], y[:1000], 0.9, per_class=per_class).mask(P[1000:])
            kept.append(mask[hard, 2].mean())
    assert np.mean(plain) < 0.8
    assert np.mean(each) >= 0.88


def test_a_class_with_too_few_rows_is_in_every_set() -> None:
    y, P = np.repeat([0, 1, 2], [30, 9, 8]), np.full((47, 3), 1 / 3)
    sets = fit(P, y, 0.9, per_class=True)
    assert [np.isfinite(value) for value in sets.most] == [True, True, False]
    assert sets.mask(np.array([[1.0, 0.0, 0.0]])).tolist() == [[True, False, True]]
    assert fit(P[:8], y[:8], 0.9).mask(P[:2]).all()


def test_the_measured_coverage_never_uses_a_row_or_its_unit() -> None:
    y, P = drawn(300, 4, 7)
    right, size = measured(P, y, alone(300), 0.8)
    assert right.mean() == pytest.approx(0.8, abs=0.06)
    assert size.min() >= 0
    twice_y, twice_P = np.repeat(y, 2), np.repeat(P, 2, axis=0)
    paired, _ = measured(twice_P, twice_y, [f"u{i // 2}" for i in range(600)], 0.8)
    assert np.array_equal(paired[::2], paired[1::2])


def test_sets_come_back_from_json_with_their_infinities() -> None:
    sets = Sets(0.9, True, (0.25, float("inf")))
    text = json.dumps(sets.as_json(), allow_nan=False)
    assert Sets.from_json(json.loads(text)) == sets
    assert conformal.EXACT != conformal.FOLDED
