from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.optimize import nnls

from heads.kinds.linear import Linear
from heads.report import curve
from heads.report.candidates import Candidate
from heads.report.curve import EXPONENTS, Curve, Measured, fit, measure
from heads.report.probes import Plan, plan

SIZES = np.array([25, 50, 100, 200, 400, 800], dtype=np.intp)


def exact(a: float, b: float, c: float, draws: int = 8) -> Measured:
    return Measured(SIZES, np.tile(a * SIZES.astype(float) ** -b + c, (draws, 1)), 200.0)


def grouped(n: int = 200, copies: int = 2) -> tuple[Candidate, Plan]:
    rng = np.random.default_rng(0)
    y = np.repeat(rng.integers(3, size=n // copies), copies)
    X = rng.normal(size=(n, 8))
    X[np.arange(n), y] += 1.5
    return Candidate("e", "encoder", X.astype(np.float32)), plan(y, [f"{i // copies}" for i in range(n)], repeats=1)


def test_an_exact_law_is_recovered() -> None:
    b = float(EXPONENTS[25])
    found = fit(exact(1.5, b, 0.1))
    assert (found.a, found.b, found.c) == pytest.approx((1.5, b, 0.1), rel=1e-6)
    assert found.gain == pytest.approx(1.5 * 800**-b - 1.5 * 1600**-b)
    assert found.gain_interval == pytest.approx((found.gain, found.gain))
    assert found.last_halving == pytest.approx(1.5 * 400**-b - 1.5 * 800**-b)


def test_least_squares_are_those_of_nnls_on_every_exponent() -> None:
    rng = np.random.default_rng(1)
    for errors in ([0.5, 0.4, 0.35, 0.3, 0.2, 0.1], [0.3] * 6, [0.1, 0.2, 0.1, 0.2, 0.3, 0.2], rng.random(6)):
        means = np.asarray(errors, dtype=float)[None]
        weight = 1 / (means * (1 - means) + 1 / 200)
        weight /= weight.sum()
        root = np.sqrt(weight[0])
        losses = []
        for b in EXPONENTS:
            design = np.stack([SIZES.astype(float) ** -b, np.ones(6)], axis=1)
            losses.append(nnls(design * root[:, None], means[0] * root)[1] ** 2)
        a, b, c = curve._least_squares(SIZES.astype(float), means, 200.0)[0]
        mine = float((weight[0] * (means[0] - a * SIZES.astype(float) ** -b - c) ** 2).sum())
        assert mine == pytest.approx(min(losses), rel=1e-6, abs=1e-12)
        assert min(a, c) >= 0


def test_the_band_ends_at_twice_the_labels() -> None:
    found = fit(exact(1.0, 0.5, 0.05))
    error, low, high = found.error(np.array([400, 1600, 1601]))
    assert np.isnan([error[2], low[2], high[2]]).all()
    assert (low[:2] <= error[:2]).all()
    assert (error[:2] <= high[:2]).all()


def test_bands_are_forty_percent_wider_than_the_bootstraps() -> None:
    rng = np.random.default_rng(0)
    found = fit(Measured(SIZES, rng.binomial(200, exact(1, 0.5, 0.05).errors) / 200, 200.0))
    a, b, c = found.parameters.T
    drawn = a * 1600.0**-b + c
    error, low, high = (v[0] for v in found.error(np.array([1600])))
    assert high - error == pytest.approx(1.4 * (np.quantile(drawn, 0.975) - error))
    assert error - low == pytest.approx(1.4 * (error - np.quantile(drawn, 0.025)))


@pytest.mark.parametrize(
    ("interval", "said"), [((0.021, 0.03), "falling"), ((0.0, 0.019), "flat"), ((0.01, 0.03), "undecided")]
)
def test_the_trend_follows_from_the_interval(interval: Any, said: str) -> None:
    some = exact(1, 0.5, 0)
    found = Curve(some, 1, 0.5, 0, np.zeros((2, 3)), 0.02, interval, 0.0, (0.0, 0.0))
    assert found.trend(0.02) == said


def test_draws_hold_whole_units_out_and_nest() -> None:
    _, on = grouped()
    rng = np.random.default_rng(0)
    split = curve._Split.of(on, rng)
    assert not set(on.units[split.train]) & set(on.units[split.held])
    assert len(split.train) + len(split.held) == 200
    assert len(split.held) == pytest.approx(40, abs=4)
    share = np.bincount(on.y, minlength=3) / 200
    for size in (40, 80):
        assert np.bincount(on.y[split.train[:size]], minlength=3) / size == pytest.approx(share, abs=0.06)


@pytest.mark.parametrize("classes", [2, 5, 10, 15, 20])
def test_classes_of_one_size_are_all_held_out_and_all_learned(classes: int) -> None:
    """A share that is held out by turns must not fall in step with the classes."""
    n = 20 * classes
    y = np.random.default_rng(classes).permutation(np.arange(n) % classes)
    on = plan(y, [str(i) for i in range(n)], repeats=1)
    orders = []
    for seed in range(4):
        split = curve._Split.of(on, np.random.default_rng(seed))
        assert np.bincount(on.y[split.held], minlength=classes).tolist() == [4] * classes
        prefix = np.bincount(on.y[split.train[: n // 4]], minlength=classes)
        assert prefix.min() >= 3
        assert prefix.max() <= 7
        orders.append(tuple(on.y[split.train[:classes]].tolist()))
        first, second = split.train[:classes], split.train[classes : 2 * classes]
        assert classes == 2 or on.y[first].tolist() != on.y[second].tolist()
    assert classes == 2 or len(set(orders)) == 4
    X = np.eye(classes, dtype=np.float32)[y] + 0.1 * np.random.default_rng(0).normal(size=(n, classes))
    found = measure(Candidate("e", "encoder", X.astype(np.float32)), on, Linear, draws=2)
    assert found.errors[:, -1].max() == 0


def test_measured_errors_fall_and_the_same_seed_measures_the_same() -> None:
    candidate, on = grouped()
    first, again = (measure(candidate, on, Linear, draws=3) for _ in range(2))
    assert (first.errors == again.errors).all()
    assert first.sizes.tolist() == [s for s in [5, 10, 20, 40, 80, 160] if s >= 10]
    assert first.errors[:, 0].mean() > first.errors[:, -1].mean()
    assert json.loads(json.dumps(fit(first).as_json()))["trend"] in ("falling", "flat", "undecided")


def test_a_subset_of_one_class_always_says_it() -> None:
    y = np.array([0] * 96 + [1] * 4)
    X = np.random.default_rng(0).normal(size=(100, 3)).astype(np.float32)
    found = measure(Candidate("e", "encoder", X), plan(y, [str(i) for i in range(100)], repeats=1), Linear, draws=2)
    assert (found.errors[:, 0] <= 0.2).all()


def test_one_size_has_no_halving() -> None:
    found = fit(Measured(SIZES[-1:], np.full((8, 1), 0.3), 10.0))
    assert np.isnan(found.last_halving)
    assert found.as_json()["last_halving"] is None
    assert found.gain == pytest.approx(0.0)
