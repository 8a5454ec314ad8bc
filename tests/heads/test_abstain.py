from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binom

from heads.abstain import aurc, clopper_pearson_upper, curve, points, select
from tests.heads.planted import drawn, most, oracle


def test_the_curve_is_that_of_a_known_case() -> None:
    case = oracle("ece")
    sure, right = np.array(case["conf"]), np.array(case["correct"], dtype=bool)
    coverage, risk = curve(sure, right)
    assert coverage == pytest.approx(np.arange(1, 11) / 10)
    assert risk == pytest.approx(case["risk_at_coverage"])
    assert aurc(sure, right) == pytest.approx(case["aurc"])
    assert points(sure, right)[-1] == [1.0, pytest.approx(0.4)]
    many = points(np.linspace(0, 1, 1000), np.ones(1000, dtype=bool))
    assert len(many) == 20


@pytest.mark.parametrize("case", oracle("clopper_pearson_upper"))
def test_the_bound_is_that_of_known_cases(case: dict[str, float]) -> None:
    found = clopper_pearson_upper(int(case["errors"]), int(case["n"]), 1 - case["conf"])
    assert found == pytest.approx(case["upper"], rel=1e-9)
    assert binom.cdf(case["errors"], case["n"], found) == pytest.approx(1 - case["conf"])


def test_all_wrong_has_no_bound_but_one() -> None:
    assert clopper_pearson_upper(5, 5, 0.05) == 1.0


@pytest.mark.planted
def test_the_risk_is_rarely_above_what_was_allowed(seeds: range) -> None:
    broken, feasible, covered = 0, 0, []
    for seed in seeds:
        y, P = drawn(41_000, 4, seed, spread=2.5)
        sure, right = P.max(axis=1), P.argmax(axis=1) == y
        found = select(sure[:1000], right[:1000], 0.1)
        taken = sure[1000:] >= found.threshold
        feasible += bool(taken.any())
        covered.append(taken.mean())
        broken += bool(taken.any()) and (~right[1000:][taken]).mean() > 0.1
    assert broken <= most(len(seeds), 0.05)
    assert feasible >= 0.8 * len(seeds)
    assert np.mean(covered) > 0.2


def test_what_cannot_be_promised_is_never_answered() -> None:
    right = np.zeros(100, dtype=bool)
    found = select(np.linspace(0, 1, 100), right, 0.05)
    assert (found.threshold, found.coverage) == (float("inf"), 0.0)
    few = select(np.ones(5), np.ones(5, dtype=bool), 0.05)
    assert few.coverage == 0.0


def test_a_head_without_errors_answers_everything_that_the_size_allows() -> None:
    found = select(np.linspace(0, 1, 500), np.ones(500, dtype=bool), 0.05)
    assert found.coverage == 1.0
    assert found.risk == 0.0
    assert found.bound == pytest.approx(clopper_pearson_upper(0, 500, 0.05 / 9))


def test_equal_confidences_are_taken_together() -> None:
    sure = np.repeat([0.9, 0.5], 300)
    right = np.concatenate([np.ones(300, dtype=bool), np.zeros(300, dtype=bool)])
    found = select(sure, right, 0.05)
    assert (found.threshold, found.coverage, found.risk) == (0.9, 0.5, 0.0)
