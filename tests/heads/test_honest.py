"""From stored vectors to an honest account, and from the saved head to predictions that know their limits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder.errors import UsageError
from heads import saved
from heads.doubts import doubts
from heads.holding import held_out
from heads.honest import Wishes
from heads.kinds.linear import Linear
from heads.saved import load_head
from heads.train import train
from index import commit
from tests.heads.tools import ANIMALS, animals, labelled, task_of, worded


@pytest.fixture(scope="module")
def herd(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Three classes of 40 that overlap a little, with one wrong label."""
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in ANIMALS for i in range(40)}
    labels = {id: "bee" if id == "cow007" else text.split()[0] for id, text in texts.items()}
    return labelled(tmp_path_factory.mktemp("herd"), texts, labels, encoder=worded(1.2, 32))


@pytest.fixture(scope="module")
def head(herd: Any) -> saved.Head:
    train(herd, label="label", wishes=Wishes(max_risk=0.2))
    return load_head(herd, "label")


def test_every_score_has_its_interval_and_its_controls(herd: Any, head: saved.Head) -> None:
    metrics = head.manifest["metrics"]
    for name in ("accuracy", "majority", "shuffled", "knn_5", "knn_10", "coverage", "set_size", "log_loss", "ece"):
        low, high = metrics[f"{name}_interval"]
        assert low <= metrics[name] <= high, name
    assert metrics["shuffled"] < 0.6 < metrics["accuracy"]
    assert metrics["accuracy"] == pytest.approx(metrics["knn_10"], abs=0.2)
    assert metrics["risk_coverage"][-1] == [1.0, pytest.approx(1 - metrics["accuracy"], abs=0.05)]
    assert "naive_accuracy" not in metrics
    assert [row["class"] for row in head.manifest["per_class"]] == list(ANIMALS)
    lean = train(herd, label="label", name="lean", wishes=Wishes(controls=False)).metrics
    assert "shuffled" not in lean
    assert lean["accuracy"] == metrics["accuracy"]


def test_predictions_carry_sets_domain_and_abstention(herd: Any, head: saved.Head) -> None:
    task = task_of(herd)
    said = head.predict(task.X)
    raw = head.model.predict_proba(task.X)
    assert head.guard is not None
    assert head.guard.calibration.method in ("none", "temperature")
    for k, one in enumerate(said):
        inside = {head.classes[c] for c in range(3) if 1 - raw[k, c] <= head.guard.sets.most[c]}
        assert set(one.prediction_set or ()) == inside
        assert one.domain is not None
        assert 0 < one.domain <= 1
        expected = "foreign" if one.domain <= 0.05 else "unsure" if raw[k].max() < head.guard.least else None
        assert one.why == expected
        assert one.as_json()["abstained"] == (expected is not None)
    foreign = head.predict(np.asarray(-task.X.sum(axis=0, keepdims=True)))
    assert foreign[0].domain is not None
    assert foreign[0].domain < 0.05
    assert foreign[0].why is not None


def test_calibration_and_sets_come_from_rows_that_the_head_did_not_see(herd: Any, head: saved.Head) -> None:
    from heads import conformal

    task = task_of(herd)
    held = held_out(task, Linear, 0)
    assert head.guard is not None
    assert head.guard.sets == conformal.fit(held.probabilities, task.y, 0.9)
    seen = conformal.fit(head.model.predict_proba(task.X), task.y, 0.9)
    assert seen.most[0] < head.guard.sets.most[0]
    assert "no proof" in head.manifest["promise"]


def test_a_split_column_gives_the_exact_promise_and_scores_without_copies(tmp_path: Path) -> None:
    texts = {f"{w}{k:02d}": f"{w} {k}" for w in ("ape", "bee") for k in range(30)} | {"copy": "ape 0"}
    split = {i: "test" if i == "copy" or int(i[3:]) >= 15 else "train" for i in texts}
    labels = {i: t.split()[0] for i, t in texts.items()}
    collection = labelled(tmp_path, texts, labels, more={"split": split}, encoder=worded(0.9))
    found = train(collection, label="label", split="split")
    assert found.promise.startswith("split conformal")
    assert "accuracy_without_copies" in found.metrics
    assert "1 of its test rows are near copies" in found.split


def test_copies_show_the_naive_score_beside_the_honest_one(tmp_path: Path) -> None:
    texts = {f"i{k:03d}": f"text {k // 5}" for k in range(150)}
    labels = {i: "ab"[int(t.split()[1]) * 7 % 30 % 2] for i, t in texts.items()}
    found = train(labelled(tmp_path, texts, labels, encoder=worded(0.0, 64)), label="label").metrics
    assert found["naive_accuracy"] > 0.9
    assert found["naive_gap_interval"][0] > 0.1
    assert found["accuracy"] < 0.75


def test_a_group_column_is_never_parted(tmp_path: Path) -> None:
    texts = {f"{w}{k:02d}": f"{w} {k}" for w in ("ape", "bee") for k in range(20)}
    family = {i: f"f{int(i[3:]) // 4}" for i in texts}
    collection = labelled(tmp_path, texts, {i: t.split()[0] for i, t in texts.items()}, more={"family": family})
    found = train(collection, label="label", group="family")
    assert found.metrics["accuracy"] == 1.0
    assert found.metrics["accuracy_interval"][0] < 0.7, "five families, not forty rows"
    with pytest.raises(UsageError, match="own column"):
        train(collection, label="label", group="key")


def test_a_wrong_label_is_found_beside_what_it_looks_like_until_it_is_set(herd: Any, head: saved.Head) -> None:
    found = doubts(herd, head, 5)
    first = found["errors"][0]
    assert (first["id"], first["given"], first["suggested"]) == ("cow007", "bee", "cow")
    assert first["suggested_probability"] > first["given_probability"]
    assert len(first["like"]) == 3
    assert all(near["id"].startswith("cow") and near["id"] != "cow007" for near in first["like"])
    assert found["found"] == head.manifest["metrics"]["suspicious_labels"]
    assert found["looked_at"] == 120
    commit.edit(herd, "cow007", {"label": "cow"}, by="test")
    again = doubts(herd, head, 5)
    assert again["settled"] == 1
    assert "cow007" not in [one["id"] for one in again["errors"]]
    commit.edit(herd, "cow007", {"label": "bee"}, by="test")


def test_a_head_of_the_first_format_still_predicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = animals(tmp_path)
    train(collection, label="label")
    whole = saved._manifest(collection.path / "heads" / "label" / "1")
    old = {k: v for k, v in whole.items() if k not in ("guard", *saved.DETAILS)} | {"format": 1}
    monkeypatch.setattr(saved, "_manifest", lambda folder: old)
    monkeypatch.setattr(saved, "SUSPECT", "none_")
    head = load_head(collection, "label")
    one = head.predict(task_of(collection).X[:1])[0]
    assert (one.prediction_set, one.domain, one.why) == (None, None, None)
    with pytest.raises(UsageError, match="without label errors"):
        doubts(collection, head, 5)


@pytest.mark.parametrize("wrong", [{"coverage": 1.0}, {"coverage": 0.0}, {"max_risk": 1.5}])
def test_shares_are_between_nothing_and_all(wrong: dict[str, float]) -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        Wishes(**wrong)
