from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_array
from sklearn.datasets import load_digits

from heads.report.candidates import Candidate
from heads.report.neighbours import Neighbours
from heads.report.probes import cross_validated, linear, neighbours, plan

N = 300


def rows(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y = np.arange(60) % 3
    return rng.standard_normal((60, 8)).astype(np.float32) + 1.5 * np.eye(8, dtype=np.float32)[y], y


def test_held_out_votes_are_those_of_the_probe_by_neighbours_but_for_the_smoothing() -> None:
    X, y = rows()
    on, it = plan(y, [f"u{i}" for i in range(60)], repeats=2), Candidate("a", "encoder", X)
    found, oracle = cross_validated(it, on, Neighbours, head="knn"), neighbours(it, on, leave="fold")
    assert np.allclose(found.probabilities, 0.99 * oracle.probabilities + 0.01 / 3, atol=1e-5)
    assert found.inner.shape == (2, 5)
    assert (found.inner < 0).all()


def test_the_inner_score_leaves_whole_groups_out() -> None:
    X, y = rows()
    copied, groups = np.repeat(X, 4, axis=0), np.repeat(np.arange(60), 4)
    noise = np.random.default_rng(1).integers(3, size=60)
    kept = Neighbours().fit(copied, np.repeat(noise, 4), groups)
    naive = Neighbours().fit(copied, np.repeat(noise, 4), np.arange(240))
    assert naive.inner_ > kept.inner_ + 0.3
    assert Neighbours().fit(X, y, np.arange(60)).inner_ > Neighbours().fit(X, noise, np.arange(60)).inner_


def test_sparse_rows_vote_as_dense_ones() -> None:
    X, y = rows()
    dense, sparse = (Neighbours().fit(part, y, np.arange(60)) for part in (X, csr_array(X)))
    assert dense.inner_ == pytest.approx(sparse.inner_, rel=1e-5)
    assert np.allclose(dense.predict_proba(X), sparse.predict_proba(csr_array(X)), atol=1e-6)


def test_pixels_of_digits_are_read_better_by_neighbours() -> None:
    digits = load_digits()
    y = digits.target[:N].astype(np.intp)
    on = plan(y, [f"u{i}" for i in range(N)], repeats=1)
    it = Candidate("pixels", "pixels", digits.data[:N].astype(np.float32))
    near, straight = cross_validated(it, on, Neighbours, head="knn"), linear(it, on)
    assert near.accuracy > straight.accuracy
