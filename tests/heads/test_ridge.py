from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_diabetes, load_digits, load_wine
from sklearn.linear_model import Ridge as TheirRidge
from sklearn.linear_model import RidgeCV
from sklearn.metrics import log_loss, r2_score
from sklearn.utils.estimator_checks import check_estimator

from heads.kinds import ridge
from heads.kinds.ridge import Decomposed, Ridge, RidgeRegressor, Units, fit_ridge, left_out

ORACLES = json.loads((Path(__file__).parent / "oracles.json").read_text())


def residuals(X: Any, Y: Any, lam: float, units: list[str]) -> Any:
    found = Decomposed.of(X)
    U, target = found.basis(X), None
    Yc = Y - Y.mean(axis=0)
    target = U.T @ Yc
    return left_out(U, found.power, target, Yc, len(X), lam, Units.of(units))


@pytest.mark.parametrize("case", ["ridge_loo_tall", "ridge_loo_wide"])
def test_left_out_errors_are_those_of_refits(case: str) -> None:
    known = ORACLES[case]
    X, Y = np.array(known["X"]), np.array(known["Y"])
    for lam, expected in known["loo_residual"].items():
        found = residuals(X, Y, float(lam), [str(i) for i in range(len(X))])
        assert found == pytest.approx(np.array(expected), rel=1e-8)


@pytest.mark.parametrize("shape", [(40, 6), (20, 50)])
def test_groups_left_out_whole_have_the_errors_of_refits(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    X, Y = rng.normal(size=shape), rng.normal(size=(shape[0], 3))
    groups = rng.integers(0, shape[0] // 3, shape[0])
    found = residuals(X, Y, 0.7, [str(g) for g in groups])
    for g in np.unique(groups):
        out = groups == g
        refit = TheirRidge(alpha=0.7).fit(X[~out], Y[~out])
        assert found[out] == pytest.approx(Y[out] - refit.predict(X[out]), rel=1e-7, abs=1e-9)


def test_the_regressor_is_scikit_learns_and_chooses_the_lambda_that_it_chooses() -> None:
    X, y = load_diabetes(return_X_y=True)
    ours = RidgeRegressor().fit(X, y, groups=np.arange(len(y)))
    grid = [lam for lam, _ in ours.path_]
    theirs = RidgeCV(alphas=grid, store_cv_results=True).fit(X, y)
    assert ours.lambda_ == pytest.approx(theirs.alpha_)
    assert [error for _, error in ours.path_] == pytest.approx(theirs.cv_results_.mean(axis=0), rel=1e-8)
    assert ours.predict(X) == pytest.approx(theirs.predict(X), rel=1e-8)
    assert r2_score(y, ours.predict(X)) > 0.5


def test_the_classifier_is_ridge_on_plus_and_minus_one_with_a_fitting_temperature() -> None:
    X, y = load_wine(return_X_y=True)
    X = (X - X.mean(axis=0)) / X.std(axis=0)
    ours = Ridge(lam=3.0).fit(X, y)
    theirs = TheirRidge(alpha=3.0).fit(X, np.where(y[:, None] == np.arange(3), 1.0, -1.0))
    assert ours.decision_function(X) * ours.temperature_ == pytest.approx(theirs.predict(X), rel=1e-8, abs=1e-10)
    held = fit_ridge(X, y, 3, [str(i) for i in range(len(y))], 3.0).held
    losses = [log_loss(y, softmax(held / (ours.temperature_ * f))) for f in (0.8, 1.0, 1.25)]
    assert losses[1] == min(losses)


def softmax(z: Any) -> Any:
    odds = np.exp(z - z.max(axis=1, keepdims=True))
    return odds / odds.sum(axis=1, keepdims=True)


def test_near_copies_are_left_out_together() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 60)), 4, axis=0) + 1e-3 * rng.normal(size=(160, 60))
    y = np.repeat(rng.integers(2, size=40), 4)
    alone, together = Ridge().fit(X, y), Ridge().fit(X, y, groups=np.arange(160) // 4)
    assert together.lambda_ > 10 * alone.lambda_
    assert min(e for _, e in alone.path_) < 0.1 < 0.8 < min(e for _, e in together.path_)


def test_of_many_rows_some_are_left_out_each_with_its_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "SCORED_UP_TO", 100)
    X, y = load_digits(return_X_y=True)
    units = [f"u{i // 2}" for i in range(len(y))]
    rows = ridge.scored(units)
    assert 95 <= len(rows) <= 105
    assert all((i ^ 1) in set(rows.tolist()) or i == len(y) - 1 for i in rows.tolist())
    model = Ridge().fit(X, y)
    assert model.score(X, y) > 0.9
    whole = Decomposed.of(X)
    own = fit_ridge(X, y, 10, units, 5.0)
    U, Y = whole.basis(X), np.where(y[:, None] == np.arange(10), 1.0, -1.0)
    everywhere = left_out(U, whole.power, U.T @ (Y - Y.mean(axis=0)), Y - Y.mean(axis=0), len(X), 5.0, Units.of(units))
    assert own.held == pytest.approx(Y[own.rows] - everywhere[own.rows], rel=1e-8, abs=1e-8)


def test_large_units_are_not_left_out_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ridge, "LARGEST_UNIT", 3)
    assert ridge.scored(["a"] * 4 + ["b"] * 3 + ["c"]).tolist() == [4, 5, 6, 7]
    assert ridge.scored(["a"] * 4 + ["b"] * 5).tolist() == list(range(9))
    X, y = load_digits(return_X_y=True)
    assert Ridge().fit(X[:100], y[:100], groups=y[:100] % 2).score(X[:100], y[:100]) > 0.9


def test_equal_rows_and_more_dimensions_than_rows_are_no_error() -> None:
    flat = Ridge().fit(np.ones((10, 3)), ["a"] * 7 + ["b"] * 3)
    assert flat.predict(np.ones((1, 3))) == ["a"]
    wide = RidgeRegressor().fit(np.eye(12), np.arange(12.0))
    assert np.isfinite(wide.predict(np.eye(12))).all()


def test_a_regressor_comes_back_the_same() -> None:
    X, y = load_diabetes(return_X_y=True)
    model = RidgeRegressor().fit(X, y)
    back = RidgeRegressor.restore(model.arrays(), json.loads(json.dumps(model.params())))
    assert np.array_equal(back.predict(X), model.predict(X))


def test_scikit_learn_takes_it_for_a_regressor() -> None:
    check_estimator(RidgeRegressor(), on_skip=None)


def test_other_labels_of_the_same_rows_give_what_a_fit_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = load_digits(return_X_y=True)
    X, y, units = X[:500], y[:500], np.arange(500)
    model = Ridge().fit(X, y, units)
    changed = np.where(np.arange(500) < 50, (y + 1) % 10, y)
    expected = Ridge().fit(X, changed, units)
    monkeypatch.setattr(Decomposed, "of", classmethod(lambda cls, X: pytest.fail("the axes are known")))
    model.relabel(X, changed, units)
    assert model.lambda_ == expected.lambda_
    assert np.abs(model.coef_ - expected.coef_).max() < 1e-9
    with pytest.raises(ValueError, match="fitted last"):
        model.relabel(X[:499], changed[:499])
    with pytest.raises(ValueError, match="fitted last"):
        model.relabel(X + 1.0, changed)
    with pytest.raises(ValueError, match="fitted last"):
        Ridge().relabel(X, y)
