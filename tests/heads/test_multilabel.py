"""Heads that give several classes an item, from the column to the served labels."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.utils import estimator_checks as checks

from embedder.errors import NothingToDo, UsageError
from heads import tag_scores, tags
from heads.doubts import doubts
from heads.export import export
from heads.folds import assign
from heads.honest import Wishes
from heads.kept import erase
from heads.kinds.linear import Linear
from heads.kinds.multilabel import Multilabel
from heads.labels import names
from heads.saved import Head, load_head
from heads.stream import InMemory
from heads.train import train
from index import commit
from tests.heads.planted import alone
from tests.heads.test_export import documented
from tests.heads.tools import labelled, worded

WORDS = {"ape": ["fur", "hands"], "bee": ["wings"], "cow": ["fur"], "dot": []}
CHECKS = (
    checks.check_estimators_unfitted, checks.check_dont_overwrite_parameters, checks.check_dict_unchanged,
    checks.check_estimators_overwrite_params, checks.check_fit_idempotent, checks.check_methods_subset_invariance,
    checks.check_methods_sample_order_invariance, checks.check_n_features_in, checks.check_estimators_nan_inf,
    checks.check_classifiers_multilabel_representation_invariance,
    checks.check_classifiers_multilabel_output_format_predict,
    checks.check_classifiers_multilabel_output_format_predict_proba,
    checks.check_classifiers_multilabel_output_format_decision_function,
)  # fmt: skip


def planted(n: int = 200, seed: int = 0) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Four classes that overlap, of unequal size, the third one seldom."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 8))
    logits = 2 * X @ rng.normal(size=(8, 4)) + np.array([0.0, -1.0, -6.0, 1.0])
    return X, (rng.random((n, 4)) < 1 / (1 + np.exp(-logits))).astype(np.intp)


@pytest.fixture(scope="module")
def zoo(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Kinds of animals whose tags are JSON lists; one item in nine has one tag too many, and three have none said."""
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in WORDS for i in range(20)}
    said = {
        id: json.dumps([*WORDS[text.split()[0]], *(["odd"] if k % 9 == 0 else [])])
        for k, (id, text) in enumerate(texts.items())
    }
    said |= dict.fromkeys(("ape000", "bee000", "cow000"), "")
    return labelled(tmp_path_factory.mktemp("zoo"), texts, said, encoder=worded(2.0))


@pytest.fixture(scope="module")
def head(zoo: Any) -> Head:
    train(zoo, label="label", kind="multilabel", wishes=Wishes(coverage=0.8))
    return load_head(zoo, "label")


def rows(collection: Any) -> tuple[NDArray[np.float32], list[Any]]:
    X = collection.vectors(collection.space()).search().to_arrow().sort_by("key")["vector"].to_pylist()
    return np.array(X, dtype=np.float32), collection.items.search().to_arrow().sort_by("key")["label"].to_pylist()


@pytest.mark.parametrize("C", [0.01, 1.0, 30.0])
def test_the_weights_are_one_versus_rests(C: float) -> None:
    X, Y = planted()
    model = Multilabel(C=C).fit(X, Y)
    Z = (X - model.mean_) / model.scale_
    theirs = OneVsRestClassifier(LogisticRegression(C=C, tol=1e-10, max_iter=5000)).fit(Z, Y)
    assert model.predict_proba(X) == pytest.approx(theirs.predict_proba(Z), abs=1e-3)
    W = np.array([one.coef_[0] for one in theirs.estimators_])
    b = np.array([one.intercept_[0] for one in theirs.estimators_])

    def loss(weights: Any, bias: Any) -> float:
        z = Z @ weights.T + bias
        return float((np.logaddexp(0, z) - z * Y).sum() + (weights**2).sum() / (2 * C))

    assert loss(model.coef_, model.intercept_) <= loss(W, b) * (1 + 1e-6)


def test_one_class_is_the_binary_problem_and_c_is_chosen_by_held_out_loss() -> None:
    X, Y = planted()
    one = Linear(C=1.0).fit(X, Y[:, 0])
    # two classes of a softmax are penalised by the one vector of their difference
    assert Multilabel(C=1.0).fit(X, Y[:, :1]).predict_proba(X)[:, 0] == pytest.approx(
        one.predict_proba(X)[:, 1], abs=1e-3
    )
    model = Multilabel().fit(X, Y)
    losses = dict(model.path_)
    assert losses[min(losses, key=lambda C: losses[C])] <= losses[model.C_] < losses[1e-6]
    assert min(losses, key=lambda C: losses[C]) >= model.C_


def test_rows_by_blocks_learn_the_same() -> None:
    X, Y = planted(120)
    streamed = Multilabel(C=1.0).fit(InMemory(X, 32), Y)
    assert streamed.predict_proba(X) == pytest.approx(Multilabel(C=1.0).fit(X, Y).predict_proba(X), abs=1e-3)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_scikit_learn_takes_it_for_a_classifier_of_several_labels(check: Any) -> None:
    check("Multilabel", Multilabel(C=1.0))


def test_labels_that_are_no_columns_are_refused() -> None:
    X, Y = planted(20)
    for wrong in (Y[:, 0], 2 * Y):
        with pytest.raises(ValueError, match="0 and 1"):
            Multilabel().fit(X, wrong)


def test_folds_hold_each_class_as_evenly_as_can_be_and_keep_units_whole() -> None:
    _, Y = planted(150)
    fold = assign(alone(150), Y, 5, 0)
    counts = np.array([Y[fold == k].sum(axis=0) for k in range(5)])
    assert (np.ptp(counts, axis=0) <= 2).all()
    assert np.ptp(np.bincount(fold)) <= 4
    units = [f"u{i // 3}" for i in range(150)]
    whole = assign(units, Y, 5, 0)
    assert all(len({whole[i] for i in range(150) if units[i] == u}) == 1 for u in set(units))
    order = np.random.default_rng(0).permutation(150)
    assert (assign([units[i] for i in order], Y[order], 5, 0) == whole[order]).all()


@given(st.integers(0, 10_000), st.integers(2, 12))
def test_average_precision_is_scikit_learns_also_with_ties_and_weights(seed: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    Y, P = rng.integers(0, 2, (40, 3)), rng.integers(0, levels, (40, 3)) / levels
    Y[0] = 1
    theirs = [sk.average_precision_score(Y[:, c], P[:, c]) for c in range(3)]
    assert tag_scores.average_precision(Y, P) == pytest.approx(theirs)
    w = rng.integers(0, 3, 40).astype(float)
    w[0] = 1.0
    weighted = [sk.average_precision_score(Y[:, c], P[:, c], sample_weight=w) for c in range(3)]
    assert tag_scores.average_precision(Y, P, w[None])[0] == pytest.approx(weighted)


def test_scores_are_scikit_learns_with_intervals_around_them() -> None:
    X, Y = planted(300)
    P = Multilabel(C=0.1).fit(X[:150], Y[:150]).predict_proba(X)
    said = P >= 0.4
    found, table = tag_scores.scores(Y, P, said, np.arange(300), 0)
    assert found["micro_f1"] == pytest.approx(sk.f1_score(Y, said, average="micro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(Y, said, average="macro"))
    assert found["subset_accuracy"] == pytest.approx(sk.accuracy_score(Y, said))
    assert found["hamming_loss"] == pytest.approx(sk.hamming_loss(Y, said))
    assert found["mean_average_precision"] == pytest.approx(sk.average_precision_score(Y, P, average="macro"))
    for row in [*table, found]:
        for name in [n for n in row if f"{n}_interval" in row]:
            low, high = row[f"{name}_interval"]
            assert low <= row[name] <= high, name
            assert low < high, name
    absent = np.where([True, False], Y[:20, :2], 0)
    _, table = tag_scores.scores(absent, P[:20, :2], said[:20, :2], np.arange(20), 0)
    assert table[1]["average_precision"] is None


def test_a_threshold_has_the_best_f1_of_all_and_small_classes_share_one() -> None:
    X, Y = planted(300)
    P = np.round(Multilabel(C=0.1).fit(X, Y).predict_proba(X), 2)
    Y[np.flatnonzero(Y[:, 2])[tags.LEAST_POSITIVES - 1 :], 2] = 0
    found = tags.thresholds(P, Y)
    for c in (0, 1, 3):
        best = max(sk.f1_score(Y[:, c], P[:, c] >= t) for t in np.unique(P[:, c]))
        assert sk.f1_score(Y[:, c], P[:, c] >= found[c]) == pytest.approx(best)
    best = max(sk.f1_score(Y.ravel(), P.ravel() >= t) for t in np.unique(P))
    assert sk.f1_score(Y.ravel(), P.ravel() >= found[2]) == pytest.approx(best)


def test_a_planted_temperature_is_found_and_calm_probabilities_are_left_alone() -> None:
    rng = np.random.default_rng(0)
    z = 1.5 * rng.normal(size=(2000, 4))
    Y = (rng.random(z.shape) < 1 / (1 + np.exp(-z))).astype(np.intp)
    hot, calm = 1 / (1 + np.exp(-2.5 * z)), 1 / (1 + np.exp(-z))
    fold = assign(alone(2000), Y, 5, 0)
    found, crossed = tags.calibrated(hot, Y, fold)
    assert found.temperature == pytest.approx(2.5, abs=0.25)
    assert tags.losses(crossed, Y).mean() < tags.losses(hot, Y).mean()
    assert crossed == pytest.approx(calm, abs=0.05)


@pytest.mark.parametrize("per_class", [False, True])
def test_sets_hold_all_classes_of_new_rows_as_often_as_was_promised(per_class: bool) -> None:
    held = []
    for seed in range(20):
        X, Y = planted(900, seed=0)
        order = np.random.default_rng(seed).permutation(900)
        a, b, c = order[:200], order[200:500], order[500:]
        P = Multilabel(C=0.1).fit(X[a], Y[a]).predict_proba(X)
        inside = tags.fit_sets(P[b], Y[b], 0.8, per_class=per_class).mask(P[c])
        if per_class:
            held.append([inside[Y[c][:, k] == 1, k].mean() for k in (0, 1, 3)])
        else:
            held.append([(inside | (Y[c] == 0)).all(axis=1).mean()])
    assert np.mean(held, axis=0) == pytest.approx(0.8, abs=0.04)


@pytest.mark.parametrize(
    ("value", "separator", "expected"),
    [
        ('["b", "a", "a"]', None, ("a", "b")), ("[]", None, ()), ("[1, 2.0, null]", None, ("1", "2")),
        ("a; b;;a", ";", ("a", "b")), ("a;b", None, ("a;b",)), ("", ";", None), (None, None, None),
        ("[draft", ";", ("[draft",)), (3, None, ("3",)), (True, None, ("true",)),
    ],
)  # fmt: skip
def test_a_value_names_classes(value: Any, separator: str | None, expected: Any) -> None:
    assert names(value, separator) == expected


def test_it_is_scored_beside_its_controls(zoo: Any, head: Head) -> None:
    facts, metrics = head.as_json(), head.manifest["metrics"]
    assert (facts["task"], facts["classes"], facts["n_train"]) == ("multilabel", ["fur", "hands", "odd", "wings"], 77)
    assert metrics["micro_f1"] > metrics["majority_micro_f1"] + 0.2
    assert metrics["mean_average_precision"] > 0.7 > metrics["shuffled"]
    by_name = {row["class"]: row for row in facts["per_class"]}
    assert by_name["fur"]["average_precision"] > 0.95
    assert by_name["odd"]["threshold"] == pytest.approx(head.guard.thresholds[2])
    for name in ("micro_f1", "macro_f1", "mean_average_precision", "subset_accuracy", "coverage"):
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high, name


def test_a_prediction_has_its_labels_their_set_and_its_domain(zoo: Any, head: Head) -> None:
    X, said = rows(zoo)
    right, inside = [], []
    for one, true in zip(head.predict(X), said, strict=True):
        if true:
            assert one.labels is not None
            assert one.prediction_set is not None
            assert one.label == ", ".join(one.labels)
            right.append({*one.labels} - {"odd"} == {*json.loads(true)} - {"odd"})
            inside.append({*json.loads(true)} <= {*one.prediction_set})
            assert list(one.probabilities.values()) == sorted(one.probabilities.values(), reverse=True)
    assert np.mean(right) > 0.9
    assert np.mean(inside) >= 0.75
    foreign = head.predict(np.asarray(-X.sum(axis=0, keepdims=True)), top_k=2)[0]
    assert foreign.why == "foreign"
    assert len(foreign.probabilities) == 2
    assert head.predict(X[:0]) == []


def test_other_programs_give_the_same_labels(zoo: Any, head: Head, tmp_path: Path) -> None:
    import onnxruntime

    X, _ = rows(zoo)
    expected = np.array([[p.probabilities[name] for name in head.classes] for p in head.predict(X)])
    export(head, tmp_path / "h.npz")
    classes, predict_proba = documented()["load_head"](tmp_path / "h.npz")
    assert predict_proba(X.astype(np.float64)) == pytest.approx(expected, abs=1e-9)
    given = expected >= np.load(tmp_path / "h.npz")["thresholds"]
    assert [{*classes[row].tolist()} for row in given] == [{*(p.labels or ())} for p in head.predict(X)]
    export(head, tmp_path / "h.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "h.onnx"), providers=["CPUExecutionProvider"])
    assert session.run(["probabilities"], {"vectors": X})[0] == pytest.approx(expected, abs=1e-5)
    written = session.get_modelmeta().custom_metadata_map["thresholds"].split("\n")
    assert [float(t) for t in written] == pytest.approx(head.guard.thresholds)


def test_it_is_stale_once_a_set_changes_and_says_what_it_does_not_do(tmp_path: Path) -> None:
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in WORDS for i in range(10)}
    said = {id: ";".join(WORDS[text.split()[0]]) or "[]" for id, text in texts.items()}
    collection = labelled(tmp_path, texts, said, encoder=worded(2.0))
    with pytest.raises(UsageError, match="more than one class") as raised:
        train(collection, label="label", kind="multilabel")
    assert "--separator" in raised.value.hint
    with pytest.raises(UsageError, match="separator is for"):
        train(collection, label="label", kind="linear", separator=";")
    with pytest.raises(UsageError, match="not simply right or wrong"):
        train(collection, label="label", kind="multilabel", separator=";", wishes=Wishes(max_risk=0.1))
    with pytest.raises(UsageError, match="not several classes"):
        train(collection, label="label", kind="linear", task="multilabel")
    found = train(collection, label="label", kind="multilabel", separator=";", wishes=Wishes(controls=False))
    assert found.classes == ["fur", "hands", "wings"]
    head = load_head(collection, "label")
    assert head.stale(collection) is None
    commit.edit(collection, "ape001", {"label": "hands; fur"}, by="test")
    assert head.stale(collection) is None
    commit.edit(collection, "ape001", {"label": "fur"}, by="test")
    assert "1 have another label" in str(head.stale(collection))
    assert erase(collection)[0]["state"] == "stale"
    with pytest.raises(NothingToDo, match="several classes"):
        doubts(collection, head, 5)
