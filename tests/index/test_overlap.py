"""overlap@k equals a plain loop over all pairs, whatever is deleted, fresh, or in one Space only."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from index import commit
from index.build import build
from index.overlap import QUERIES, overlap
from tests.index.tools import Rows, contents, filled, planted, run


def neighbours(vectors: dict[str, np.ndarray], k: int) -> dict[str, set[str]]:
    found = {}
    for id, query in vectors.items():
        scores = {other: float(query @ v) for other, v in vectors.items() if other != id}
        found[id] = set(sorted(scores, key=lambda other: -scores[other])[:k])
    return found


@pytest.mark.parametrize("k", [1, 10])
def test_the_figure_is_that_of_a_plain_loop(tmp_path: Path, k: int) -> None:
    collection, other = filled(tmp_path, 60), planted(dim=12, salt="b")
    texts = {f"i{n:04d}": f"text {n}" for n in range(60)}
    run(collection, Rows({id: texts[id] for id in list(texts)[5:]}), other)
    build(collection, collection.space(), kind="flat")
    commit.delete_ids(collection, ["i0030"])
    old = collection.space("default")
    one, two = ({i: np.frombuffer(b, "<f4").astype(float) for i, (_, b) in contents(collection, s).items()}
                for s in (old, other.space))  # fmt: skip
    a, b = neighbours(one, k), neighbours(two, k)
    shares = [len(a[id] & b[id]) / k for id in sorted(set(a) & set(b))]
    found = overlap(collection, old, other.space, k=k)
    assert found is not None
    assert (found.queries, found.k) == (54, k)
    assert QUERIES > 54
    assert found.mean == pytest.approx(np.mean(shares))
    # the bootstrap interval is near the normal one
    half = 1.96 * np.std(shares, ddof=1) / np.sqrt(len(shares))
    assert found.interval == pytest.approx((found.mean - half, found.mean + half), abs=0.03)
    assert overlap(collection, old, other.space, k=k) == found


def test_a_space_agrees_with_itself_and_two_items_are_needed(tmp_path: Path) -> None:
    collection = filled(tmp_path, 4)
    space = collection.space()
    found = overlap(collection, space, space)
    assert found is not None
    assert (found.k, found.mean, found.interval) == (3, 1.0, (1.0, 1.0))
    commit.delete_ids(collection, ["i0000", "i0001", "i0002"])
    assert overlap(collection, space, space) is None
