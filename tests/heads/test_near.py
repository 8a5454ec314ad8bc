from __future__ import annotations

import numpy as np
import pytest

from heads import near
from heads.controls import neighbours
from heads.near import groups, near_duplicates, threshold
from index.view import unit
from tests.heads.planted import alone


def copies(seed: int, clusters: int = 60, each: int = 5, dim: int = 64, noise: float = 0.02) -> np.ndarray:
    rng = np.random.default_rng(seed)
    centres = rng.normal(size=(clusters, dim))
    return (np.repeat(centres, each, axis=0) + noise * rng.normal(size=(clusters * each, dim))).astype(np.float32)


def partition(labels: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels == name).tolist()) for name in np.unique(labels)}


@pytest.mark.planted
def test_copies_with_random_labels_are_learned_only_by_a_split_that_parts_them(seeds: range) -> None:
    honest, naive = [], []
    for seed in seeds:
        rng = np.random.default_rng(seed)
        X, y = copies(seed), np.repeat(rng.permutation(np.arange(60) % 2), 5)
        labels, _ = near_duplicates(X, y, alone(300))
        assert len(np.unique(labels)) == 60
        every = np.arange(300)
        for kept, units in ((honest, list(map(str, labels))), (naive, alone(300))):
            rows, votes = neighbours(X, y, units, every, every, seed)
            kept.append((votes[5].argmax(axis=1) == y[rows]).mean())
    assert np.mean(honest) == pytest.approx(0.5, abs=0.05)
    assert np.mean(naive) > 0.95


def test_groups_are_the_connected_components_of_a_plain_product(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(near, "TILE", 7)
    rows = unit(copies(0, 12, 3, 8, 0.15))
    content = np.arange(36)
    content[35] = 0
    close = (rows @ rows.T >= 0.97) | (content[:, None] == content[None])
    reach = np.linalg.matrix_power(close.astype(np.int64).clip(0, 1), 1) > 0
    for _ in range(6):
        reach = (reach.astype(int) @ reach.astype(int)) > 0
    expected = {frozenset(np.flatnonzero(row).tolist()) for row in reach}
    assert partition(groups(rows, content, 0.97)) == expected


def test_a_space_in_which_all_is_near_is_not_one_group() -> None:
    rng = np.random.default_rng(0)
    X = (10 * np.ones(64) + rng.normal(size=(200, 64)) * 0.5).astype(np.float32)
    X[1] = X[0] + 0.01
    assert (unit(X) @ unit(X).T).min() > 0.97
    labels, _ = near_duplicates(X, np.arange(200) % 2, alone(200))
    assert len(np.unique(labels)) == 199
    assert labels[0] == labels[1]


def test_a_tight_class_is_not_taken_for_copies_and_the_others_keep_theirs() -> None:
    rng = np.random.default_rng(1)
    tight = rng.normal(size=64) + 0.05 * rng.normal(size=(12, 64))
    X = np.concatenate([copies(1, 60, 2), tight]).astype(np.float32)
    y = np.repeat([0, 1], [120, 12])
    labels, least = near_duplicates(X, y, alone(132))
    assert least == near.THRESHOLD
    assert len(np.unique(labels[:120])) == 60
    assert len(np.unique(labels[120:])) >= near.LEAST_GROUPS


def test_few_dimensions_ask_for_more_than_a_chance_likeness() -> None:
    rng = np.random.default_rng(2)
    flat, wide = (unit(rng.normal(size=(2000, dim)).astype(np.float32)) for dim in (4, 256))
    assert threshold(wide) == near.THRESHOLD
    found = threshold(flat)
    assert near.THRESHOLD < found <= near.STEPS[-1]


def test_equal_content_is_joined_whatever_its_vectors_and_many_rows_are_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    X, y = copies(3, 10, 2), np.arange(20) % 2
    hashes = alone(20)
    hashes[19] = hashes[0]
    labels, _ = near_duplicates(X, y, hashes)
    assert labels[0] == labels[19]
    monkeypatch.setattr(near, "UP_TO", 19)
    labels, least = near_duplicates(X, y, hashes)
    assert (len(np.unique(labels)), least) == (19, 1.0)
