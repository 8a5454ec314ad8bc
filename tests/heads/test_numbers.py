"""Heads that predict a number, from the column to the served interval."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import Ridge as TheirRidge
from sklearn.metrics import r2_score

from embedder.errors import NothingToDo, UsageError
from heads import numbers
from heads.doubts import doubts
from heads.export import export
from heads.folds import assign
from heads.honest import Wishes
from heads.interval import Margin
from heads.kinds.ridge import RidgeRegressor
from heads.numbers import Measured, held_out, r_squared
from heads.saved import Head, load_head
from heads.train import train
from index import commit
from tests.heads.planted import alone
from tests.heads.tools import labelled

WEIGHT = {"ape": 30.5, "bee": 1.25, "cow": 60.0}


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Weights that the kind of animal decides, but for a little."""
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in WEIGHT for i in range(30)}
    weights = {id: WEIGHT[text.split()[0]] + int(id[3:]) / 10 for id, text in texts.items()}
    return labelled(tmp_path_factory.mktemp("herd"), texts, weights, kind="float")


@pytest.fixture(scope="module")
def head(herd: Any) -> Head:
    train(herd, label="label", kind="ridge", wishes=Wishes(coverage=0.8))
    return load_head(herd, "label")


def rows(n: int, signal: float, seed: int, d: int = 8) -> Measured:
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, d)).astype(np.float32)
    y = signal * X[:, 0].astype(np.float64) + rng.normal(size=n)
    return Measured(np.arange(n), X, y, alone(n), np.arange(n), None, 0, 1.0)


def test_a_number_is_scored_beside_the_mean_and_shuffled_values(herd: Any, head: Head) -> None:
    facts, metrics = head.as_json(), head.manifest["metrics"]
    assert (facts["task"], facts["kind"], facts["classes"], facts["n_train"], facts["n_test"]) == (
        "regression", "ridge", [], 90, 90,
    )  # fmt: skip
    for name in ("r2", "mae", "mae_of_mean", "coverage", "shuffled_r2"):
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high, name
    assert metrics["r2"] > 0.9
    assert metrics["r2_left_out"] == pytest.approx(metrics["r2"], abs=0.05)
    assert metrics["shuffled_r2"] < 0.2
    assert metrics["mae"] < metrics["mae_of_mean"] / 5
    with pytest.raises(UsageError, match="no classes"):
        train(herd, label="label", kind="ridge", wishes=Wishes(per_class=True))


def test_a_prediction_has_its_value_its_interval_and_its_domain(herd: Any, head: Head) -> None:
    X = herd.vectors(herd.space()).search().to_arrow().sort_by("key")["vector"].to_pylist()
    truth = herd.items.search().to_arrow().sort_by("key")["label"].to_pylist()
    found = head.predict(np.array(X, dtype=np.float32))
    inside = 0
    for one, true in zip(found, truth, strict=True):
        assert one.value is not None
        assert one.interval is not None
        low, high = one.interval
        assert low is not None and high is not None  # noqa: PT018
        assert (one.label, one.probabilities) == (f"{one.value:.6g}", {})
        assert high - low == pytest.approx(head.manifest["metrics"]["width"])
        inside += low <= true <= high
    assert inside >= 0.75 * len(found)
    foreign = head.predict(np.asarray(-np.sum(X, axis=0, keepdims=True), dtype=np.float32))[0]
    assert foreign.why == "foreign"
    assert foreign.as_json()["abstained"]


def test_it_is_stale_once_a_number_changes_and_has_no_doubts_nor_export(herd: Any, head: Head, tmp_path: Path) -> None:
    assert head.stale(herd) is None
    commit.edit(herd, "ape001", {"label": 99.5}, by="test")
    assert "1 have another label" in str(head.stale(herd))
    commit.edit(herd, "ape001", {"label": 30.6}, by="test")
    with pytest.raises(NothingToDo, match="numbers"):
        doubts(herd, head, 5)
    with pytest.raises(UsageError, match="numbers"):
        export(head, tmp_path / "head.npz")


def test_classes_are_kept_where_asked_and_other_kinds_say_which_predicts_numbers(herd: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="measurement") as raised:
        train(herd, label="label", kind="linear")
    assert "ridge" in raised.value.hint
    with pytest.raises(UsageError, match="not numbers"):
        train(herd, label="label", kind="linear", task="regression")
    with pytest.raises(UsageError, match="a task is"):
        train(herd, label="label", kind="ridge", task="regresion")
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in WEIGHT for i in range(12)}
    counts = labelled(tmp_path, texts, {id: len(t.split()[0]) + (t[0] == "b") for id, t in texts.items()}, kind="int")
    assert train(counts, label="label", kind="ridge").task == "classes"
    assert train(counts, label="label", kind="ridge", task="regression").metrics["r2"] > 0.9
    words = labelled(tmp_path / "w", texts, {id: t.split()[0] for id, t in texts.items()})
    with pytest.raises(UsageError, match="no finite number"):
        train(words, label="label", kind="ridge", task="regression")


def test_held_out_values_are_those_of_refits_on_the_other_folds() -> None:
    task = rows(60, 1.0, 0)
    held = held_out(task, RidgeRegressor, 0)
    fold = assign(task.units, np.zeros(60, dtype=np.intp), 5, 0)
    for k in range(5):
        lam = RidgeRegressor().fit(task.X[fold != k], task.y[fold != k]).lambda_
        theirs = TheirRidge(alpha=lam).fit(task.X[fold != k].astype(np.float64), task.y[fold != k])
        assert held.said[fold == k] == pytest.approx(theirs.predict(task.X[fold == k]), rel=1e-5, abs=1e-5)
        assert held.means[fold == k] == pytest.approx(task.y[fold != k].mean())


def test_r2_is_scikit_learns_where_the_mean_is_that_of_the_rows() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=300)
    said = y + 0.5 * rng.normal(size=300)
    found = r_squared("r2", y, said, np.full(300, y.mean()), np.arange(300), 0)
    assert found["r2"] == pytest.approx(r2_score(y, said))
    low, high = found["r2_interval"]
    assert low < found["r2"] < high
    wide = r_squared("r2", y, said, np.full(300, y.mean()), np.arange(300) // 30, 0)["r2_interval"]
    assert wide[1] - wide[0] > 0


def test_noise_has_no_r2_and_intervals_hold_what_they_promise_on_new_rows() -> None:
    above, covered = 0, []
    for seed in range(15):
        task = rows(150, 0.0, seed)
        found, margin = numbers.account(
            task, held_out(task, RidgeRegressor, 0), RidgeRegressor, RidgeRegressor().fit(task.X, task.y),
            Wishes(controls=False), 0,
        )  # fmt: skip
        above += found["r2_interval"][0] > 0
        new, model = rows(200, 1.0, 1000 + seed), rows(150, 1.0, 2000 + seed)
        fitted = RidgeRegressor().fit(model.X, model.y)
        _, margin = numbers.account(model, held_out(model, RidgeRegressor, 0), RidgeRegressor, fitted, Wishes(), 0)
        covered.append(np.mean(np.abs(fitted.predict(new.X) - new.y) <= margin.half))
    assert above <= 2
    assert np.mean(covered) == pytest.approx(0.9, abs=0.03)


def test_too_few_rows_promise_no_interval() -> None:
    assert Margin(0.9, float("inf")).around(1.0) == [None, None]
    margin = Margin(0.9, float("inf"))
    assert Margin.restore({}, margin.as_json()) == margin
