"""Heads of classes in an order, from the likelihood to the served class."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors import numpy as safetensors
from scipy.optimize import minimize
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score
from sklearn.utils.estimator_checks import check_estimator

from embedder.errors import UnknownName, UsageError
from heads import ranks
from heads.calibration import Calibration
from heads.export import export
from heads.kinds.linear import Linear
from heads.kinds.ordinal import Ordinal
from heads.saved import load_head
from heads.train import train
from tests.heads.test_export import documented
from tests.heads.tools import labelled, worded

SIZES = {"mouse": "small", "wolf": "middling", "whale": "huge"}
ORDER = ["small", "middling", "huge"]


def planted(n: int, seed: int, d: int = 20) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Five grades of one hidden direction, with logistic noise."""
    rng, w = np.random.default_rng(seed), np.random.default_rng(99).normal(size=d) / np.sqrt(d)
    X = rng.normal(size=(n, d))
    return X, np.digitize(2 * X @ w + rng.logistic(size=n), [-2, -0.7, 0.7, 2])


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Sizes that the kind of animal decides, but for one in ten."""
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in SIZES for i in range(30)}
    said = {id: SIZES["wolf" if int(id[-3:]) % 10 == 9 else text.split()[0]] for id, text in texts.items()}
    return labelled(tmp_path_factory.mktemp("sizes"), texts, said, encoder=worded(2.0))


@pytest.mark.parametrize("C", [0.05, 1.0, 100.0])
def test_it_minimises_the_likelihood_of_the_textbook(C: float) -> None:
    X, y = planted(120, 0, d=4)
    model = Ordinal(C=C).fit(X, y)
    Z = (X - model.mean_) / model.scale_

    def loss(v: Any) -> float:
        below = expit(v[4:] - (Z @ v[:4])[:, None])
        P = np.diff(np.hstack([np.zeros((120, 1)), below, np.ones((120, 1))]), axis=1)[np.arange(120), y]
        return float(-np.log(np.maximum(P, 1e-300)).sum() + v[:4] @ v[:4] / (2 * C))

    found = np.concatenate([model.coef_, model.theta_])
    start = np.concatenate([np.zeros(4), np.linspace(-1, 1, 4)])
    theirs = minimize(loss, start, method="BFGS", options={"gtol": 1e-7})
    assert loss(found) <= theirs.fun * (1 + 1e-6)
    assert found == pytest.approx(theirs.x, abs=1e-2)
    assert (np.diff(model.theta_) > 0).all()


def test_two_classes_are_logistic_regression() -> None:
    X, y = planted(150, 1)
    model = Ordinal(C=0.5).fit(X, y > 1)
    Z = (X - model.mean_) / model.scale_
    theirs = LogisticRegression(C=0.5, tol=1e-10, max_iter=1000).fit(Z, y > 1)
    assert model.predict_proba(X) == pytest.approx(theirs.predict_proba(Z), abs=1e-4)


def test_it_pays_on_ordered_classes_with_few_labels_and_not_on_others() -> None:
    ordered, nominal = [], []
    for seed in range(4):
        X, y = planted(80, seed)
        new, true = planted(2000, 100 + seed)
        for model, into in ((Ordinal(), ordered), (Linear(), nominal)):
            P = model.fit(X, y).predict_proba(new)
            said = P.argmax(axis=1)
            kappa = cohen_kappa_score(true, said, weights="quadratic")
            into.append([-np.log(P[np.arange(2000), true]).mean(), np.abs(said - true).mean(), -kappa])
    assert (np.mean(ordered, axis=0) < np.mean(nominal, axis=0) - [0.03, 0.05, 0.05]).all()
    # the middle class lies off to one side: no direction has the three in their order
    centres = np.array([[0.0, 0.0], [3.0, 0.0], [0.0, 0.5]])
    y = np.arange(300) % 3
    X = centres[y] + 0.3 * np.random.default_rng(0).normal(size=(300, 2))
    assert Linear().fit(X, y).score(X, y) > Ordinal().fit(X, y).score(X, y) + 0.15


def test_it_comes_back_to_the_bit_and_the_order_of_the_rows_does_not_matter() -> None:
    X, y = planted(90, 0)
    groups, order = np.array([f"g{i // 2}" for i in range(90)]), np.random.default_rng(1).permutation(90)
    model = Ordinal().fit(X, y, groups)
    other = Ordinal().fit(X[order], y[order], groups[order])
    assert other.predict_proba(X) == pytest.approx(model.predict_proba(X), abs=1e-9)
    arrays, params = safetensors.load(safetensors.save(model.arrays())), json.loads(json.dumps(model.params()))
    assert np.array_equal(Ordinal.restore(arrays, params).predict_proba(X), model.predict_proba(X))
    for name in arrays:
        with pytest.raises((KeyError, ValueError)):
            Ordinal.restore({**arrays, name: arrays[name][:-1]}, params)
    wide = Ordinal().fit(X[:15], y[:15])
    assert wide.predict_proba(X).sum(axis=1) == pytest.approx(1)


def test_scikit_learn_takes_it_for_a_classifier() -> None:
    check_estimator(Ordinal(), on_skip=None)


@settings(max_examples=20)
@given(st.integers(0, 10_000), st.integers(2, 6))
def test_kappa_and_ranks_are_scikit_learns(seed: int, classes: int) -> None:
    rng = np.random.default_rng(seed)
    y = rng.integers(0, classes, 30)
    said = np.where(rng.random(30) < 0.5, y, rng.integers(0, classes, 30))
    y[:2], said[:2] = (0, 1), (1, 0)
    found = ranks.scores(y, said, int(np.median(y)), np.arange(30), 0)
    assert found["quadratic_kappa"] == pytest.approx(cohen_kappa_score(y, said, weights="quadratic"))
    assert found["mae_ranks"] == pytest.approx(np.abs(y - said).mean())
    for name in ("quadratic_kappa", "mae_ranks", "mae_ranks_of_median"):
        low, high = found[f"{name}_interval"]
        assert low <= found[name] <= high
    same = ranks.scores(np.ones(9, dtype=np.intp), np.ones(9, dtype=np.intp), 1, np.arange(9), 0)
    assert same["quadratic_kappa"] is None


@pytest.mark.parametrize("kind", ["ordinal", "linear"])
def test_classes_keep_the_users_order_with_any_classifier(zoo: Any, kind: str) -> None:
    found = train(zoo, label="label", kind=kind, order=ORDER)
    assert (found.task, found.classes) == ("ordinal", ORDER)
    assert found.metrics["accuracy"] > 0.8
    assert found.metrics["quadratic_kappa"] > 0.8
    assert found.metrics["mae_ranks"] < found.metrics["mae_ranks_of_median"] - 0.3
    assert [row["class"] for row in found.per_class] == ORDER
    head = load_head(zoo, f"label@{found.version}")
    X = np.array(zoo.vectors(zoo.space()).search().to_arrow().sort_by("key")["vector"].to_pylist(), dtype=np.float32)
    words = zoo.items.search().to_arrow().sort_by("key")["label"].to_pylist()
    assert np.mean([p.label == w for p, w in zip(head.predict(X), words, strict=True)]) > 0.8
    assert head.stale(zoo) is None


def test_numbers_are_an_order_and_other_words_need_one(zoo: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="order of the classes") as raised:
        train(zoo, label="label", kind="ordinal")
    assert "--order" in raised.value.hint
    with pytest.raises(UnknownName, match="middling") as missing:
        train(zoo, label="label", kind="ordinal", order=["small", "midling", "huge"])
    assert "midling" in f"{missing.value.hint} {missing.value.what}"
    with pytest.raises(UsageError, match="twice"):
        train(zoo, label="label", kind="ordinal", order=[*ORDER, "huge"])
    with pytest.raises(UsageError, match="order is for"):
        train(zoo, label="label", kind="linear", task="classes", order=ORDER)
    stars = {f"{word}{i:03d}": (2, 9, 10)[k] for k, word in enumerate(SIZES) for i in range(12)}
    texts = {id: f"{id[:-3]} {id[-3:]}" for id in stars}
    collection = labelled(tmp_path, texts, stars, kind="int", encoder=worded(2.0))
    assert train(collection, label="label", kind="ordinal").classes == ["2", "9", "10"]


@pytest.mark.parametrize(
    "calibration", [None, Calibration("temperature", (0.5,)), Calibration("vector", (0.4, 1.5, 1.1), (0.1, 0.0, -0.3))]
)
def test_other_programs_get_the_same_probabilities(zoo: Any, tmp_path: Path, calibration: Calibration | None) -> None:
    import onnxruntime

    version = train(zoo, label="label", kind="ordinal", order=ORDER).version
    head = load_head(zoo, f"label@{version}")
    head = replace(head, guard=replace(head.guard, calibration=calibration or head.guard.calibration))
    X = np.array(zoo.vectors(zoo.space()).search().to_arrow()["vector"].to_pylist(), dtype=np.float32)
    expected = np.array([[p.probabilities[name] for name in head.classes] for p in head.predict(X)])
    export(head, tmp_path / "h.npz")
    classes, predict_proba = documented()["load_head"](tmp_path / "h.npz")
    assert classes.tolist() == ORDER
    assert predict_proba(X.astype(np.float64)) == pytest.approx(expected, abs=1e-8)
    export(head, tmp_path / "h.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "h.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(["probabilities"], {"vectors": X})[0] == pytest.approx(expected, abs=1e-4)
