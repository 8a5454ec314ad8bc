from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from heads.report.ridge import FIXED, GRID, FoldRidge


def planted(d: int, n: int = 90, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(n) % 3)
    X = rng.normal(size=(n, d)) + 5
    X[:, :3] += 0.8 * np.eye(3)[y]
    return X.astype(np.float32), y, rng.permutation(np.arange(n) % 5)


def predicted(X: np.ndarray, y: np.ndarray, train: np.ndarray, rows: np.ndarray, penalty: float) -> np.ndarray:
    return fitted(X, y, train, rows, penalty).argmax(axis=1)


def fitted(X: np.ndarray, y: np.ndarray, train: np.ndarray, rows: np.ndarray, penalty: float) -> np.ndarray:
    """scikit-learn's ridge; the penalty is relative to the mean variance along min(n, d) axes."""
    T = X[train].astype(float)
    level = ((T - T.mean(axis=0)) ** 2).sum() / min(X.shape)
    return Ridge(alpha=penalty * level).fit(T, np.eye(3)[y[train]]).predict(X[rows])


@pytest.mark.parametrize("d", [6, 200])
def test_held_out_accuracy_and_error_are_those_of_refits(d: int) -> None:
    X, y, fold = planted(d)
    parts = [(fitted(X, y, fold != f, fold == f, FIXED), y[fold == f]) for f in range(5)]
    found = FoldRidge(X, fold).fits([y], 3)
    assert found.accuracy.tolist() == pytest.approx([sum((p.argmax(axis=1) == t).sum() for p, t in parts) / 90])
    assert found.error.tolist() == pytest.approx(
        [sum(((p - np.eye(3)[t]) ** 2).sum() for p, t in parts) / 90], rel=1e-4
    )


@pytest.mark.parametrize("d", [6, 200])
def test_the_penalty_is_chosen_inside_the_training_rows(d: int) -> None:
    X, y, fold = planted(d, seed=1)
    found = FoldRidge(X, fold).probe(y, 3)
    for f in range(5):
        inner = []
        for penalty in GRID:
            others = [g for g in range(5) if g != f]
            said = [predicted(X, y, (fold != f) & (fold != g), fold == g, penalty) == y[fold == g] for g in others]
            inner.append(np.concatenate(said).mean())
        assert found.inner[f] == pytest.approx(max(inner))
        best = GRID[int(np.argmax(inner))]
        assert np.array_equal(found.correct[fold == f], predicted(X, y, fold != f, fold == f, best) == y[fold == f])


def test_many_label_sets_at_once_are_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y, fold = planted(6)
    sets = [np.random.default_rng(k).permutation(y) for k in range(7)]
    made = FoldRidge(X, fold)
    whole = made.fits(sets, 3)
    assert whole.accuracy.tolist() == [made.fits([s], 3).accuracy[0] for s in sets]
    assert whole.error == pytest.approx([made.fits([s], 3).error[0] for s in sets])
    monkeypatch.setattr("heads.report.ridge.MOST_CELLS", 150)
    assert made.fits(sets, 3).accuracy.tolist() == whole.accuracy.tolist()
    assert made.fits(sets, 3).error == pytest.approx(whole.error)


def test_neither_scale_nor_offset_matters_and_constants_are_chance() -> None:
    X, y, fold = planted(6)
    assert np.array_equal(FoldRidge(X * 1024 - 7, fold).probe(y, 3).correct, FoldRidge(X, fold).probe(y, 3).correct)
    assert FoldRidge(np.ones((90, 2), dtype=np.float32), fold).probe(y, 3).accuracy < 0.45
