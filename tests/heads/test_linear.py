from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.datasets import load_digits, make_blobs
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.model_selection import cross_val_score

from heads.kinds import linear
from heads.kinds.linear import GRID, Linear


def digits(n: int, classes: int = 10) -> tuple[NDArray[np.float64], NDArray[np.str_]]:
    data = load_digits(n_class=classes)
    return data.data[:n], np.array([f"d{t}" for t in data.target[:n]])


def penalised(X: NDArray[np.float64], y: NDArray[np.str_], model: Linear | LogisticRegression, C: float) -> float:
    """The objective that both minimise, from what they predict and how large their weights are."""
    return float(log_loss(y, model.predict_proba(X)) + (weights(model) ** 2).sum() / (2 * C * len(y)))


def weights(model: Linear | LogisticRegression) -> NDArray[np.float64]:
    """As scikit-learn has them: of two classes, the difference alone."""
    return np.asarray(np.diff(model.coef_, axis=0) if len(model.coef_) == 2 else model.coef_)


@pytest.mark.parametrize("C", [0.003, 0.1, 3.0])
@pytest.mark.parametrize("shape", ["tall", "wide", "binary"])
def test_it_reaches_the_optimum_that_scikit_learn_reaches(C: float, shape: str) -> None:
    X, y = digits(40 if shape == "wide" else 400, 2 if shape == "binary" else 10)
    model = Linear(C=C).fit(X, y)
    Z = (X - X.mean(axis=0)) / np.sqrt(((X - X.mean(axis=0)) ** 2).sum(axis=1).mean() / X.shape[1])
    oracle = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(Z, y)
    best = penalised(Z, y, oracle, C)
    assert penalised(X, y, model, C) == pytest.approx(best, rel=1e-5)
    assert np.abs(weights(model) - oracle.coef_).max() < 5e-3 * np.abs(oracle.coef_).max()
    assert np.abs(model.predict_proba(X) - oracle.predict_proba(Z)).max() < 1e-3


def test_cross_validation_of_scikit_learn_drives_it() -> None:
    X, y = make_blobs(120, centers=3, cluster_std=0.5, random_state=0)
    assert cross_val_score(Linear(), X, y, cv=3).mean() > 0.99


def test_c_does_not_depend_on_the_scale_of_the_vectors() -> None:
    X, y = digits(200)
    small, large = Linear().fit(X, y), Linear().fit(X * 4096.0 + 1.0, y)
    assert small.C_ == large.C_
    assert np.allclose(small.predict_proba(X), large.predict_proba(X * 4096.0 + 1.0), atol=1e-4)


def test_noise_is_regularised_more_than_signal() -> None:
    X, y = digits(300)
    noisy = np.random.default_rng(0).permutation(y)
    assert Linear().fit(X, noisy).C_ * 100 <= Linear().fit(X, y).C_


def test_c_is_the_smallest_whose_held_out_loss_is_no_worse_than_chance_would_make_it() -> None:
    X, y = digits(300)
    model = Linear().fit(X, y)
    tried, losses = [p[0] for p in model.path_], [p[1] for p in model.path_]
    best = int(np.argmin(losses))
    assert tried == list(GRID[: len(tried)])
    assert tried[best] >= model.C_
    assert losses[tried.index(model.C_)] <= losses[best] * 1.1
    assert len(losses) == best + 1 + linear.PATIENCE


def test_equal_rows_are_not_split_while_c_is_chosen() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 30)), 5, axis=0)
    y = np.repeat(rng.integers(2, size=40), 5)
    together, apart = Linear().fit(X, y), Linear().fit(X, y, groups=np.arange(200))
    assert apart.path_[-1][1] < 0.3 < together.path_[-1][1]
    assert together.C_ < apart.C_


def test_few_members_one_class_and_equal_rows_are_no_error() -> None:
    X, y = digits(60)
    y = np.array(["alone", *y[1:]])
    model = Linear().fit(X, y)
    assert "alone" in model.classes_
    assert np.allclose(model.predict_proba(X).sum(axis=1), 1)
    assert Linear().fit(X, np.full(60, "only")).predict(X).tolist() == ["only"] * 60
    flat = Linear().fit(np.ones((10, 3)), ["a"] * 7 + ["b"] * 3)
    assert flat.predict_proba(np.ones((1, 3)))[0] == pytest.approx([0.7, 0.3], abs=1e-3)


def test_a_large_problem_runs_in_single_precision_and_agrees(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = digits(300)
    exact = Linear(C=0.1).fit(X, y).predict_proba(X)
    monkeypatch.setattr(linear, "DOUBLE_UP_TO", 0)
    monkeypatch.setattr(linear, "ONE_THREAD_UP_TO", 0)
    assert np.abs(Linear(C=0.1).fit(X, y).predict_proba(X) - exact).max() < 2e-3


def test_many_rows_are_held_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = digits(500)
    monkeypatch.setattr(linear, "ALL_FOLDS_UP_TO", 499)
    model = Linear().fit(X, y)
    assert 0.01 <= model.C_ <= 100
    assert model.path_ != Linear().fit(X[:499], y[:499]).path_


def test_many_classes() -> None:
    rng = np.random.default_rng(0)
    centres, y = rng.normal(size=(300, 24)), np.repeat(np.arange(300), 3)
    X = centres[y] + 0.2 * rng.normal(size=(900, 24))
    model = Linear(C=0.3).fit(X, y)
    assert model.predict_proba(X).shape == (900, 300)
    assert (model.predict(centres) == np.arange(300)).mean() > 0.99


def test_the_order_of_the_rows_does_not_change_a_single_bit() -> None:
    X, y = digits(150)
    order = np.random.default_rng(0).permutation(150)
    assert np.array_equal(Linear().fit(X, y).coef_, Linear().fit(X[order], y[order]).coef_)
