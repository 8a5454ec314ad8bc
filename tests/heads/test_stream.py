from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits, load_iris, load_wine, make_classification
from sklearn.linear_model import LogisticRegression

from embedder.errors import UsageError
from heads.kinds import _losses, linear
from heads.kinds._softmax import path
from heads.kinds.lda import Lda
from heads.kinds.linear import Linear
from heads.kinds.prototype import Prototype
from heads.kinds.ridge import Ridge
from heads.stream import Chosen, InMemory, Rows, Stored

DIGITS = load_digits(return_X_y=True)


def stored(folder: Path, X: np.ndarray, size: int = 64) -> Stored:
    np.save(folder / "matrix.npy", X)
    return Stored(folder / "matrix.npy", size)


def test_a_file_is_read_as_it_is_in_memory(tmp_path: Path) -> None:
    X = DIGITS[0].astype(np.float32)
    rows = stored(tmp_path, X)
    assert isinstance(rows, Rows)
    assert not isinstance(X, Rows)
    assert rows.shape == X.shape
    for source in (rows, InMemory(X, 100)):
        blocks = list(source.blocks())
        assert np.array_equal(np.concatenate([b for _, b in blocks]), X)
        assert [a for a, _ in blocks] == list(range(0, len(X), source.size))
    mask = np.arange(len(X)) % 3 == 0
    part = list(Chosen(rows, mask).blocks())
    assert np.array_equal(np.concatenate([b for _, b in part]), X[mask])
    assert [a for a, _ in part] == np.cumsum([0, *(len(b) for _, b in part[:-1])]).tolist()


@pytest.mark.parametrize("what", [np.arange(12), np.arange(12).reshape(3, 4), np.asfortranarray(np.eye(3))])
def test_a_file_of_other_things_is_refused(what: np.ndarray, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="matrix of floats"):
        stored(tmp_path, what)


@pytest.mark.parametrize("kind", [Linear, Ridge, Lda, Prototype])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_the_weights_are_those_in_memory(
    kind: type[Linear], dtype: type, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(linear, "HELD_UP_TO", 0)
    X, y = DIGITS[0].astype(dtype), DIGITS[1]
    units = np.arange(len(y))
    chosen = {Linear: {"C": 0.1}}.get(kind, {})
    one = kind(**chosen).fit(X, y, units)
    two = kind(**chosen).fit(stored(tmp_path, X), y, units)
    size = np.abs(one.coef_).max()
    assert np.abs(one.coef_ - two.coef_).max() < 1e-5 * size
    assert np.abs(one.intercept_ - two.intercept_).max() < 1e-5 * max(size, np.abs(one.intercept_).max())
    assert np.abs(one.predict_proba(X) - two.predict_proba(X)).max() < 1e-5


def test_rows_by_blocks_reach_the_optimum_of_rows_in_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = DIGITS[0].astype(np.float32), DIGITS[1]
    held = Linear().fit(stored(tmp_path, X), y)
    monkeypatch.setattr(linear, "HELD_UP_TO", 0)
    monkeypatch.setattr(linear, "STARTING", 300)
    passed = Linear().fit(stored(tmp_path, X), y)
    assert passed.C_ == held.C_
    assert np.abs(held.predict_proba(X) - passed.predict_proba(X)).max() < 1e-3
    losses = [objective((X - m.mean_) / m.scale_, y, m.coef_.T, m.intercept_, m.C_) for m in (held, passed)]
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)


def test_by_blocks_the_order_of_the_rows_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    X, y = DIGITS[0].astype(np.float32)[:900], DIGITS[1][:900]
    for name, value in (("HELD_UP_TO", 0), ("CHOOSING", 500), ("STARTING", 300)):
        monkeypatch.setattr(linear, name, value)
    order = np.random.default_rng(0).permutation(900)
    units = np.arange(900)
    one, two = Linear().fit(X, y, units), Linear().fit(X[order], y[order], units[order])
    assert one.C_ == two.C_
    assert np.abs(one.coef_ - two.coef_).max() < 1e-3 * np.abs(one.coef_).max()


@pytest.mark.parametrize("kind", [Linear, Ridge, Lda, Prototype])
def test_memory_is_bounded_by_a_block(kind: type[Linear], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("HELD_UP_TO", 0), ("CHOOSING", 1000), ("STARTING", 1000)):
        monkeypatch.setattr(linear, name, value)
    rng = np.random.default_rng(0)
    y = np.arange(20_000) % 4
    X = (rng.normal(size=(4, 64))[y] + rng.normal(size=(20_000, 64))).astype(np.float32)
    rows, whole = stored(tmp_path, X, 256), X.nbytes
    del X
    kind().fit(InMemory(np.eye(64, dtype=np.float32)), np.arange(64) % 4)
    tracemalloc.start()
    kind(**({"C": 0.1} if kind is Linear else {})).fit(rows, y)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 0.9 * whole


@pytest.mark.parametrize("name", ["digits", "wine", "iris", "synthetic"])
def test_the_loss_is_that_of_scikit_learns_optimum(name: str) -> None:
    data = {
        "digits": DIGITS,
        "wine": load_wine(return_X_y=True),
        "iris": load_iris(return_X_y=True),
        "synthetic": make_classification(400, 30, n_informative=10, n_classes=4, random_state=0),
    }
    X, y = data[name]
    X = (X - X.mean(axis=0)) / np.sqrt(X.var(axis=0).mean())
    axes = np.linalg.eigh(X.T @ X)[1]
    Cs = [0.001, 0.1, 10.0]
    for C, found in zip(Cs, path(X @ axes, y, int(y.max()) + 1, Cs, tol=1e-9), strict=True):
        theirs = LogisticRegression(C=C, tol=1e-8, max_iter=50_000).fit(X, y)
        assert objective(X, y, axes @ found.W, found.b, C) <= objective(X, y, theirs.coef_.T, theirs.intercept_, C) * (
            1 + 1e-6
        )


def objective(X: np.ndarray, y: np.ndarray, W: np.ndarray, b: np.ndarray, C: float) -> float:
    logits = X @ W + b
    logits = logits - logits.max(axis=1, keepdims=True)
    nll = np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(y)), y]
    return float(nll.mean() + (W * W).sum() / (2 * C * len(y)))


@pytest.mark.parametrize("limit", [0, 10**9])
@pytest.mark.parametrize("scale", [0.3, 1.0])
def test_a_path_reaches_what_each_c_reaches_alone(scale: float, limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_losses, "HELD_UP_TO", limit)
    X, y = DIGITS[0][:600] * scale / 16, DIGITS[1][:600]
    X = X - X.mean(axis=0)
    Cs = np.logspace(-4, 3, 15).tolist()
    for C, found in zip(Cs, path(X, y, 10, Cs, tol=1e-9), strict=True):
        (alone,) = path(X, y, 10, [C], tol=1e-9)
        best = objective(X, y, alone.W, alone.b, C)
        assert objective(X, y, found.W, found.b, C) == pytest.approx(best, rel=1e-7, abs=1e-12)
