from __future__ import annotations

import numpy as np
import pytest

from heads import domain
from heads.domain import Domain, fit
from tests.heads.planted import alone


def cloud(n: int, seed: int, place: int = 99, dim: int = 16) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(place).normal(size=(3, dim)) * 2.0
    return (centres[rng.integers(3, size=n)] + rng.normal(size=(n, dim))).astype(np.float32)


def fitted(X: np.ndarray, units: list[str] | None = None, seed: int = 0) -> Domain:
    found = fit(X, units or alone(len(X)), seed)
    assert found is not None
    return found


@pytest.mark.planted
@pytest.mark.parametrize("n", [80, 400])
def test_the_level_fires_as_often_as_it_says(seeds: range, n: int) -> None:
    fired = []
    for seed in seeds:
        X = cloud(n + 300, seed)
        p = fitted(X[:n], seed=seed).percentile(X[n:])
        fired.append((p <= domain.FOREIGN).mean())
    n_cal = n - n // 2
    expected = np.floor(0.05 * (n_cal + 1)) / (n_cal + 1)
    assert np.mean(fired) == pytest.approx(expected, abs=0.015)


def test_what_is_foreign_is_found_and_what_is_stored_is_not() -> None:
    X = cloud(400, 0)
    found = fitted(X)
    assert (found.percentile(cloud(100, 1, place=7)) <= 0.05).mean() > 0.95
    assert (found.percentile(X) <= 0.05).mean() < 0.06
    assert found.percentile(X[:0]).shape == (0,)


def test_the_percentile_is_that_of_a_plain_loop() -> None:
    X = cloud(60, 2)
    found = fitted(X)
    for row in X[:5]:
        q = (row - found.mean) / np.linalg.norm(row - found.mean)
        score = 1 - np.sort(found.reference @ q)[-domain.K]
        p = (1 + sum(value >= score for value in found.calibration)) / (len(found.calibration) + 1)
        assert found.percentile(row[None])[0] == pytest.approx(p, abs=1.5 / 31)


def test_copies_count_once_and_units_are_never_parted() -> None:
    X, units = cloud(50, 3), alone(50)
    one = fitted(X, units)
    many = fitted(np.repeat(X, 4, axis=0), np.repeat(units, 4).tolist())
    assert np.array_equal(one.calibration, many.calibration)
    order = np.random.default_rng(0).permutation(50)
    other = fitted(X[order], [units[i] for i in order])
    assert np.allclose(other.calibration, one.calibration, atol=1e-6)


def test_too_few_rows_say_nothing() -> None:
    assert fit(cloud(9, 4), alone(9)) is None
    assert fit(cloud(10, 4), alone(10)) is not None


def test_what_is_kept_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(domain, "MOST_REFERENCE", 20)
    monkeypatch.setattr(domain, "MOST_CALIBRATION", 10)
    found = fitted(cloud(100, 5))
    assert (len(found.reference), len(found.calibration)) == (20, 10)
