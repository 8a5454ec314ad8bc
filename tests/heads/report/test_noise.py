from __future__ import annotations

import json

import numpy as np
import pytest

from heads.report.compare import Resampler
from heads.report.noise import joint, noise
from heads.report.probes import Probe

# transfer_oracles.json, confident_learning: equal to cleanlab 2.9.0
P = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7], [0.6, 0.4], [0.2, 0.8], [0.1, 0.9], [0.7, 0.3], [0.45, 0.55]])
Y = np.array([0, 0, 0, 0, 1, 1, 1, 1])


def probe(p: np.ndarray, y: np.ndarray) -> Probe:
    none = np.full((1, 5), np.nan)
    return Probe("e", "linear", y, p[None].astype(np.float32), none, none, 0.0)


def test_the_joint_is_that_of_cleanlab() -> None:
    found, best = joint(P, Y)
    assert found == pytest.approx(np.array([[1 / 3, 1 / 6], [1 / 6, 1 / 3]]))
    assert best.tolist() == [0, 0, 1, -1, 1, 1, 0, -1]


def test_rate_and_review_list_of_the_oracle() -> None:
    found = noise(probe(P, Y), Resampler(np.arange(8)))
    assert found.rate == pytest.approx(1 / 3)
    assert sorted(found.order.tolist()) == [2, 6]
    assert found.suggested.tolist() == [0, 0, 1, 0, 1, 1, 0, 1]
    json.dumps(found.as_json())


def test_a_row_counted_twice_is_two_rows() -> None:
    weight = np.array([2.0, 1, 1, 0, 1, 3, 1, 1])
    rows = np.repeat(np.arange(8), weight.astype(int))
    assert joint(P, Y, weight)[0] == pytest.approx(joint(P[rows], Y[rows])[0])


def test_a_class_without_a_confident_item_is_taken_as_given() -> None:
    p = np.array([[0.9, 0.1, 0.0], [0.9, 0.1, 0.0], [0.1, 0.9, 0.0]])
    found, _ = joint(p, np.array([0, 0, 1]))
    assert found.sum() == pytest.approx(1)
    assert np.trace(found) == pytest.approx(1)


def test_the_most_certain_contradiction_comes_first() -> None:
    p = np.array([[0.95, 0.05]] * 5 + [[0.05, 0.95]] * 5 + [[0.2, 0.8], [0.02, 0.98]])
    found = noise(probe(p, np.array([0] * 5 + [1] * 5 + [0, 0])), Resampler(np.arange(12)))
    assert found.order.tolist()[0] == 11


def test_sureness_is_half_for_errors_anywhere_and_less_for_errors_at_the_border() -> None:
    rng = np.random.default_rng(0)
    top = rng.uniform(0.5, 1, size=2000)
    p = np.stack([top, 1 - top], axis=1)
    anywhere = np.where(rng.random(2000) < 0.2, 1, 0)
    border = np.where(rng.random(2000) < 1 - top, 1, 0)
    found = [noise(probe(p, y), Resampler(np.arange(2000), draws=80)) for y in (anywhere, border)]
    assert found[0].sureness_interval[0] < 0.5 < found[0].sureness_interval[1]
    assert found[1].sureness_interval[1] < 0.35
