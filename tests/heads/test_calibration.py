from __future__ import annotations

import json

import numpy as np
import pytest
from scipy.special import softmax

from heads import calibration
from heads.calibration import Calibration, choose, debiased_ece, logits, miscalibration_p, nll, temperature, vector
from tests.heads.planted import alone, drawn, most, oracle


def test_temperature_is_the_optimum_of_a_known_case() -> None:
    case = oracle("temperature")
    z, y = np.array(case["logits"]), np.array(case["y"])
    found = temperature(z, y)
    assert found.temperature == pytest.approx(case["T"], rel=case["tolerance_rel"])
    assert nll(found(softmax(z, axis=1)), y).mean() == pytest.approx(case["nll"], rel=1e-6)


@pytest.mark.planted
def test_a_planted_temperature_is_found(seeds: range) -> None:
    found = []
    for seed in seeds:
        y, P = drawn(1000, 5, seed, heat=2.5, spread=2.0)
        value = temperature(logits(P), y).temperature
        assert value is not None
        found.append(value)
    assert np.mean(found) == pytest.approx(2.5, abs=0.03)
    assert sum(not 2.25 < value < 2.78 for value in found) <= most(len(found), 0.05)


def test_the_likeliest_class_stays_and_the_loss_falls() -> None:
    y, P = drawn(400, 6, 1, heat=3.0)
    fitted, held = choose(P, y, alone(400))
    assert fitted.method == "temperature"
    assert np.array_equal(fitted(P).argmax(axis=1), P.argmax(axis=1))
    assert np.allclose(fitted(P).sum(axis=1), 1)
    assert nll(held, y).mean() < nll(P, y).mean() - 0.2


def test_vector_scaling_is_taken_only_where_it_helps() -> None:
    y, P = drawn(3000, 4, 2)
    shifted = softmax(logits(P) * np.array([1, 1, 3, 1]) + np.array([0, 2.0, 0, 0]), axis=1)
    fitted, held = choose(shifted, y, alone(3000))
    assert fitted.method == "vector"
    assert nll(held, y).mean() == pytest.approx(nll(P, y).mean(), abs=0.01)
    assert fitted(shifted) == pytest.approx(P, abs=0.12)
    assert choose(P, y, alone(3000))[0].method in ("none", "temperature")
    assert choose(shifted[:60], y[:60], alone(60))[0].method != "vector"


def test_the_gradient_of_vector_scaling_leads_to_the_optimum() -> None:
    y, P = drawn(500, 3, 3, heat=2.0)
    z, best = logits(P), vector(logits(P), drawn(500, 3, 3)[0])
    loss = nll(best(P), y).mean()
    for k in range(3):
        for step in (-0.05, 0.05):
            a, b = list(best.a), list(best.b)
            a[k] += step
            assert nll(Calibration("vector", tuple(a), best.b)(P), y).mean() > loss - 1e-4
            b[k] += step
            assert nll(Calibration("vector", best.a, tuple(b))(P), y).mean() > loss - 1e-4
    assert z.shape == (500, 3)


def test_no_row_is_calibrated_by_its_own_unit() -> None:
    y, P = drawn(200, 3, 4)
    units = [f"u{i // 2}" for i in range(200)]
    seen: list[int] = []

    def fit(z: np.ndarray, labels: np.ndarray) -> Calibration:
        seen.append(len(z))
        return temperature(z, labels)

    held = calibration.cross_fitted(P, y, units, fit)
    assert len(seen) == 5
    assert all(n % 2 == 0 and 150 <= n < 170 for n in seen)
    assert not np.array_equal(held, P)


def test_certain_predictions_of_impossible_classes_stay_finite() -> None:
    y = np.array([0, 1, 2, 0, 1, 2] * 10)
    P = np.eye(3)[np.roll(y, 1)]
    fitted, held = choose(P, y, alone(60))
    assert np.isfinite(held).all()
    assert np.isfinite(fitted(P)).all()
    assert np.allclose(held.sum(axis=1), 1)


def test_the_debiased_error_is_that_of_a_known_case() -> None:
    case = oracle("ece")
    found = debiased_ece(np.array(case["conf"]), np.array(case["correct"], dtype=bool), case["bins"])
    assert found == pytest.approx(case["debiased_ece_squared"], rel=1e-9)


@pytest.mark.planted
def test_calibrated_heads_are_rarely_accused_and_hot_ones_mostly(seeds: range) -> None:
    def p(seed: int, heat: float) -> float:
        y, P = drawn(500, 4, seed, heat=heat)
        return miscalibration_p(P.max(axis=1), P.argmax(axis=1) == y, seed)

    assert sum(p(seed, 1.0) <= 0.05 for seed in seeds) <= most(len(seeds), 0.05)
    assert sum(p(seed, 1.7) <= 0.05 for seed in seeds) >= 0.8 * len(seeds)


@pytest.mark.planted
def test_the_debiased_error_of_a_calibrated_head_is_around_zero(seeds: range) -> None:
    for n in (100, 500):
        cases = [drawn(n, 4, seed) for seed in seeds]
        squared = [debiased_ece(P.max(axis=1), P.argmax(axis=1) == y) for y, P in cases]
        assert abs(np.mean(squared)) < 0.004


def test_a_faultless_sample_does_not_make_the_head_certain() -> None:
    y = np.arange(30) % 3
    z = 3.0 * np.eye(3)[y]
    free, mild = temperature(z, y).temperature, choose(softmax(z, axis=1), y, alone(30))[0].temperature
    assert free is not None
    assert free < 0.1
    assert mild is not None
    assert mild > 0.3


def test_it_comes_back_from_json() -> None:
    y, P = drawn(300, 3, 5, heat=2.0)
    for made in (Calibration(), temperature(logits(P), y), vector(logits(P), y)):
        back = Calibration.from_json(json.loads(json.dumps(made.as_json())))
        assert back == made
        assert np.array_equal(back(P), made(P))
