from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from embedder.errors import NothingToDo, UsageError
from index import build, commit, dedupe
from tests.index.test_duplicates import by_hand
from tests.index.tools import Rows, filled, fresh, planted, planted_vector, run, view


def texts(n: int = 40) -> dict[str, str]:
    """Every fourth text is a copy of the one before it."""
    return {f"i{k:03d}": f"text {k - 1 if k % 4 == 3 else k}" for k in range(n)}


def groups_of(found: dict[str, Any]) -> set[frozenset[str]]:
    return {frozenset([group["keep"], *group["extra"]]) for group in found["groups"]}


def expected(stored: dict[str, str], threshold: float) -> set[frozenset[str]]:
    ids = list(stored)
    import numpy as np

    labels = by_hand(np.stack([planted_vector(stored[id]) for id in ids]), threshold)
    found: dict[int, set[str]] = {}
    for id, label in zip(ids, labels, strict=True):
        found.setdefault(label, set()).add(id)
    return {frozenset(group) for group in found.values() if len(group) > 1}


@pytest.mark.parametrize("kind", [None, "flat", "faiss_hnsw"])
@pytest.mark.parametrize("threshold", [0.8, 0.97])
def test_groups_of_stored_fresh_and_deleted_items(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str | None, threshold: float
) -> None:
    monkeypatch.setattr(dedupe, "EXACT_UP_TO", 10)
    stored = texts()
    collection = fresh(tmp_path)
    run(collection, Rows(stored))
    if kind:
        build.build(collection, collection.space(), kind=kind, recall=0.0)
    run(collection, Rows({"late": "text 5"}, root="o"), prefix="o/")
    commit.delete_ids(collection, ["i002", "i010"])
    stored = {id: t for id, t in {**stored, "o/late": "text 5"}.items() if id not in ("i002", "i010")}
    found = dedupe.find(view(collection), threshold=threshold)
    assert groups_of(found) == expected(stored, threshold)
    assert (found["index"], found["exact"]) == (("faiss_hnsw", False) if kind == "faiss_hnsw" else ("flat", True))
    assert found["compared"] == len(stored)
    assert found["items"] == sum(map(len, groups_of(found))) == found["extra"] + len(found["groups"])
    assert dedupe.find(view(collection), threshold=threshold, exact=True)["groups"] == found["groups"]


@pytest.mark.parametrize("indexed", [False, True])
def test_the_first_that_was_stored_is_kept_and_copies_are_named(tmp_path: Path, indexed: bool) -> None:
    collection = filled(tmp_path, 10)
    if indexed:
        build.build(collection, collection.space(), kind="flat")
    run(collection, Rows({"a-copy": "text 4", "other": "nothing like it"}, root="o"), prefix="o/")
    (group,) = dedupe.find(view(collection))["groups"]
    assert group == {"keep": "i0004", "extra": ["o/a-copy"], "scores": [1.0], "same_content": [True]}
    assert dedupe.find(view(collection), where="text != 'text 4'")["groups"] == []


def test_items_of_several_parts_are_compared_by_their_mean(tmp_path: Path) -> None:
    from embedder.chunking import with_chunk
    from embedder.encoder import load_encoder

    collection = fresh(tmp_path)
    long = " ".join(f"word{n}" for n in range(200))
    rows = {"a": long, "b": long + " and", "c": " ".join(f"other{n}" for n in range(200))}
    encoder = load_encoder(with_chunk("hashing:64", "20"), device="cpu")
    run(collection, Rows(rows), encoder)
    found = dedupe.find(view(collection), threshold=0.9)
    assert groups_of(found) == {frozenset({"a", "b"})}
    assert found["groups"][0]["same_content"] == [False]


def test_nothing_to_compare_is_said(tmp_path: Path) -> None:
    here = view(filled(tmp_path, 3))
    with pytest.raises(UsageError, match="above 0"):
        dedupe.find(here, threshold=0)
    with pytest.raises(NothingToDo):
        dedupe.find(here, where="text = 'no such'")
    assert planted().space == here.space
