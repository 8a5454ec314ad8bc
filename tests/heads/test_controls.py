from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn import metrics as sk

from heads import controls
from heads.controls import mean, neighbours, sample, share, shuffled, vote
from heads.metrics import wilson
from heads.tables import confusion, per_class
from tests.heads.planted import alone, oracle


def test_the_vote_is_that_of_a_known_case() -> None:
    case = oracle("knn_vote")
    cosines = np.array(case["query"])[None] @ np.array(case["bank"]).T
    found = vote(cosines, np.array(case["labels"]), 3, case["k"])
    assert found[0] == pytest.approx(case["probs"], rel=1e-4)


def test_a_row_and_its_unit_have_no_vote_on_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "TILE", 3)
    rng = np.random.default_rng(0)
    X = (np.repeat(rng.normal(size=(10, 8)), 2, axis=0) + 0.1 * rng.normal(size=(20, 8))).astype(np.float32)
    y, every = np.arange(20) % 2, np.arange(20)
    units = [f"u{i // 2}" for i in every]
    rows, found = neighbours(X, y, units, every, every, 0)
    unit = X / np.linalg.norm(X, axis=1, keepdims=True)
    for i in rows:
        others = [j for j in every if units[j] != units[i]]
        near = sorted(others, key=lambda j: -float(unit[i] @ unit[j]))[:5]
        weights = np.exp(np.array([float(unit[i] @ unit[j]) for j in near]) / controls.TEMPERATURE)
        first = weights[[y[j] == 0 for j in near]].sum() / weights.sum()
        assert found[5][i, 0] == pytest.approx(first, abs=1e-3)
    _, alone_in_the_world = neighbours(X, y, ["u"] * 20, every, every, 0)
    assert not alone_in_the_world[5].any()


def test_large_sets_are_sampled_the_same_way_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(controls, "MOST_QUERIES", 7)
    monkeypatch.setattr(controls, "MOST_BANK", 30)
    X = np.random.default_rng(1).normal(size=(50, 4)).astype(np.float32)
    every = np.arange(50)
    first, votes = neighbours(X, every % 3, alone(50), every, every, 5)
    again, same = neighbours(X, every % 3, alone(50), every, every, 5)
    assert len(first) == 7
    assert np.array_equal(first, again)
    assert np.array_equal(votes[10], same[10])
    assert sample(5, 7, 0).tolist() == [0, 1, 2, 3, 4]


def test_shuffled_labels_keep_their_counts_and_their_units() -> None:
    y, units = np.repeat([0, 1, 2], [30, 20, 10]), alone(60)
    dealt = shuffled(y, units, 0)
    assert np.array_equal(np.bincount(dealt), np.bincount(y))
    assert (dealt == y).mean() < 0.7
    pairs = [f"u{i // 2}" for i in range(60)]
    assert all(len(set(shuffled(y, pairs, 0)[2 * k : 2 * k + 2])) == 1 for k in range(30))
    assert not np.array_equal(shuffled(y, units, 1), dealt)


def test_shares_and_means_count_units() -> None:
    hits, unit = np.array([1, 1, 0, 0, 1, 1], dtype=bool), np.array([0, 0, 1, 1, 2, 2])
    assert share("a", hits, unit) == {"a": pytest.approx(2 / 3), "a_interval": wilson(2 / 3, 3)}
    values, units = np.random.default_rng(2).normal(size=2000), np.arange(2000)
    low, high = mean("m", values, units, 0)["m_interval"]
    half = 1.96 * values.std() / np.sqrt(2000)
    assert [low, high] == pytest.approx([values.mean() - half, values.mean() + half], abs=half / 5)
    doubled = mean("m", np.repeat(values, 2), np.repeat(units, 2), 0)["m_interval"]
    assert doubled == pytest.approx([low, high])


def test_the_table_is_that_of_scikit_learn_and_says_null_where_nothing_counts() -> None:
    rng = np.random.default_rng(3)
    y, said = rng.integers(4, size=200), rng.integers(4, size=200)
    y[y == 3], said[said == 2] = 0, 1
    table = per_class(y, said, list("abcd"), np.arange(200))
    p, r, f, n = sk.precision_recall_fscore_support(y, said, labels=range(4), zero_division=np.nan)
    for at, row in enumerate(table):
        assert row["n"] == n[at]
        for name, value in (("precision", p[at]), ("recall", r[at]), ("f1", f[at])):
            if row[name] is not None:
                assert row[name] == pytest.approx(0.0 if np.isnan(value) else value)
                assert row[f"{name}_interval"][0] <= row[name] <= row[f"{name}_interval"][1]
    assert table[3]["recall"] is None
    assert table[2]["precision"] is None
    assert table[0]["recall_interval"] == pytest.approx(wilson(r[0], int(n[0])))
    json.dumps(table, allow_nan=False)


def test_the_most_frequent_errors_come_first() -> None:
    y = np.array([0, 0, 0, 1, 1, 2])
    said = np.array([1, 1, 0, 0, 1, 2])
    found = confusion(y, said, ["a", "b", "c"], np.arange(6))
    assert found["matrix"] == sk.confusion_matrix(y, said).tolist()
    assert [(p["true"], p["predicted"], p["n"]) for p in found["pairs"]] == [("a", "b", 2), ("b", "a", 1)]
    assert found["pairs"][0]["share"] == pytest.approx(2 / 3)
    many = confusion(np.zeros(40, dtype=int), np.arange(40), [str(k) for k in range(40)], np.arange(40))
    assert many["matrix"] is None
    assert len(many["pairs"]) == 20
