from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import softmax
from sklearn import metrics as sk

from heads.metrics import BINS, scores, wilson


def drawn(n: int, C: int, seed: int = 0, heat: float = 1.0) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Labels drawn from softmax(z), predicted as softmax(heat·z): calibrated when heat is 1."""
    rng = np.random.default_rng(seed)
    z = 1.5 * rng.normal(size=(n, C))
    true = softmax(z, axis=1)
    return (true.cumsum(axis=1) > rng.random((n, 1))).argmax(axis=1), softmax(heat * z, axis=1)


@pytest.mark.parametrize("C", [2, 4, 12])
def test_values_are_those_of_scikit_learn(C: int) -> None:
    y, P = drawn(400, C)
    found, labels, said = scores(y, P, 1), list(range(C)), P.argmax(axis=1)
    assert found["accuracy"] == pytest.approx(sk.accuracy_score(y, said))
    assert found["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(y, said))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, said, average="macro"))
    assert found["log_loss"] == pytest.approx(sk.log_loss(y, P, labels=labels))
    assert found["brier"] == pytest.approx(((P - np.eye(C)[y]) ** 2).sum(axis=1).mean())
    assert found["majority"] == pytest.approx((y == 1).mean())
    assert found["gain_over_majority"] == pytest.approx(found["accuracy"] - found["majority"])
    assert ("top_5" in found) == (C > 5)
    if C > 5:
        assert found["top_5"] == pytest.approx(sk.top_k_accuracy_score(y, P, k=5, labels=labels))


def test_a_class_that_does_not_occur_or_is_never_said_counts_as_in_scikit_learn() -> None:
    y, P = np.array([0, 0, 1, 1, 3, 3]), np.eye(5)[[0, 0, 1, 2, 2, 3]] * 0.9 + 0.02
    found, said = scores(y, P, 0), P.argmax(axis=1)
    assert found["balanced_accuracy"] == pytest.approx(sk.recall_score(y, said, labels=[0, 1, 3], average="macro"))
    assert found["macro_f1"] == pytest.approx(sk.f1_score(y, said, average="macro"))


def test_ece_is_the_sum_over_bins_by_a_plain_loop() -> None:
    y, P = drawn(300, 4, heat=2.0)
    top, right = P.max(axis=1), P.argmax(axis=1) == y
    total = 0.0
    for b in range(BINS):
        inside = (top >= b / BINS) & ((top < (b + 1) / BINS) | (b == BINS - 1))
        if inside.any():
            total += inside.mean() * abs(top[inside].mean() - right[inside].mean())
    assert scores(y, P, 0)["ece"] == pytest.approx(total)


@pytest.mark.parametrize(("hits", "n"), [(0, 10), (1, 10), (37, 50), (50, 50), (9_990, 10_000)])
def test_wilson_inverts_the_score_test(hits: int, n: int) -> None:
    p, z = hits / n, 1.959963984540054

    def excess(q: float) -> float:
        return (p - q) ** 2 - z * z * q * (1 - q) / n

    low, high = wilson(p, n)
    assert low == pytest.approx(0 if hits == 0 else brentq(excess, 1e-12, min(p, 1 - 1e-9)), abs=1e-9)
    assert high == pytest.approx(1 if hits == n else brentq(excess, max(p, 1e-9), 1 - 1e-12), abs=1e-9)


def test_every_interval_holds_its_value_and_all_is_json() -> None:
    y, P = drawn(200, 8)
    found = scores(y, P, 0)
    names = [n for n in found if not n.endswith("_interval")]
    assert len(names) == 9
    assert all(found[f"{n}_interval"][0] <= found[n] <= found[f"{n}_interval"][1] for n in names)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert scores(y, P, 0) == found
    assert scores(y, P, 0, seed=1) != found


@pytest.mark.parametrize("name", ["log_loss", "gain_over_majority", "brier"])
def test_bootstrap_intervals_are_those_of_the_normal_law_where_that_holds(name: str) -> None:
    y, P = drawn(3000, 3)
    rows = {
        "log_loss": -np.log(P[np.arange(len(y)), y]),
        "gain_over_majority": (P.argmax(axis=1) == y).astype(float) - (y == 0),
        "brier": ((P - np.eye(3)[y]) ** 2).sum(axis=1),
    }[name]
    half = 1.96 * rows.std() / np.sqrt(len(rows))
    low, high = scores(y, P, 0)[f"{name}_interval"]
    assert [low, high] == pytest.approx([rows.mean() - half, rows.mean() + half], abs=half / 6)


def test_copies_do_not_narrow_an_interval() -> None:
    y, P = drawn(60, 3)
    many_y, many_P = np.repeat(y, 5), np.repeat(P, 5, axis=0)
    plain, blind = scores(y, P, 0), scores(many_y, many_P, 0)
    many = scores(many_y, many_P, 0, units=np.repeat(np.arange(60), 5))
    for name in ("accuracy_interval", "macro_f1_interval", "log_loss_interval", "ece_interval"):
        assert many[name] == pytest.approx(plain[name])
        assert np.ptp(blind[name]) < 0.75 * np.ptp(plain[name])


@pytest.mark.parametrize("heat", [1.0, 1.7])
def test_the_ece_interval_holds_the_truth(heat: float) -> None:
    truth = scores(*drawn(20_000, 4, seed=99, heat=heat), 0)["ece"]
    inside = 0
    for seed in range(20):
        low, high = scores(*drawn(300, 4, seed=seed, heat=heat), 0)["ece_interval"]
        inside += low - 0.004 <= truth <= high + 0.004
    assert inside >= 18


def test_a_certain_and_wrong_head_has_a_finite_loss_and_ties_are_no_hits() -> None:
    y = np.array([0, 1, 2, 3, 4, 5, 6] * 2)
    sure = np.eye(7)[(y + 1) % 7]
    found = scores(y, sure, 0)
    assert (found["accuracy"], found["top_5"]) == (0.0, 0.0)
    assert found["log_loss"] == pytest.approx(36.04, abs=0.01)
    assert scores(y, np.full((14, 7), 1 / 7), 0)["top_5"] == 0.0
