from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from embedder.errors import NothingToDo, UnknownName, UsageError
from heads import holding
from heads.calibration import choose
from heads.folds import assign
from heads.holding import held_out
from heads.kinds.linear import Linear
from heads.labels import Task
from heads.metrics import scores
from heads.saved import load_head
from heads.train import default_name, train
from index import commit
from tests.heads.tools import Grouped, animals, labelled, task_of, worded
from tests.index.tools import Rows, planted, run

KEYS = {"head", "version", "kind", "space", "label", "classes", "n_train", "n_test", "metrics", "seconds", "left_out"}


def coin(text: str) -> str:
    """A label that has nothing to do with the vector."""
    return "ab"[hashlib.md5(text.encode()).digest()[0] % 2]


class Watched(Linear):
    """A head that remembers what each one was fitted to and asked about."""

    fits: ClassVar[list[tuple[set[bytes], set[bytes]]]] = []

    def fit(self, X: Any, y: Any, groups: Any = None) -> Watched:
        super().fit(X, y, groups)
        self.saw = {row.tobytes() for row in np.asarray(X)}
        return self

    def predict_proba(self, X: Any) -> Any:
        self.fits.append((self.saw, {row.tobytes() for row in np.asarray(X)}))
        return super().predict_proba(X)


def test_classes_that_can_be_told_apart_are_learned(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    found = train(collection, label="label")
    assert found.as_json().keys() >= KEYS
    assert (found.head, found.version, found.kind) == ("label", 1, "linear")
    assert found.space == collection.space().fingerprint
    assert (found.classes, found.n_train, found.n_test, found.left_out) == (["ape", "bee", "cow"], 60, 60, {})
    assert found.metrics["accuracy"] == 1.0
    assert found.metrics["majority"] == pytest.approx(1 / 3)
    assert found.metrics["gain_over_majority_interval"][0] > 0.5
    assert found.metrics["log_loss"] < 0.1


def test_random_labels_score_as_chance() -> None:
    rng, every = np.random.default_rng(0), np.arange(120)
    gains, alarms = [], 0
    for draw in range(10):
        X = np.asarray(rng.normal(size=(120, 24)), dtype=np.float32)
        task = Task(every, X, rng.integers(2, size=120), ["a", "b"], [f"{draw}-{i}" for i in every], every, None, {})
        held = held_out(task, Linear, 0)
        found = scores(task.y, held.probabilities, int(np.bincount(task.y).argmax()))
        gains.append(found["gain_over_majority"])
        alarms += found["gain_over_majority_interval"][0] > 0 or found["accuracy_interval"][0] > 0.5
    assert abs(np.mean(gains)) < 0.05
    assert alarms <= 2


def test_each_row_is_scored_once_by_a_head_that_never_saw_it(tmp_path: Path) -> None:
    task = task_of(animals(tmp_path))
    Watched.fits.clear()
    held = held_out(task, Watched, 0)
    assert held.rows.tolist() == list(range(60))
    assert len(Watched.fits) == 5
    assert all(not saw & asked for saw, asked in Watched.fits)
    assert sum(len(asked) for _, asked in Watched.fits) == 60
    assert np.allclose(held.probabilities.sum(axis=1), 1)


@pytest.mark.parametrize("tie", ["copies", "groups"])
def test_what_belongs_together_is_never_on_both_sides(tmp_path: Path, tie: str) -> None:
    if tie == "copies":
        texts = {f"i{k:03d}": f"text {k // 5}" for k in range(150)}
        collection = labelled(tmp_path, texts, {i: coin(t) for i, t in texts.items()}, encoder=worded(0.0, 64))
    else:
        texts = {f"i{k:03d}": f"f{k // 5} {k}" for k in range(150)}
        family = {i: t.split()[0] for i, t in texts.items()}
        labels = {i: coin(f) for i, f in family.items()}
        collection = labelled(tmp_path, texts, labels, encoder=worded(4.0, 64), more={"family": family}, source=Grouped)
    task = task_of(collection)
    held = held_out(task, Linear, 0)
    honest = (held.probabilities.argmax(axis=1) == task.y).mean()
    fold = assign(task.units, task.y, 5, 0)
    assert len(set(zip(task.units, fold.tolist(), strict=True))) == len(set(task.units)) == 30
    leaky = np.zeros(150, dtype=np.intp)
    apart = assign([str(k) for k in range(150)], task.y, 5, 0)
    for k in range(5):
        leaky[apart == k] = Linear(C=1.0).fit(task.X[apart != k], task.y[apart != k]).predict(task.X[apart == k])
    assert (leaky == task.y).mean() > 0.9 > 0.75 > honest


def test_two_spaces_of_a_collection_are_scored_on_the_same_folds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    collection = animals(tmp_path)
    texts = {row["id"]: row["text"] for row in collection.items.search().to_arrow().to_pylist()}
    labels = {i: {"label": t.split()[0]} for i, t in texts.items()}
    run(collection, Rows(dict(reversed(texts.items())), labels, {"label": "string"}), planted(8))
    seen: list[Any] = []

    def spy(*args: Any) -> Any:
        seen.append(assign(*args))
        return seen[-1]

    monkeypatch.setattr(holding, "assign", spy)
    better, worse = (train(collection, label="label", space=s, name="h") for s in ("worded:", "planted:8"))
    assert better.space != worse.space
    assert len(seen) == 4
    assert np.array_equal(seen[0], seen[2])
    one, two = (load_head(collection, f"h@{v}") for v in (1, 2))
    assert np.array_equal(one.row_keys, two.row_keys)
    assert better.metrics["accuracy"] > worse.metrics["accuracy"]
    assert better.metrics["majority"] == worse.metrics["majority"]


def test_training_again_gives_the_same_head_and_a_new_version(tmp_path: Path) -> None:
    collection = animals(tmp_path, encoder=worded(0.5))
    first, second = train(collection, label="label"), train(collection, label="label")
    assert (first.version, second.version) == (1, 2)
    assert first.metrics == second.metrics
    X = task_of(collection).X
    assert load_head(collection, "label@1").predict(X) == load_head(collection, "label@2").predict(X)
    other = train(collection, label="label", seed=1)
    assert other.metrics != first.metrics


def test_a_split_column_is_followed_and_copies_across_it_are_said(tmp_path: Path) -> None:
    texts = {f"{w}{k:02d}": f"{w} {k}" for w in ("ape", "bee") for k in range(20)} | {"copy": "ape 0"}
    split = {i: "test" if i == "copy" or int(i[3:]) >= 14 else "val" if int(i[3:]) >= 12 else "train" for i in texts}
    labels = {i: t.split()[0] for i, t in texts.items()}
    collection = labelled(tmp_path, texts, labels, more={"split": split}, encoder=worded(1.0))
    found = train(collection, label="label", split="split")
    assert (found.n_train, found.n_test) == (28, 13)
    assert "1 of its test rows" in found.split
    task = task_of(collection, split="split")
    assert task.test is not None
    model = Linear().fit(task.X[task.train], task.y[task.train], [task.units[i] for i in task.train])
    unit = np.array(task.units)[task.test]
    _, P = choose(model.predict_proba(task.X[task.test]), task.y[task.test], unit.tolist())
    assert found.metrics.items() >= scores(task.y[task.test], P, 0, units=unit).items()
    assert len(load_head(collection, "label").row_keys) == 28


def test_many_rows_are_scored_on_one_fold_of_five(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(holding, "ALL_FOLDS_UP_TO", 59)
    found = train(animals(tmp_path), label="label")
    assert (found.n_train, found.n_test, found.metrics["accuracy"]) == (60, 12, 1.0)
    assert found.split.startswith("one of 5 ")


def test_a_filter_chooses_the_rows(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    assert train(collection, label="label", where="label IN ('ape', 'bee')").classes == ["ape", "bee"]
    with pytest.raises(NothingToDo):
        train(collection, label="label", where="label = 'dog'")


def test_deleted_items_are_not_learned_from(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    commit.delete_ids(collection, [f"cow{k:03d}" for k in range(17)])
    found = train(collection, label="label")
    assert (found.classes, found.left_out, found.n_train) == (["ape", "bee"], {"cow": 3}, 40)
    assert train(collection, label="label", min_class_size=3).classes == ["ape", "bee", "cow"]


def test_wrong_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    wrongs: list[tuple[dict[str, Any], str]] = [
        ({"label": "lable"}, "label"),
        ({"label": "label", "kind": "liner"}, "linear"),
    ]
    for wrong, near in wrongs:
        with pytest.raises(UnknownName) as raised:
            train(collection, **wrong)
        assert near in raised.value.hint
    with pytest.raises(UsageError, match="cannot name a head"):
        train(collection, label="label", name="No/Good")
    assert not (collection.path / "heads").exists()


@pytest.mark.parametrize(
    ("label", "name"), [("label", "label"), ("Kind of bird", "kind-of-bird"), ("Ä/ö", "head"), ("x" * 80, "x" * 63)]
)
def test_a_head_is_named_after_its_label(label: str, name: str) -> None:
    assert default_name(label) == name


def test_controls_do_not_choose_again_what_the_head_chose() -> None:
    model = Linear().fit(*_blobs())
    again = holding.settled(Linear, model)(seed=3)
    assert again.C == model.C_  # type: ignore[attr-defined]
    assert again.fit(*_blobs()).path_ == []  # type: ignore[attr-defined]


def _blobs() -> tuple[Any, Any]:
    rng, y = np.random.default_rng(0), np.arange(60) % 3
    return rng.normal(size=(3, 8))[y] + rng.normal(size=(60, 8)), y
