from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.errors import UsageError
from index import duplicates
from index.duplicates import near_duplicate_groups
from index.kinds.flat import Flat
from index.view import unit


def by_hand(rows: np.ndarray, threshold: float, hashes: list[str] | None = None) -> list[int]:
    """Union-find over every pair, in double precision."""
    parent = list(range(len(rows)))

    def root(i: int) -> int:
        while parent[i] != i:
            i = parent[i]
        return i

    exact = rows.astype(np.float64) / np.linalg.norm(rows.astype(np.float64), axis=1, keepdims=True)
    for i, j in itertools.combinations(range(len(rows)), 2):
        if exact[i] @ exact[j] >= threshold or (hashes and hashes[i] == hashes[j]):
            a, b = sorted((root(i), root(j)))
            parent[b] = a
    return [root(i) for i in range(len(rows))]


def planted(seed: int, n: int = 60, dim: int = 6) -> np.ndarray:
    chance = np.random.default_rng(seed)
    centres = chance.normal(size=(12, dim))
    return (centres[chance.integers(0, 12, n)] + 0.12 * chance.normal(size=(n, dim))).astype(np.float32)


@given(seed=st.integers(0, 10_000), threshold=st.sampled_from([0.9, 0.97, 0.99, 0.999]), hashed=st.booleans())
@settings(max_examples=40, deadline=None)
def test_the_groups_are_those_of_every_pair_compared(seed: int, threshold: float, hashed: bool) -> None:
    rows = planted(seed)
    hashes = [f"{i % 45}" for i in range(len(rows))] if hashed else None
    assert near_duplicate_groups(rows, threshold, hashes=hashes).tolist() == by_hand(rows, threshold, hashes)


def test_tiles_of_any_size_and_an_index_that_is_exact_find_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = planted(5, n=90)
    expected = by_hand(rows, 0.97)
    monkeypatch.setattr(duplicates, "TILE_ROWS", 7)
    monkeypatch.setattr(duplicates, "TILE_COLUMNS", 11)
    monkeypatch.setattr(duplicates, "NEIGHBOURS", 2)
    assert near_duplicate_groups(rows, 0.97).tolist() == expected
    assert near_duplicate_groups(rows, 0.97, finder=Flat(unit(rows))).tolist() == expected


def test_a_chain_is_one_group_and_copies_pass_a_threshold_of_one() -> None:
    angles = np.deg2rad(np.arange(0, 40, 4))
    chain = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert set(near_duplicate_groups(chain, 0.997)) == {0}
    row = np.random.default_rng(0).normal(size=(1, 384)).astype(np.float32)
    assert near_duplicate_groups(np.concatenate([row, 3 * row, -row]), 1.0).tolist() == [0, 0, 2]


def test_what_cannot_be_compared_is_alone() -> None:
    rows = np.array([[1, 0], [np.nan, 0], [1, 0], [0, 0]], dtype=np.float32)
    assert near_duplicate_groups(rows).tolist() == [0, 1, 0, 3]
    assert near_duplicate_groups(np.empty((0, 4), dtype=np.float32)).tolist() == []


@pytest.mark.parametrize("threshold", [0.0, -0.5, 1.01, float("nan")])
def test_a_threshold_out_of_range_is_refused(threshold: float) -> None:
    with pytest.raises(UsageError, match="above 0 and up to 1"):
        near_duplicate_groups(np.eye(2, dtype=np.float32), threshold)
    with pytest.raises(UsageError, match="1 content hashes for 2 vectors"):
        near_duplicate_groups(np.eye(2, dtype=np.float32), hashes=["a"])
