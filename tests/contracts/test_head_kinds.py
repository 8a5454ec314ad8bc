"""What every kind of head must satisfy. A kind is here because its file is in `heads/kinds/`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors import numpy as safetensors
from sklearn.base import clone
from sklearn.utils.estimator_checks import check_estimator, check_estimators_unfitted

from embedder import kinds
from heads.kind import CLASSES, FOLDER, MULTILABEL, Estimator, EstimatorClass, estimator, maker, reads_texts, tasks
from heads.saved import load_head
from heads.train import train
from tests.heads.tools import animals, task_of, worded

KINDS = [name for name in kinds.names(FOLDER) if CLASSES in tasks(name)]
SEVERAL = [name for name in kinds.names(FOLDER) if MULTILABEL in tasks(name)]
LABELS = ("zebra", "Äpfel", "10", "9", "bee")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def made(kind: str) -> EstimatorClass:
    return estimator(kind)


def planted(n: int = 90, d: int = 12, classes: int = 5, noise: float = 0.4) -> tuple[NDArray[np.float32], NDArray[Any]]:
    rng = np.random.default_rng(0)
    y = np.arange(n) % classes
    X = rng.normal(size=(classes, d))[y] + noise * rng.normal(size=(n, d))
    return np.asarray(X, dtype=np.float32), np.array(LABELS)[y]


def reread(model: Estimator, made: EstimatorClass) -> Estimator:
    arrays = safetensors.load(safetensors.save({k: np.ascontiguousarray(v) for k, v in model.arrays().items()}))
    return made.restore(arrays, json.loads(json.dumps(model.params(), allow_nan=False)))


def test_there_is_a_kind_and_each_does_something() -> None:
    assert "linear" in KINDS
    assert "multilabel" in SEVERAL
    assert all(tasks(name) for name in kinds.names(FOLDER))


@pytest.mark.parametrize("kind", SEVERAL)
def test_kinds_of_several_classes_learn_the_same_from_any_order_and_come_back_to_the_bit(kind: str) -> None:
    made = maker(kind, MULTILABEL)
    X, y = planted(noise=1.0)
    Y = (y[:, None] == np.array(LABELS)).astype(int) | (y[:, None] == np.array(["zebra", *LABELS[:4]])).astype(int)
    groups = np.array([f"g{i // 2}" for i in range(90)])
    order = np.random.default_rng(1).permutation(90)
    model, other = made(seed=3).fit(X, Y, groups), made(seed=3).fit(X[order], Y[order], groups[order])
    P = model.predict_proba(X)
    assert P.shape == Y.shape
    assert np.allclose(other.predict_proba(X), P, atol=1e-9)
    assert np.array_equal(reread(model, made).predict_proba(X), P)
    assert all(v.dtype.kind in "fiu" for v in model.arrays().values())
    for name, value in model.arrays().items():
        with pytest.raises((KeyError, TypeError, ValueError)):
            made.restore({**model.arrays(), name: value[:-1]}, model.params())


def test_probabilities_are_over_sorted_classes_and_sum_to_one(made: EstimatorClass) -> None:
    X, y = planted()
    model = made().fit(X, y)
    P = model.predict_proba(X)
    assert model.classes_.tolist() == sorted(LABELS)
    assert P.shape == (90, 5)
    assert P.min() >= 0
    assert np.abs(P.sum(axis=1) - 1).max() < 1e-9
    assert (model.classes_[P.argmax(axis=1)] == y).mean() > 0.9


@pytest.mark.parametrize("grouped", [False, True])
def test_the_order_of_the_rows_does_not_matter(made: EstimatorClass, grouped: bool) -> None:
    X, y = planted(noise=1.5)
    groups = np.array([f"g{i // 2}" for i in range(90)])
    order = np.random.default_rng(1).permutation(90)
    one = made().fit(X, y, groups if grouped else None)
    two = made().fit(X[order], y[order], groups[order] if grouped else None)
    assert np.allclose(one.predict_proba(X), two.predict_proba(X), atol=1e-9)


def test_the_same_seed_learns_the_same(made: EstimatorClass) -> None:
    X, y = planted(noise=1.5)
    assert np.array_equal(made(seed=3).fit(X, y).predict_proba(X), made(seed=3).fit(X, y).predict_proba(X))


def test_it_comes_back_from_arrays_and_json_the_same_to_the_bit(made: EstimatorClass) -> None:
    X, y = planted(noise=1.5)
    model = made().fit(X, y)
    back = reread(model, made)
    assert np.array_equal(back.predict_proba(X), model.predict_proba(X))
    assert back.classes_.tolist() == model.classes_.tolist()
    assert all(v.dtype.kind in "fiu" for v in model.arrays().values())


def test_what_does_not_fit_together_is_not_restored(made: EstimatorClass) -> None:
    model = made().fit(*planted())
    arrays, params = model.arrays(), model.params()
    for name, value in arrays.items():
        with pytest.raises((KeyError, TypeError, ValueError)):
            made.restore({k: v for k, v in arrays.items() if k != name}, params)
        with pytest.raises((KeyError, TypeError, ValueError)):
            made.restore({**arrays, name: value[:-1]}, params)
    with pytest.raises((KeyError, TypeError, ValueError)):
        made.restore(arrays, {})


@pytest.mark.parametrize(("n", "d", "classes"), [(20, 200, 2), (40, 3, 5), (200, 8, 2)])
def test_wide_narrow_and_binary_problems(made: EstimatorClass, n: int, d: int, classes: int) -> None:
    X, y = planted(n, d, classes, noise=0.1)
    model = made().fit(X, y)
    assert np.isfinite(model.predict_proba(X)).all()
    assert (model.classes_[model.predict_proba(X).argmax(axis=1)] == y).mean() > 0.9


def test_a_class_of_one_member_is_no_error(made: EstimatorClass) -> None:
    X, y = planted(41, classes=4)
    y[40] = "bee"
    P = made().fit(X, y).predict_proba(X)
    assert P.shape == (41, 5)
    assert np.allclose(P.sum(axis=1), 1)


def test_it_leaves_its_input_alone(made: EstimatorClass) -> None:
    X, y = planted()
    before = X.copy()
    made().fit(X, y).predict_proba(X)
    assert np.array_equal(X, before)


def test_scikit_learn_can_clone_it(made: EstimatorClass) -> None:
    model = clone(made(seed=5))
    assert model.seed == 5


def test_it_can_be_trained_saved_and_asked(kind: str, tmp_path: Path) -> None:
    collection = animals(tmp_path, encoder=worded(2.0))
    encode = worded(2.0).encode
    texts = {"texts": lambda names, templates: encode([f"{name} 0" for name in names])} if reads_texts(kind) else {}
    found = train(collection, label="label", kind=kind, **texts)
    assert found.metrics["accuracy"] > 0.9
    head = load_head(collection, f"{found.head}@{found.version}")
    assert head.kind == kind
    labels = {row["key"]: row["label"] for row in collection.items.search().to_arrow().to_pylist()}
    task = task_of(collection)
    assert [p.label for p in head.predict(task.X)] == [labels[key] for key in task.keys.tolist()]


def test_scikit_learn_takes_it_for_a_classifier(kind: str, made: EstimatorClass) -> None:
    if kind == "mlp":
        # all checks take 10 CPU seconds and fit it 50 times
        check_estimators_unfitted("Mlp", made())
    else:
        check_estimator(made(), on_skip=None)
