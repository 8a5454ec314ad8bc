from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from heads.noise import suspects
from tests.heads.planted import drawn, oracle


def test_a_known_case() -> None:
    case = oracle("confident_learning")
    found = suspects(np.array(case["P"]), np.array(case["y"]))
    assert found.thresholds == pytest.approx(case["thresholds"])
    assert found.joint.tolist() == case["confident_joint"]
    assert found.noise_rate == pytest.approx(case["noise_rate"])
    assert sorted(found.rows.tolist()) == case["issues"]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("n", "C", "seed"), [(300, 3, 0), (500, 10, 1), (60, 2, 2), (400, 25, 3)])
def test_it_finds_what_cleanlab_finds_item_for_item(n: int, C: int, seed: int) -> None:
    from cleanlab.filter import find_label_issues

    y, P = drawn(n, C, seed, heat=1.3)
    y[:C] = np.arange(C)
    theirs = find_label_issues(
        y, P, filter_by="confident_learning", return_indices_ranked_by="self_confidence", n_jobs=1
    )
    assert suspects(P, y).rows.tolist() == theirs.tolist()


@pytest.mark.planted
@pytest.mark.parametrize("rate", [0.1, 0.2])
def test_planted_noise_is_measured_and_found(seeds: range, rate: float) -> None:
    rates, precision, recall = [], [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        true = rng.integers(4, size=800)
        flipped = rng.random(800) < rate
        y = np.where(flipped, (true + rng.integers(1, 4, size=800)) % 4, true)
        P = softmax(6 * np.eye(4)[true] + rng.normal(size=(800, 4)), axis=1)
        found = suspects(P, y)
        rates.append(found.noise_rate)
        precision.append(flipped[found.rows].mean())
        recall.append(flipped[found.rows].sum() / flipped.sum())
        assert (found.suggested == true[found.rows])[flipped[found.rows]].mean() > 0.95
    assert np.mean(rates) == pytest.approx(rate, abs=0.03)
    assert np.mean(precision) >= 0.9
    assert np.mean(recall) >= 0.7


def test_a_class_that_never_occurs_accuses_nobody() -> None:
    P = np.array([[0.4, 0.1, 0.5], [0.1, 0.8, 0.1], [0.7, 0.2, 0.1]])
    found = suspects(P, np.array([0, 1, 0]))
    assert np.isnan(found.thresholds[2])
    assert found.rows.tolist() == []
    assert found.noise_rate == 0.0
