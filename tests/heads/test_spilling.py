from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from heads import holding, spilling, train
from heads.kind import estimator
from heads.labels import Task
from heads.saved import load_head
from index import features as reading
from index.features import features
from index.spill import Spilled
from index.store import Collection
from tests.heads.tools import animals, labelled


def test_a_file_gives_back_what_was_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.spill.BLOCK", 7)
    X = np.random.default_rng(0).normal(size=(40, 5)).astype(np.float32)
    found = Spilled(X.shape, tmp_path)
    order = np.array([*range(20, 40), *range(0, 20, 2), *range(1, 20, 2)])
    found.write(order, X[order])
    assert np.array_equal(np.concatenate([b for _, b in found.blocks()]), X)
    assert np.array_equal(found.array, X)
    some = np.array([0, 6, 7, 8, 39])
    assert np.array_equal(found.taken(some).array, X[some])
    assert found.taken(np.arange(40)) is found
    assert list(tmp_path.iterdir()) == []


def test_many_vectors_are_read_as_few_are(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    held = features(collection, collection.space(), ["label"], "label = 'bee'")
    spilled = features(collection, collection.space(), ["label"], "label = 'bee'", held_up_to=0)
    assert spilled.spilled is not None
    assert np.array_equal(held.X, spilled.X)
    assert (held.ids, held.columns) == (spilled.ids, spilled.columns)
    assert features(collection, collection.space(), held_up_to=10**9).spilled is None


@pytest.mark.parametrize("kind", ["linear", "ridge", "lda", "prototype"])
@pytest.mark.parametrize("some", [False, True])
def test_a_head_from_a_file_is_the_head_from_memory(
    kind: str, some: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in ("ape", "bee", "cow") for i in range(20)}
    labels = {id: None if some and id == "bee007" else text.split()[0] for id, text in texts.items()}
    collection = labelled(tmp_path, texts, labels)
    before = train.train(collection, label="label", kind=kind)
    monkeypatch.setattr(spilling, "HELD_BYTES", 0)
    after = train.train(collection, label="label", kind=kind)
    for name in ("accuracy", "log_loss", "knn_5", "shuffled", "coverage"):
        assert after.metrics[name] == pytest.approx(before.metrics[name], abs=1e-4)
    one, two = (load_head(collection, f"label@{v}").model for v in (1, 2))
    assert np.abs(one.coef_ - two.coef_).max() <= 1e-5 * np.abs(one.coef_).max()


def test_a_number_is_learned_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = {f"t{i:03d}": f"word {i}" for i in range(60)}
    collection = labelled(tmp_path, texts, {id: i / 7 for i, id in enumerate(texts)}, kind="float")
    before = train.train(collection, label="label", kind="ridge")
    monkeypatch.setattr(spilling, "HELD_BYTES", 0)
    after = train.train(collection, label="label", kind="ridge")
    assert after.metrics["r2"] == pytest.approx(before.metrics["r2"], abs=1e-4)


def test_a_kind_that_holds_its_rows_learns_from_a_sample(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = animals(tmp_path)
    monkeypatch.setattr(spilling, "HELD_BYTES", 30 * 16 * 4)
    found = train.train(collection, label="label", kind="knn")
    assert found.metrics["accuracy"] > 0.9


def scored_by_part(collection: Collection, monkeypatch: pytest.MonkeyPatch) -> train.Trained:
    monkeypatch.setattr(holding, "MOST_SCORED", 5)
    return train.train(collection, label="label", kind="prototype")


def test_only_so_many_rows_of_a_fold_are_scored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = scored_by_part(animals(tmp_path), monkeypatch)
    assert (found.n_test, found.n_train) == (25, 60)


def test_memory_does_not_grow_with_the_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "ROWS", 64)
    monkeypatch.setattr("index.spill.BLOCK", 64)

    def peak(n: int) -> int:
        X, rng = Spilled((n, 1024), tmp_path), np.random.default_rng(0)
        y = np.arange(n) % 2
        for a in range(0, n, 64):
            X.write(np.arange(a, a + 64), rng.normal(size=(64, 1024)) + y[a : a + 64, None])
        task = Task(
            np.arange(n), X.array, y.astype(np.intp), ["a", "b"], [str(i) for i in range(n)], np.arange(n), None, {},
            spilled=X,
        )  # fmt: skip
        tracemalloc.start()
        holding.held_out(task, estimator("prototype"), 0, most=1)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    monkeypatch.setattr(holding, "MOST_SCORED", 100)
    monkeypatch.setattr("heads.kinds.prototype.SCORED_UP_TO", 100)
    peak(64)
    assert peak(8192) - peak(2048) < 6144 * 1024 * 4 / 4
