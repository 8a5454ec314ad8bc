"""What every kind of index must satisfy; a new file in `index/kinds/` is tested because it exists."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder import kinds
from embedder.errors import Damaged
from index import derived
from index.derived import Engine, IndexKind
from index.kinds.flat import Flat

KINDS = kinds.names("index.kinds")


def unit_rows(n: int, dim: int, seed: int) -> np.ndarray:
    rows = np.random.default_rng(seed).normal(size=(n, dim)).astype(np.float32)
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True), dtype=np.float32)


def opened(kind: IndexKind, matrix: np.ndarray, folder: Path) -> Engine:
    folder.mkdir(parents=True, exist_ok=True)
    kind.build(matrix, folder, kind.Args())
    return kind.load(folder, matrix, kind.Args())


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> IndexKind:
    return derived.kind_of(request.param)


def test_it_finds_what_a_plain_product_finds(kind: IndexKind, tmp_path: Path) -> None:
    matrix, queries = unit_rows(1500, 24, 1), unit_rows(40, 24, 2)
    positions, scores = opened(kind, matrix, tmp_path).search(queries, 10)
    truth = np.argsort(-(queries @ matrix.T), axis=1)[:, :10]
    assert positions.shape == scores.shape == (40, 10)
    assert (positions.dtype, scores.dtype) == (np.int64, np.float32)
    recall = np.mean([len(set(p) & set(t)) / 10 for p, t in zip(positions, truth, strict=True)])
    assert recall == 1.0 if kind.EXACT else recall >= 0.9


def test_scores_are_cosines_and_fall(kind: IndexKind, tmp_path: Path) -> None:
    matrix, queries = unit_rows(300, 16, 3), unit_rows(5, 16, 4)
    positions, scores = opened(kind, matrix, tmp_path).search(queries, 8)
    assert (np.diff(scores, axis=1) <= 1e-6).all()
    for query, row, values in zip(queries, positions, scores, strict=True):
        np.testing.assert_allclose(values, matrix[row] @ query, atol=1e-5)


def test_only_allowed_rows_are_answered(kind: IndexKind, tmp_path: Path) -> None:
    matrix, queries = unit_rows(400, 16, 5), unit_rows(6, 16, 6)
    engine = opened(kind, matrix, tmp_path)
    for share in (0.9, 0.5, 0.1, 0.01):
        allowed = np.random.default_rng(7).random(400) < share
        positions, scores = engine.search(queries, 10, allowed)
        assert allowed[positions[positions >= 0]].all()
        assert np.isneginf(scores[positions < 0]).all()


def test_k_beyond_n_is_padded(kind: IndexKind, tmp_path: Path) -> None:
    matrix = unit_rows(3, 16, 8)
    positions, scores = opened(kind, matrix, tmp_path).search(matrix[:2], 5)
    assert {tuple(sorted(row)) for row in positions} == {(-1, -1, 0, 1, 2)}
    assert np.isneginf(scores[positions < 0]).all()


def test_it_writes_what_it_declares_and_reads_it_back(kind: IndexKind, tmp_path: Path) -> None:
    matrix, queries = unit_rows(200, 16, 9), unit_rows(4, 16, 10)
    first = opened(kind, matrix, tmp_path).search(queries, 5)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted(kind.FILES)
    again = kind.load(tmp_path, matrix, kind.Args()).search(queries, 5)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert kind.estimate_bytes(200, 16, kind.Args()) >= 200 * 16 * 4


def test_files_of_another_matrix_are_refused(kind: IndexKind, tmp_path: Path) -> None:
    if not kind.FILES:
        assert kind.EXACT
        return
    opened(kind, unit_rows(50, 16, 11), tmp_path)
    with pytest.raises(Damaged):
        kind.load(tmp_path, unit_rows(51, 16, 11), kind.Args())
    (tmp_path / kind.FILES[0]).write_bytes(b"not an index")
    with pytest.raises(Damaged):
        kind.load(tmp_path, unit_rows(50, 16, 11), kind.Args())


@settings(max_examples=60, deadline=None)
@given(
    n=st.integers(1, 90), k=st.integers(1, 20), block=st.integers(1, 40), share=st.floats(0, 1), seed=st.integers(0, 99)
)
def test_flat_is_exact_for_every_block_and_mask(n: int, k: int, block: int, share: float, seed: int) -> None:
    from index.kinds.flat import Args

    matrix, query = unit_rows(n, 6, seed), unit_rows(1, 6, seed + 1)
    allowed = np.random.default_rng(seed).random(n) < share
    positions, scores = Flat(matrix, Args(block_rows=block)).search(query, k, allowed)
    product = np.where(allowed, (matrix @ query[0]).astype(np.float64), -np.inf)
    expected = np.sort(product[allowed])[::-1][:k]
    np.testing.assert_allclose(scores[0][: len(expected)], expected, atol=1e-6)
    assert (positions[0][len(expected) :] == -1).all()
    assert len(set(positions[0][: len(expected)])) == len(expected)
