from __future__ import annotations

import numpy as np
import pytest

from embedder.errors import UsageError
from heads.kinds.linear import Linear
from heads.report import probes as module
from heads.report.candidates import Candidate, majority
from heads.report.probes import cross_validated, linear, neighbours, plan, vote
from tests.heads.report.tools import ORACLES


def planted(n: int = 60, shift: float = 1.0) -> tuple[Candidate, np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % 3)
    return Candidate("a", "encoder", (rng.normal(size=(n, 5)) + shift * np.eye(5)[y]).astype(np.float32)), y


def names(n: int) -> list[str]:
    return [f"u{i}" for i in range(n)]


def test_plans_keep_units_whole_and_fold_anew_each_time() -> None:
    y = np.repeat(np.arange(20) % 2, 3)
    on = plan(y, [f"u{i // 3}" for i in range(60)], repeats=3, seed=4)
    assert on.fold.shape == (3, 60)
    assert all((fold.reshape(20, 3) == fold.reshape(20, 3)[:, :1]).all() for fold in on.fold)
    assert not np.array_equal(on.fold[0], on.fold[1])
    assert np.array_equal(on.fold, plan(y, [f"u{i // 3}" for i in range(60)], repeats=3, seed=4).fold)
    assert [len(plan(np.arange(n) % 2, names(n)).fold) for n in (500, 2000, 2001)] == [3, 2, 1]


def test_too_few_units_are_refused() -> None:
    with pytest.raises(UsageError, match="40 rows in 4 groups"):
        plan(np.arange(40) % 2, [f"u{i // 10}" for i in range(40)])


def test_every_row_is_predicted_by_a_head_of_the_other_folds() -> None:
    c, y = planted()
    on = plan(y, names(60), repeats=2)
    found = linear(c, on)
    X = np.asarray(c.X)
    for r in range(2):
        for k in range(5):
            held = on.fold[r] == k
            model = Linear().fit(X[~held], y[~held], groups=on.units[~held])
            assert np.allclose(found.probabilities[r, held], model.predict_proba(X[held]), atol=1e-6)
            assert found.inner[r, k] == pytest.approx(-dict(model.path_)[model.C_])
            assert found.train_accuracy[r, k] == pytest.approx((model.predict(X[~held]) == y[~held]).mean())
    assert found.accuracy == pytest.approx((found.probabilities.argmax(axis=2) == y).mean())


def test_a_class_that_a_training_part_lacks_gets_no_probability() -> None:
    c, y = planted(n=30)
    units = [f"u{i}" if y[i] else "all of class 0" for i in range(30)]
    on = plan(y, units, repeats=1)
    found = linear(c, on)
    assert (found.probabilities[0, y == 0, 0] == 0).all()
    assert np.allclose(found.probabilities.sum(axis=2), 1, atol=1e-5)
    assert not found.correct[0, y == 0].any()


def test_features_that_say_nothing_give_the_shares() -> None:
    y = np.array([0] * 30 + [1] * 10)
    on = plan(y, names(40), repeats=1)
    found = linear(majority(40), on)
    assert found.accuracy == 0.75
    assert np.allclose(found.probabilities[..., 1], 0.25, atol=0.01)
    assert found.log2.shape == (40,)
    assert found.log2[0] == pytest.approx(np.log2(0.99 * 0.75 + 0.005), abs=0.02)


def test_any_estimator_can_probe() -> None:
    c, y = planted()
    on = plan(y, names(60), repeats=1)
    found = cross_validated(c, on, lambda: Linear(C=0.1), head="fixed")
    assert np.isnan(found.inner).all()
    assert found.head == "fixed"


def test_votes_as_planted(monkeypatch: pytest.MonkeyPatch) -> None:
    case = ORACLES["knn_vote"]
    monkeypatch.setattr(module, "NEIGHBOURS", case["k"])
    bank, query = np.array(case["bank"]), np.array([case["query"]])
    cosine = query @ bank.T / np.linalg.norm(query) / np.linalg.norm(bank, axis=1)
    found = vote(cosine, np.zeros((1, 6), dtype=bool), np.array(case["labels"]), 3)
    assert found[0].tolist() == pytest.approx(case["probs"], rel=1e-4)


@pytest.mark.parametrize("leave", ["unit", "fold"])
def test_neighbours_are_those_of_brute_force(leave: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BLOCK", 7)
    c, y = planted()
    on = plan(y, [f"u{i // 2}" for i in range(60)], repeats=2)
    found = neighbours(c, on, leave=leave)
    Z = np.asarray(c.X) / np.linalg.norm(c.X, axis=1, keepdims=True)
    for r, apart in enumerate(on.fold if leave == "fold" else on.units[None]):
        for i in range(60):
            cosine = np.where(apart == apart[i], -np.inf, Z @ Z[i])
            near = np.argsort(-cosine)[:10]
            weights = np.bincount(y[near], np.exp(cosine[near] / 0.07), 3)
            assert found.probabilities[r, i] == pytest.approx(weights / weights.sum(), rel=1e-3)


def test_zero_rows_and_small_banks_still_vote() -> None:
    y = np.arange(8) % 2
    found = neighbours(Candidate("zero", "encoder", np.zeros((8, 3), dtype=np.float32)), plan(y, names(8)))
    assert np.allclose(found.probabilities.sum(axis=2), 1)
