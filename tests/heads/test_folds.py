from __future__ import annotations

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn.model_selection import StratifiedKFold

from heads.folds import assign, units


def spread(fold: NDArray[np.intp], y: NDArray[np.intp], k: int) -> NDArray[np.int64]:
    return np.array([np.bincount(y[fold == f], minlength=int(y.max()) + 1) for f in range(k)])


@settings(max_examples=50, deadline=None)
@given(st.lists(st.integers(0, 4), min_size=5, max_size=80), st.integers(2, 5), st.integers(0, 3))
def test_single_rows_are_spread_as_evenly_as_scikit_learn_does(labels: list[int], k: int, seed: int) -> None:
    y = np.array(labels)
    counts = spread(assign([f"u{i}" for i in range(len(y))], y, k, seed), y, k)
    assert (counts.max(axis=0) - counts.min(axis=0)).max() <= 1
    assert np.ptp(counts.sum(axis=1)) <= 1
    if min(Counter(labels).values()) >= k:
        oracle = StratifiedKFold(k, shuffle=True, random_state=0).split(y, y)
        theirs = np.array([np.bincount(y[held], minlength=int(y.max()) + 1) for _, held in oracle])
        assert np.array_equal(np.sort(counts, axis=0), np.sort(theirs, axis=0))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 2)), min_size=2, max_size=60), st.integers(0, 3))
def test_units_stay_whole_whatever_the_order(rows: list[tuple[int, int]], seed: int) -> None:
    names, y = [f"u{u}" for u, _ in rows], np.array([c for _, c in rows])
    fold = assign(names, y, 3, seed)
    assert len({(n, f) for n, f in zip(names, fold.tolist(), strict=True)}) == len(set(names))
    order = np.random.default_rng(seed).permutation(len(rows))
    assert np.array_equal(assign([names[i] for i in order], y[order], 3, seed), fold[order])


def test_another_seed_makes_other_folds() -> None:
    names, y = [f"u{i}" for i in range(100)], np.arange(100) % 2
    assert not np.array_equal(assign(names, y, 5, 0), assign(names, y, 5, 1))
    assert np.array_equal(assign(names, y, 5, 7), assign(names, y, 5, 7))


def test_large_units_are_balanced() -> None:
    names = [f"u{u}" for u in range(20) for _ in range(1 + u)]
    y = np.array([u % 2 for u in range(20) for _ in range(1 + u)])
    counts = spread(assign(names, y, 5, 0), y, 5)
    assert counts.max() <= 1.3 * counts.min()


def test_rows_that_share_content_or_group_are_one_unit_directly_or_through_others() -> None:
    hashes = ["c", "b", "c", "a", "d", "d"]
    groups = [None, "g", "g", "h", None, None]
    assert units(hashes, groups) == ["b", "b", "b", "a", "d", "d"]
    assert units(hashes) == hashes
    assert units(["x", "y"], ["x", None]) == ["x", "y"]
    assert units([], []) == []
