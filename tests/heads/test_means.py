from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.covariance import ledoit_wolf as their_ledoit_wolf
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.metrics.pairwise import cosine_similarity
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier

from heads.kinds.knn import Knn
from heads.kinds.lda import Lda, ledoit_wolf
from heads.kinds.linear import Linear
from heads.kinds.mlp import Mlp
from heads.kinds.prototype import Prototype
from heads.stream import InMemory, Moments

ORACLES = json.loads((Path(__file__).parent / "oracles.json").read_text())
X, Y = load_digits(return_X_y=True)


def test_lda_has_the_planted_weights() -> None:
    known = ORACLES["shrunk_lda"]
    model = Lda(shrinkage=known["shrinkage"]).fit(np.array(known["X"]), known["y"])
    assert model.coef_ == pytest.approx(np.array(known["coef"]), rel=1e-8)
    assert model.intercept_ == pytest.approx(np.array(known["intercept"]), rel=1e-8)


@pytest.mark.parametrize("rho", [0.02, 0.4])
def test_lda_is_scikit_learns_also_when_rows_come_and_go(rho: float) -> None:
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=rho).fit(X[:900], Y[:900])
    whole = Lda(shrinkage=rho).fit(X[:900], Y[:900])
    grown = Lda(shrinkage=rho).fit(X[:200], Y[:200])
    for i in range(200, 900, 100):
        grown.update(X[i : i + 100], Y[i : i + 100])
    shrunk = Lda(shrinkage=rho).fit(X[:1100], Y[:1100]).downdate(X[900:1100], Y[900:1100])
    for model in (whole, grown, shrunk):
        assert model.coef_ == pytest.approx(theirs.coef_, rel=1e-8, abs=1e-10)
        assert model.predict_proba(X) == pytest.approx(theirs.predict_proba(X), abs=1e-8)


def test_shrinkage_is_ledoit_and_wolfs_on_what_the_classes_leave() -> None:
    moments = Moments.of(InMemory(X), Y, 10)
    centred = X - moments.means[Y]
    expected = their_ledoit_wolf(centred, assume_centered=True)[1]
    assert ledoit_wolf(InMemory(X), Y, moments) == pytest.approx(expected, rel=1e-9)
    assert Lda().fit(X, Y).shrinkage_ == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 999)), min_size=2, max_size=30), st.integers(1, 29))
def test_moments_do_not_depend_on_how_rows_come(rows: list[tuple[int, int]], cut: int) -> None:
    y = np.array([c for c, _ in rows])
    Z = np.stack([np.random.default_rng(s).normal(size=3) + 5 for _, s in rows])
    cut = min(cut, len(y))
    once, parts = Moments.of(InMemory(Z, 7), y, 3), Moments.none(3, 3)
    parts.add(Z[:cut], y[:cut])
    parts.add(Z[cut:], y[cut:])
    for name in ("counts", "means", "scatter", "total"):
        assert getattr(parts, name) == pytest.approx(getattr(once, name), abs=1e-9)
    assert once.total == pytest.approx((Z - Z.mean(axis=0)).T @ (Z - Z.mean(axis=0)), abs=1e-9)
    parts.remove(Z[cut:], y[cut:])
    assert parts.scatter == pytest.approx(Moments.of(InMemory(Z[:cut]), y[:cut], 3).scatter, abs=1e-9)


def test_prototype_is_the_nearest_mean_by_cosine_and_takes_labels_in_and_out() -> None:
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    means = np.stack([unit[:500][Y[:500] == c].mean(axis=0) for c in range(10)])
    model = Prototype().fit(X[:500], Y[:500])
    assert np.array_equal(model.predict(X), cosine_similarity(X, means).argmax(axis=1))
    moved = Prototype().fit(X[:400], Y[:400]).update(X[400:600], Y[400:600]).downdate(X[500:600], Y[500:600])
    assert moved.predict(X).tolist() == model.predict(X).tolist()
    assert moved.sums_ == pytest.approx(model.sums_)


def test_the_temperature_of_prototypes_fits_rows_that_were_left_out() -> None:
    rng = np.random.default_rng(0)
    noise, y = rng.normal(size=(60, 200)), np.arange(60) % 3
    assert Prototype().fit(noise, y).predict_proba(noise).max() < 0.9
    copies, groups = np.repeat(noise, 3, axis=0), np.repeat(np.arange(60), 3)
    apart, together = Prototype().fit(copies, np.repeat(y, 3)), Prototype().fit(copies, np.repeat(y, 3), groups)
    assert together.temperature_ > 3 * apart.temperature_


@pytest.mark.parametrize("kind", [Prototype, Lda])
def test_what_was_not_there_is_neither_added_nor_removed(kind: type[Prototype] | type[Lda]) -> None:
    model = kind().fit(X[:100], Y[:100])
    with pytest.raises(ValueError, match="was not there"):
        model.update(X[:1], [77])
    with pytest.raises(ValueError, match="more rows of a class"):
        model.downdate(X[:1000], Y[:1000])


def test_neighbours_vote_as_planted() -> None:
    known = ORACLES["knn_vote"]
    model = Knn(k=known["k"], temperature=known["temperature"], smooth=False)
    model.fit(np.array(known["bank"]), known["labels"])
    assert model.predict_proba([known["query"]])[0] == pytest.approx(known["probs"], rel=1e-5)


def test_neighbours_are_those_of_scikit_learn() -> None:
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    theirs = KNeighborsClassifier(10, weights=lambda d: np.exp((1 - d * d / 2) / 0.07)).fit(unit[:900], Y[:900])
    ours = Knn(k=10, smooth=False).fit(X[:900], Y[:900])
    assert ours.predict_proba(X[900:]) == pytest.approx(theirs.predict_proba(unit[900:]), abs=1e-4)


def test_k_is_chosen_without_a_rows_own_group() -> None:
    rng = np.random.default_rng(0)
    rows, y = np.repeat(rng.normal(size=(60, 30)), 5, axis=0), np.repeat(rng.integers(2, size=60), 5)
    rows = rows + 1e-3 * rng.normal(size=rows.shape)
    alone, together = Knn().fit(rows, y), Knn().fit(rows, y, groups=np.arange(300) // 5)
    assert alone.path_[0][1] < 0.2 < 0.6 < min(loss for _, loss in together.path_)


def test_a_hidden_layer_learns_what_a_plane_cannot() -> None:
    rng = np.random.default_rng(0)
    Z = rng.normal(size=(600, 6))
    y = (Z[:, 0] > 0) ^ (Z[:, 1] > 0)
    model = Mlp(hidden=64).fit(Z[:400], y[:400])
    assert model.score(Z[400:], y[400:]) > 0.85
    assert Linear().fit(Z[:400], y[:400]).score(Z[400:], y[400:]) < 0.65
    theirs = MLPClassifier(64, early_stopping=True, max_iter=500, random_state=0).fit(Z[:400], y[:400])
    assert model.score(Z[400:], y[400:]) > theirs.score(Z[400:], y[400:]) - 0.05


def test_a_hidden_layer_stops_before_it_knows_noise_by_heart() -> None:
    rng = np.random.default_rng(0)
    Z, y = rng.normal(size=(200, 20)), rng.integers(2, size=200)
    P = Mlp(hidden=64).fit(Z, y).predict_proba(rng.normal(size=(200, 20)))
    assert np.abs(P - 0.5).mean() < 0.25
