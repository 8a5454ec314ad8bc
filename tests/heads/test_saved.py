from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors import numpy as safetensors

from embedder.errors import Damaged, SpaceMismatch, UnknownName, UsageError
from heads import saved
from heads.calibration import Calibration
from heads.conformal import fit
from heads.guard import Guard
from heads.holding import held_out
from heads.honest import Wishes
from heads.kinds.linear import Linear
from heads.noise import suspects
from heads.saved import list_heads, load_head
from heads.train import Trained
from heads.train import train as train_whole
from index import commit, files
from index.store import Collection
from tests.heads.tools import animals, task_of, worded
from tests.index.tools import Rows, run


def train(collection: Collection, **choices: Any) -> Trained:
    """What is saved does not depend on the controls, which take most of the time."""
    return train_whole(collection, wishes=Wishes(controls=False), **choices)


def folder_of(collection: Any, name: str = "label", version: int = 1) -> Path:
    return Path(collection.path / "heads" / name / str(version))


def test_a_saved_head_says_the_same_to_the_bit(tmp_path: Path) -> None:
    collection = animals(tmp_path, encoder=worded(0.7))
    found = train(collection, label="label")
    head, task = load_head(collection, "label"), task_of(collection)
    fitted = Linear(seed=0).fit(task.X, task.y, task.units)
    expected = fitted.predict_proba(task.X)
    assert np.array_equal(head.model.predict_proba(task.X), expected)
    assert head.guard is not None
    expected = head.guard.calibration(expected)
    said = head.predict(task.X)
    assert [list(p.probabilities.values()) for p in said] == [sorted(row.tolist(), reverse=True) for row in expected]
    assert [p.label for p in said] == [head.classes[i] for i in expected.argmax(axis=1)]
    assert all(sum(p.probabilities.values()) == pytest.approx(1) for p in said)
    facts = {k: v for k, v in found.as_json().items() if k != "seconds"}
    assert head.as_json().items() >= facts.items()


def test_what_is_saved_is_arrays_and_json(tmp_path: Path) -> None:
    collection = animals(tmp_path, encoder=worded(0.7))
    train(collection, label="label")
    folder, task = folder_of(collection), task_of(collection)
    assert sorted(p.name for p in folder.iterdir()) == ["head.safetensors", "manifest.json"]
    arrays = safetensors.load_file(folder / "head.safetensors")
    manifest = json.loads((folder / "manifest.json").read_text())
    assert np.array_equal(arrays["row_keys"], task.keys)
    assert np.array_equal(arrays["row_labels"], task.y)
    held = held_out(task, Linear, 0)
    assert np.array_equal(arrays["test_probabilities"], held.probabilities.astype(np.float32))
    assert np.array_equal(arrays["test_labels"], task.y[held.rows])
    assert manifest["sha256"] == files.sha256(folder / "head.safetensors")
    assert (manifest["format"], manifest["seed"], manifest["space"]) == (2, 0, collection.space().as_json())
    assert not any(module in json.dumps(manifest) for module in ("heads.", "sklearn", "numpy"))


def test_large_held_out_predictions_are_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(saved, "MOST_PROBABILITIES", 179)
    collection = animals(tmp_path)
    train(collection, label="label")
    arrays = safetensors.load_file(folder_of(collection) / "head.safetensors")
    assert {"row_keys", "row_labels"} <= arrays.keys()
    assert not any(name.startswith("test_") for name in arrays)


def test_top_k_and_what_cannot_be_asked(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    train(collection, label="label")
    head, X = load_head(collection, "label"), task_of(collection).X
    assert [list(p.probabilities) for p in head.predict(X[:1], top_k=1)] == [[head.predict(X[:1])[0].label]]
    assert head.predict(X[:0]) == []
    bad = X[:1].copy()
    bad[0, 0] = np.nan
    for wrong in (X[:1, :3], X[0], bad):
        with pytest.raises(UsageError, match="16 dimensions"):
            head.predict(wrong)
    with pytest.raises(UsageError, match="top_k"):
        head.predict(X, top_k=0)


def test_any_flipped_byte_is_refused_before_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = animals(tmp_path)
    train(collection, label="label")
    load_head(collection, "label")
    monkeypatch.setattr("safetensors.numpy.load", lambda data: pytest.fail("parsed before it was checked"))
    for name in ("head.safetensors", "manifest.json"):
        path = folder_of(collection) / name
        whole = path.read_bytes()
        for at in np.linspace(0, len(whole) - 3, 12).astype(int):
            path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
            # JSON reads the blanks between its values in more than one way
            if name == "manifest.json" and _same(path, whole):
                continue
            with pytest.raises(Damaged):
                load_head(collection, "label")
        path.write_bytes(whole[:-20])
        with pytest.raises(Damaged):
            load_head(collection, "label")
        path.write_bytes(whole)


def _same(path: Path, whole: bytes) -> bool:
    try:
        return bool(json.loads(path.read_bytes()) == json.loads(whole))
    except ValueError:
        return False


def test_a_newer_format_and_a_missing_file_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    collection = animals(tmp_path)
    with monkeypatch.context() as patched:
        patched.setattr(saved, "FORMAT", 3)
        train(collection, label="label")
    with pytest.raises(Damaged, match="format 3; this version reads 1 and 2"):
        load_head(collection, "label")
    train(collection, label="label")
    (folder_of(collection, version=2) / "head.safetensors").unlink()
    with pytest.raises(Damaged):
        load_head(collection, "label")


def test_a_damaged_head_does_not_hide_the_others(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    for name in ("one", "two"):
        train(collection, label="label", name=name)
    (folder_of(collection, "one") / "manifest.json").write_bytes(b"{}")
    rows = list_heads(collection)
    assert [(r["head"], r["versions"], r["kind"]) for r in rows] == [("one", [1], "damaged"), ("two", [1], "linear")]
    assert rows[1]["space"] == collection.space().fingerprint
    assert "checksum" in rows[0]["damaged"]
    assert load_head(collection, "two").name == "two"


def test_vectors_of_another_space_are_refused_and_both_are_named(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    train(collection, label="label")
    head, other = load_head(collection, "label"), worded(3.0, salt="other").space
    head.require_space(collection.space())
    with pytest.raises(SpaceMismatch) as refused:
        head.require_space(other)
    assert head.space.short in str(refused.value)
    assert other.short in str(refused.value)
    assert "label@1" in str(refused.value)


def test_versions_are_counted_and_chosen(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    assert list_heads(collection) == []
    for seed in range(3):
        train(collection, label="label", seed=seed)
    assert load_head(collection, "label").version == 3
    assert load_head(collection, "label@2").manifest["seed"] == 1
    assert [(r["version"], r["versions"]) for r in list_heads(collection)] == [(3, [1, 2, 3])]


@pytest.mark.parametrize(
    ("wrong", "near"), [("lable", "label"), ("label@9", "1"), ("label@", "1"), ("label@../1", "1"), ("../x", "label")]
)
def test_a_wrong_name_is_answered_with_the_right_ones(tmp_path: Path, wrong: str, near: str) -> None:
    collection = animals(tmp_path, per_class=6)
    with pytest.raises(UnknownName, match="no head") as none:
        load_head(collection, "label")
    assert "permafrost train" in none.value.hint
    train(collection, label="label")
    with pytest.raises(UnknownName) as raised:
        load_head(collection, wrong)
    assert near in raised.value.hint


@pytest.mark.parametrize("point", ["file:head.safetensors", "file:manifest.json", "head:rename"])
def test_a_head_that_was_not_written_whole_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, point: str
) -> None:
    collection = animals(tmp_path, per_class=6)

    def fail(at: str) -> None:
        if at == point:
            raise OSError("no space left")

    with monkeypatch.context() as patched:
        patched.setattr(files, "fault", fail)
        with pytest.raises(OSError, match="no space"):
            train(collection, label="label")
    assert list_heads(collection) == []
    assert train(collection, label="label").version == 1
    assert [p.name for p in (collection.path / "heads" / "label").iterdir()] == ["1"]


def test_heads_that_are_saved_at_once_get_versions_of_their_own(tmp_path: Path) -> None:
    collection = animals(tmp_path, per_class=6)
    task = task_of(collection)
    model = Linear(C=1.0).fit(task.X, task.y)
    P = model.predict_proba(task.X)
    rows = saved.rows_of(task, task.train, P, suspects(P, task.y))
    guard = Guard(Calibration(), fit(P, task.y, 0.9))

    def save(_: int) -> int:
        return saved.save(
            collection, "h", {"kind": "linear", "space": collection.space().as_json()}, model, rows, guard
        )

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(save, range(8))) == list(range(1, 9))


def test_a_head_says_when_its_rows_are_no_longer_what_they_were(tmp_path: Path) -> None:
    collection = animals(tmp_path)
    train(collection, label="label")
    head = load_head(collection, "label")
    assert head.stale(collection) is None
    commit.edit(collection, "ape000", {"label": "bee"}, by="test")
    assert head.stale(collection) == "of 60 training rows 1 have another label now: train again"
    commit.delete_ids(collection, ["ape001", "ape002"])
    labels = {"ape003": {"label": "ape"}}
    run(collection, Rows({"ape003": "ape with other words"}, labels, {"label": "string"}), worded(3.0))
    assert "3 were deleted or have other content and 1 have another label" in str(head.stale(collection))
    assert load_head(collection, f"label@{train(collection, label='label').version}").stale(collection) is None
