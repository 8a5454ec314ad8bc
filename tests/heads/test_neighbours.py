from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from heads.export import export
from heads.honest import Wishes
from heads.kept import erase
from heads.kinds.knn import Knn
from heads.neighbours import Neighbours
from heads.saved import Head, load_head
from heads.train import train
from index import commit
from index.build import build
from index.search import search
from index.store import Collection
from index.view import View
from tests.heads.test_export import documented
from tests.heads.tools import animals, task_of, worded


@pytest.fixture
def herd(tmp_path: Path) -> Collection:
    collection = animals(tmp_path, encoder=worded(0.5))
    train(collection, label="label", kind="knn", wishes=Wishes(controls=False))
    return collection


def shares(head: Head, X: np.ndarray) -> np.ndarray:
    return np.array([[p.probabilities[name] for name in head.classes] for p in head.predict(X)])


def test_a_saved_head_holds_no_vectors_and_answers_as_the_one_that_does(herd: Collection) -> None:
    head, task = load_head(herd, "label"), task_of(herd)
    path = herd.path / "heads" / "label" / "1" / "head.safetensors"
    assert b"model.rows" not in path.read_bytes()
    fitted = Knn(k=head.model.k_).fit(task.X, task.y)
    assert head.model.predict_proba(task.X) == pytest.approx(fitted.predict_proba(task.X), abs=1e-5)


@pytest.mark.parametrize("kind", [None, "flat", "faiss_hnsw"])
def test_neighbours_are_those_of_a_search_and_a_deleted_one_has_no_vote(herd: Collection, kind: str | None) -> None:
    if kind is not None:
        build(herd, herd.space(), kind=kind)
    head, task, view = load_head(herd, "label"), task_of(herd), View(herd, herd.space())
    ask = Neighbours(view, head.row_keys, head.row_labels)
    codes, cosines = ask(task.X[:3], 7)
    for i, answer in enumerate(search(view, task.X[:3], k=7, exact=True)):
        assert [head.classes[c] for c in codes[i]] == [hit.item["label"] for hit in answer.hits]
        assert cosines[i] == pytest.approx([hit.score for hit in answer.hits], abs=1e-6)
    bees = [f"bee{i:03d}" for i in range(20)]
    before = shares(head, task.X[20:21])[0, 1]
    commit.delete_ids(herd, bees[:19])
    codes, _ = ask(task.X[20:21], 60)
    assert (codes == 1).sum() == 1
    assert (codes == -1).sum() == 19
    assert shares(head, task.X[20:21])[0, 1] < before
    assert "19 were deleted" in str(head.stale(herd))


def test_rows_that_the_head_did_not_learn_from_have_no_vote(herd: Collection) -> None:
    head = load_head(herd, "label")
    view = View(herd, herd.space())
    codes, _ = Neighbours(view, head.row_keys[:5], head.row_labels[:5])(task_of(herd).X[:1], 10)
    assert (codes >= 0).sum() == 5


def test_without_a_single_row_the_classes_are_as_common_as_they_were(herd: Collection) -> None:
    head, X = load_head(herd, "label"), task_of(herd).X[:2]
    commit.delete_ids(herd, [f"{w}{i:03d}" for w in ("ape", "bee", "cow") for i in range(19)])
    commit.delete_ids(herd, [f"{w}019" for w in ("ape", "bee")])
    view = View(herd, herd.space())
    head.model.neighbours = Neighbours(view, head.row_keys[:1], head.row_labels[:1])
    assert head.model.predict_proba(X) == pytest.approx(np.full((2, 3), 1 / 3))


def test_a_purge_leaves_a_head_that_holds_nothing(herd: Collection) -> None:
    commit.delete_ids(herd, ["ape001"])
    assert [(row["head"], row["state"]) for row in erase(herd)] == [("label", "stale")]


def test_the_export_holds_the_vectors_that_are_left(herd: Collection, tmp_path: Path) -> None:
    commit.delete_ids(herd, ["ape001", "cow003"])
    head, X = load_head(herd, "label"), task_of(herd).X
    export(head, tmp_path / "h.npz")
    with np.load(tmp_path / "h.npz", allow_pickle=False) as file:
        assert file["rows"].shape == (58, 16)
    classes, predict_proba = documented()["load_neighbours"](tmp_path / "h.npz")
    assert classes.tolist() == head.classes
    assert predict_proba(X) == pytest.approx(shares(head, X), abs=1e-5)
