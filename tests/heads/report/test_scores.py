from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from sklearn.covariance import ledoit_wolf

from heads.report import scores as module
from heads.report.candidates import Candidate, tfidf
from heads.report.probes import plan
from heads.report.scores import agreement, h_score, logme, scores, transrate
from tests.heads.report.tools import ORACLES


def planted(n: int, d: int, shift: float, classes: int = 3, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(n) % classes
    return rng.normal(size=(n, d)) + shift * np.eye(classes)[y] @ rng.normal(size=(classes, d)), y


@pytest.mark.parametrize("case", ["logme_tall", "logme_wide_D_gt_N"])
def test_logme_as_planted(case: str) -> None:
    planted_case = ORACLES[case]
    found = logme(np.array(planted_case["F"]), np.array(planted_case["y"]))
    assert found == pytest.approx(planted_case["logme"], abs=planted_case["tolerance_abs"])


@pytest.mark.parametrize("d", [5, 60])
def test_logme_is_the_largest_evidence(d: int) -> None:
    F, y = planted(30, d, 0.7, classes=2)
    t = (y == 1).astype(float)

    def negative(logs: np.ndarray) -> float:
        alpha, beta = np.exp(np.clip(logs, -15, 15))
        cov = np.eye(30) / beta + F @ F.T / alpha
        return float(0.5 * (np.linalg.slogdet(2 * np.pi * cov)[1] + t @ np.linalg.solve(cov, t)) / 30)

    best = [minimize(negative, [a, b], method="Nelder-Mead").fun for a in (0.0, 3.0) for b in (0.0, 2.0)]
    # the classes of a balanced binary problem differ: score class 1 alone against its own maximum
    assert logme(F, np.where(t == 1, 0, 1)) == pytest.approx(logme(F, y))
    both = [-min(best)]
    t = 1 - t
    both.append(-min(minimize(negative, [a, b], method="Nelder-Mead").fun for a in (0.0, 3.0) for b in (0.0, 2.0)))
    assert logme(F, y) == pytest.approx(np.mean(both), abs=1e-4)


def test_noise_in_many_dimensions_does_not_outrank_signal() -> None:
    signal, y = planted(60, 600, 0.5)
    noise, _ = planted(60, 600, 0.0, seed=1)
    few, _ = planted(60, 5, 1.5)
    assert logme(noise, y) < min(logme(signal, y), logme(few, y))
    assert h_score(planted(250, 240, 0.0, classes=5)[0], np.arange(250) % 5) < 0.2


def test_h_score_as_planted_and_in_both_shapes() -> None:
    case = ORACLES["hscore"]
    assert h_score(np.array(case["F"]), np.array(case["y"])) == pytest.approx(case["shrunk"])
    F, y = planted(20, 50, 1.0)
    Z = F - F.mean(axis=0)
    means = np.stack([Z[y == c].mean(axis=0) for c in y])
    cov, delta = ledoit_wolf(Z, assume_centered=True)
    assert h_score(F, y) == pytest.approx((1 - delta) * np.trace(np.linalg.solve(cov, means.T @ means / 20)))
    assert h_score(np.ones((9, 2)), np.arange(9) % 3) == 0.0


@pytest.mark.parametrize("shape", [(40, 6), (12, 30)])
def test_transrate_by_its_definition(shape: tuple[int, int]) -> None:
    F, y = planted(*shape, 1.0)
    Z = F - F.mean(axis=0)
    Z /= np.sqrt((Z**2).mean())

    def rate(part: np.ndarray) -> float:
        return 0.5 * float(np.linalg.slogdet(np.eye(part.shape[1]) + part.T @ part / (len(part) * 1e-4))[1])

    expected = rate(Z) - sum((y == c).mean() * rate(Z[y == c]) for c in range(3))
    assert transrate(F, y) == pytest.approx(expected)
    assert transrate(1000 * F, y) == pytest.approx(expected)


def test_neighbours_see_what_linear_scores_miss() -> None:
    rng = np.random.default_rng(0)
    signs = rng.integers(0, 2, size=(400, 2))
    y = signs.sum(axis=1) % 2
    xor = (2 * signs - 1 + 0.1 * rng.normal(size=(400, 2))).astype(np.float32)
    weak = (rng.normal(size=(400, 2)) + 0.4 * (2 * y[:, None] - 1)).astype(np.float32)
    on = plan(y, [str(i) for i in range(400)], repeats=1)
    hidden, seen = (scores(Candidate(n, "encoder", X), on) for n, X in (("xor", xor), ("weak", weak)))
    assert hidden["logme"] < seen["logme"]
    assert hidden["h_score"] < seen["h_score"]
    assert hidden["knn_loo"] > 0.98 > seen["knn_loo"]


def test_at_most_so_many_rows_the_same_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_ROWS", 40)
    X, y = planted(120, 4, 2.0)
    on = plan(y, [str(i) for i in range(120)], repeats=1)
    c = Candidate("a", "encoder", X.astype(np.float32))
    assert scores(c, on) == scores(c, on)
    rows = np.sort(np.random.default_rng(0).choice(np.arange(120), 40, replace=False))
    assert scores(c, on)["logme"] == pytest.approx(logme(X[rows].astype(np.float32), y[rows]))


def test_terms_have_neighbours_alone() -> None:
    y = np.arange(30) % 2
    on = plan(y, [str(i) for i in range(30)], repeats=1)
    assert scores(tfidf([f"{'frost ice' if k else 'boat sea'} {i}" for i, k in enumerate(y)]), on) == {"knn_loo": 1.0}


def test_agreement_is_kendalls() -> None:
    scored = {"a": {"s": 1.0, "t": 1.0}, "b": {"s": 2.0, "t": 1.0}, "c": {"s": 3.0, "t": 1.0}, "d": {"s": 9.0}}
    accuracy = {"a": 0.1, "b": 0.3, "c": 0.2}
    assert agreement(scored, accuracy) == {"s": pytest.approx(1 / 3), "t": None}
    assert agreement({"a": {"s": 1.0}}, accuracy) == {"s": None}
