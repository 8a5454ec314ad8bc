from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder.errors import UsageError
from heads.labels import columns, task, word
from index.features import features
from tests.heads.tools import ANIMALS, Grouped, animals, labelled, task_of


def numbered(folder: Path, values: list[Any], kind: str, **kwargs: Any) -> Any:
    texts = {f"i{k:03d}": f"text {k}" for k in range(len(values))}
    return labelled(folder, texts, dict(zip(texts, values, strict=True)), kind=kind, **kwargs)


@pytest.mark.parametrize(
    ("value", "name"),
    [("a b", "a b"), (True, "true"), (3, "3"), (2.0, "2"), (None, None), (float("nan"), None), ("", None), (" ", None)],
)
def test_what_a_label_is_called(value: Any, name: str | None) -> None:
    assert word(value) == name


def test_rows_without_a_label_and_small_classes_are_left_out(tmp_path: Path) -> None:
    found = task_of(numbered(tmp_path, ["b"] * 8 + ["a"] * 6 + ["rare"] * 4 + [None] * 3 + [""], "string"))
    assert (found.classes, found.left_out) == (["a", "b"], {"rare": 4})
    assert np.bincount(found.y).tolist() == [6, 8]
    assert found.test is None
    assert found.train.tolist() == list(range(14))


@pytest.mark.parametrize(
    ("values", "kind", "classes"),
    [
        ([True, False] * 6, "bool", ["false", "true"]),
        ([1, 10, 2] * 5, "int", ["1", "10", "2"]),
        ([0.0, 1.0] * 6, "float", ["0", "1"]),
    ],
)
def test_bools_and_few_whole_numbers_are_classes(
    tmp_path: Path, values: list[Any], kind: str, classes: list[str]
) -> None:
    assert task_of(numbered(tmp_path, values, kind)).classes == classes


@pytest.mark.parametrize(
    ("values", "kind", "said"),
    [
        ([k / 7 for k in range(20)], "float", "20 different numbers"),
        ([k // 2 for k in range(60)], "int", "30 different numbers"),
        (["a"] * 30, "string", "30 labelled rows of 1 classes"),
        (["a"] * 5 + ["b"] * 4, "string", "5 labelled rows of 1 classes"),
        ([f"own {k}" for k in range(20)], "string", "0 labelled rows of 0 classes"),
        ([None] * 12, "string", "0 labelled rows"),
    ],
)
def test_what_cannot_be_learned_is_refused_with_a_hint(tmp_path: Path, values: list[Any], kind: str, said: str) -> None:
    with pytest.raises(UsageError, match=said) as refused:
        task_of(numbered(tmp_path, values, kind))
    assert refused.value.hint
    assert "label" in refused.value.where + refused.value.what


def test_many_numbers_with_many_rows_each_are_classes(tmp_path: Path) -> None:
    assert len(task_of(numbered(tmp_path, list(range(25)) * 10, "int")).classes) == 25


def test_copies_count_once_and_share_a_unit(tmp_path: Path) -> None:
    texts = {f"i{k}": f"text {k % 8}" for k in range(16)} | {f"j{k}": "same" for k in range(9)}
    labels = {i: "odd" if i[0] == "j" else "ab"[int(i[1:]) % 2] for i in texts}
    found = task_of(labelled(tmp_path, texts, labels), least=4)
    assert (found.classes, found.left_out) == (["a", "b"], {"odd": 1})
    assert len(set(found.units)) == 8


def test_items_of_one_group_share_a_unit_and_a_class_within_one_group_is_left_out(tmp_path: Path) -> None:
    texts = {f"i{k:02d}": f"text {k}" for k in range(30)}
    labels = {i: "lone" if k >= 24 else "ab"[k % 2] for k, i in enumerate(texts)}
    family = {i: f"f{k // 6}" if k >= 6 else None for k, i in enumerate(texts)}
    found = task_of(labelled(tmp_path, texts, labels, more={"family": family}, source=Grouped))
    assert (found.classes, found.left_out) == (["a", "b"], {"lone": 6})
    assert len(set(found.units)) == 6 + 3


def test_a_split_column_says_what_is_scored(tmp_path: Path) -> None:
    parts = ["train"] * 12 + ["val"] * 4 + ["Test"] * 8 + [None] * 2
    more = {"split": {f"i{k:03d}": part for k, part in enumerate(parts)}}
    collection = numbered(tmp_path, ["a", "b"] * 13, "string", more=more)
    found = task_of(collection, split="split")
    part_of = {row["key"]: row["split"] for row in collection.items.search().to_arrow().to_pylist()}
    assert found.test is not None
    assert [part_of[k] for k in found.keys[found.test].tolist()] == ["Test"] * 8
    assert sorted(part_of[k] for k in found.keys[found.train].tolist()) == ["train"] * 12 + ["val"] * 4


def test_a_class_that_only_the_test_rows_have_is_left_out(tmp_path: Path) -> None:
    parts = {f"i{k:03d}": "train" if k < 12 else "test" for k in range(20)}
    values = ["a", "b"] * 6 + ["a", "b", "new", "new"] * 2
    found = task_of(numbered(tmp_path, values, "string", more={"split": parts}), split="split")
    assert (found.classes, found.left_out) == (["a", "b"], {"new": 0})


@pytest.mark.parametrize(
    ("word_", "said"), [("holdout", "neither train nor test"), ("train", "no row of these classes")]
)
def test_a_split_that_says_nothing_is_refused(tmp_path: Path, word_: str, said: str) -> None:
    more = {"split": {f"i{k:03d}": word_ for k in range(20)}}
    with pytest.raises(UsageError, match=said):
        task_of(numbered(tmp_path, ["a", "b"] * 10, "string", more=more), split="split")


@pytest.mark.parametrize("name", ["text", "content_hash", "key"])
def test_our_own_columns_are_no_labels(name: str) -> None:
    with pytest.raises(UsageError, match="own column"):
        columns(name, None)


def test_a_label_in_the_group_column_does_not_tie_its_class_together(tmp_path: Path) -> None:
    collection = animals(
        tmp_path, more={"family": {f"{w}{i:03d}": w for w in ANIMALS for i in range(20)}}, source=Grouped
    )
    rows = features(collection, collection.space(), columns("group", None))
    found = task(rows, "group", None, 5)
    assert (found.classes, len(set(found.units))) == (["ape", "bee", "cow"], 60)
