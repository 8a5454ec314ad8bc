"""Texts and items together: never worse than both, and better than either where both know something."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import logsumexp

from embedder.errors import UsageError
from heads.export import export
from heads.kinds._affine import unit
from heads.kinds._softmax import path
from heads.kinds.blend import Blend, heat
from heads.saved import load_head
from heads.train import train
from heads.zero_shot import ZeroShot
from tests.heads.test_export import documented
from tests.heads.tools import animals, task_of, worded

C, D = 8, 48
NAMES = np.arange(C)


def world(gap: float, seed: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres of classes, and texts that lie off them."""
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(C, D))
    return centres, centres + gap * rng.normal(size=(C, D))


def draw(centres: NDArray[np.float64], n: int, seed: int) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    rng, y = np.random.default_rng(seed), np.arange(n) % C
    return np.asarray(unit(centres[y] + 2.5 * rng.normal(size=(n, D)))), y


def loss(P: NDArray[np.float64], y: NDArray[np.intp]) -> float:
    return float(-np.log(np.maximum(P[np.arange(len(y)), y], 1e-12)).mean())


def compared(gap: float, shots: int, seeds: int = 4) -> NDArray[np.float64]:
    """Return the mean loss and the mean error on new items of the blend, the items alone and the texts alone."""
    found = []
    for seed in range(seeds):
        centres, texts = world(gap, seed)
        X, y = draw(centres, C * shots, 1000 + seed)
        new, true = draw(centres, 1500, 2000 + seed)
        heated = heat(X @ unit(texts).T, y)
        parts = (
            Blend(names=NAMES, texts=texts), Blend(names=NAMES), Blend(C=0, alpha=heated, names=NAMES, texts=texts)
        )  # fmt: skip
        P = [model.fit(X, y).predict_proba(new) for model in parts]
        found.append([[loss(p, true), (p.argmax(axis=1) != true).mean()] for p in P])
    return np.mean(found, axis=0)


@pytest.mark.parametrize(("gap", "shots"), [(0.3, 2), (1.0, 4), (50.0, 4)])
def test_it_is_no_worse_than_the_better_part(gap: float, shots: int) -> None:
    blend, items, texts = compared(gap, shots)
    assert blend[0] < min(items[0], texts[0]) + 0.05
    assert blend[1] < min(items[1], texts[1]) + 0.04


@pytest.mark.parametrize(("gap", "shots"), [(1.0, 16), (2.0, 4)])
def test_it_is_better_than_both_where_both_know_something(gap: float, shots: int) -> None:
    blend, items, texts = compared(gap, shots)
    assert (blend < np.minimum(items, texts) - [0.04, 0.01]).all()


def test_texts_alone_are_zero_shot_and_heat_finds_the_scale() -> None:
    centres, texts = world(0.3, 0)
    X, y = draw(centres, 80, 1)
    weights = ZeroShot.of([str(c) for c in NAMES], texts.astype(np.float32))
    model = Blend(C=0, alpha=100.0, names=NAMES, texts=texts).fit(X, y)
    assert model.predict_proba(X) == pytest.approx(weights.predict_proba(X.astype(np.float32)), abs=1e-4)
    told, rng = np.random.default_rng(0).normal(size=(4000, 5)), np.random.default_rng(1)
    P = np.exp(2.0 * told) / np.exp(2.0 * told).sum(axis=1, keepdims=True)
    y = (P.cumsum(axis=1) > rng.random((4000, 1))).argmax(axis=1)
    assert heat(told, y) == pytest.approx(2.0, abs=0.15)
    assert 0 < heat(10 * np.eye(5), np.arange(5)) < 10
    assert heat(np.zeros((5, 3)), np.zeros(5, dtype=np.intp)) == 0


def test_the_solver_with_an_offset_and_no_bias_reaches_the_optimum() -> None:
    rng = np.random.default_rng(0)
    X, y, offset = rng.normal(size=(60, 4)), rng.integers(0, 3, 60), rng.normal(size=(60, 3))
    (found,) = path(X, y, 3, [0.5], tol=1e-10, offset=offset)

    def whole(w: NDArray[np.float64]) -> float:
        z = X @ w.reshape(4, 3) + offset
        return float((logsumexp(z, axis=1) - z[np.arange(60), y]).sum() + w @ w / (2 * 0.5))

    assert not found.b.any()
    theirs = minimize(whole, np.zeros(12), method="BFGS", options={"gtol": 1e-8})
    assert whole(found.W.ravel()) <= theirs.fun * (1 + 1e-6)


def test_a_class_that_only_a_text_names_is_predicted_and_others_are_refused() -> None:
    centres, texts = world(0.3, 0)
    X, y = draw(centres, 64, 1)
    some = y != 3
    model = Blend(names=NAMES, texts=texts).fit(X[some], y[some])
    assert model.classes_.tolist() == NAMES.tolist()
    assert (model.predict(X[~some]) == 3).mean() > 0.5
    with pytest.raises(ValueError, match="not among the names"):
        Blend(names=NAMES[:4], texts=texts[:4]).fit(X, y)
    with pytest.raises(ValueError, match="texts are"):
        Blend(names=NAMES, texts=texts[:, :3]).fit(X, y)


def test_what_was_learned_comes_back_with_its_texts() -> None:
    centres, texts = world(1.0, 0)
    X, y = draw(centres, 64, 1)
    model = Blend(names=NAMES, texts=texts).fit(X, y)
    back = Blend.restore(model.arrays(), model.params())
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    assert back.texts_ == pytest.approx(unit(texts))
    assert {share for share, _, _ in model.path_} == {0.0, 0.5, 1.0, 2.0}


def test_a_head_is_scored_beside_its_parts_and_needs_texts(tmp_path: Path) -> None:
    collection = animals(tmp_path, encoder=worded(0.5))
    with pytest.raises(UsageError, match="need the texts"):
        train(collection, label="label", kind="blend")
    with pytest.raises(UsageError, match="read no texts"):
        train(collection, label="label", kind="linear", templates=["a {}"])

    def texts(names: list[str], templates: list[str]) -> NDArray[np.float32]:
        assert templates == ["{} 0"]
        return worded(0.5).encode([t.replace("{}", name) for name in names for t in templates])

    found = train(collection, label="label", kind="blend", texts=texts, templates=["{} 0"])
    head = load_head(collection, "label")
    assert head.manifest["templates"] == ["{} 0"]
    assert found.metrics["accuracy"] >= max(found.metrics["texts_alone"], found.metrics["items_alone"]) - 0.1
    assert found.metrics["texts_alone_interval"][0] <= found.metrics["texts_alone"]
    assert found.metrics["shuffled"] < 0.7
    X = task_of(collection).X
    export(head, tmp_path / "h.npz")
    expected = [[p.probabilities[name] for name in head.classes] for p in head.predict(X)]
    told = documented()["load_head"](tmp_path / "h.npz")[1](X.astype(np.float64))
    assert told == pytest.approx(np.array(expected), abs=1e-9)
