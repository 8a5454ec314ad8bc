from __future__ import annotations

import json

import numpy as np
from sklearn.datasets import load_digits

from heads.report.leakage import leakage


def clusters(copies: int = 5, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    X = np.repeat(rng.normal(size=(60, 32)), copies, axis=0) + 0.05 * rng.normal(size=(60 * copies, 32))
    return X.astype(np.float32), np.repeat(rng.integers(2, size=60), copies)


def test_copies_of_items_with_random_labels_leak_until_they_are_marked() -> None:
    X, y = clusters()
    found = leakage(X, y, np.arange(300))
    assert (found.copies, found.naive) == (300, 1.0)
    assert found.honest < 0.65
    assert found.interval[0] > 0.3
    assert all(a // 5 == b // 5 and a != b for a, b in found.pairs.tolist())
    marked = leakage(X, y, np.repeat(np.arange(60), 5))
    assert (marked.copies, marked.gap) == (0, 0.0)
    assert marked.honest == found.honest
    json.dumps(found.as_json())


def test_digits_of_one_class_are_not_taken_for_copies() -> None:
    data = load_digits()
    found = leakage(data.data.astype(np.float32), data.target, np.arange(len(data.target)))
    assert found.copies < 20
    assert abs(found.gap) < 0.005
    assert found.naive > 0.98


def test_a_split_that_cuts_through_groups_leaks_even_without_copies() -> None:
    rng = np.random.default_rng(0)
    X = np.repeat(rng.normal(size=(40, 16)), 4, axis=0) + 0.5 * rng.normal(size=(160, 16))
    y, units = np.repeat(rng.integers(2, size=40), 4), np.repeat(np.arange(40), 4)
    cut = (np.arange(0, 160, 2), np.arange(1, 160, 2))
    whole = (np.arange(80), np.arange(80, 160))
    leaks, clean = (leakage(X.astype(np.float32), y, units, split=s) for s in (cut, whole))
    assert leaks.copies == 80
    assert leaks.interval[0] > 0.1
    assert (clean.copies, clean.gap, clean.scored) == (0, 0.0, 80)


def test_copies_across_a_given_split_are_found() -> None:
    X, y = clusters(2)
    found = leakage(X, y, np.arange(120), split=(np.arange(0, 120, 2), np.arange(1, 120, 2)))
    assert found.copies == 60
    assert found.pairs.tolist() == [[i, i - 1] for i in range(1, 120, 2)]


def test_rows_all_alike_are_all_copies_and_nothing_fails() -> None:
    found = leakage(np.ones((30, 4), dtype=np.float32), np.arange(30) % 2, np.arange(30))
    assert np.isfinite([found.naive, found.honest]).all()
