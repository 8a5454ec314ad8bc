"""Hugging Face data sets saved on disk, and the names that would go to the hub unchanged."""

from __future__ import annotations

import builtins
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pytest

from embedder.errors import UnknownName, UsageError
from embedder.sourcing import SourceOptions, open_source
from tests.embedder.sources import items, one_failure, png

Build = Callable[[Path, Sequence[str], bool], str]


def saved(folder: Path, columns: dict[str, list[Any]], features: dict[str, Any] | None = None) -> str:
    kinds = datasets.Features(features) if features else None
    datasets.Dataset.from_dict(columns, features=kinds).save_to_disk(str(folder))
    return f"hf:{folder}"


def texts(folder: Path, words: Sequence[str], broken: bool) -> str:
    rows = [*words, *([None] if broken else [])]
    return saved(folder / "d", {"id": [f"id-{w}" for w in rows], "text": rows, "n": [len(w or "") for w in rows]})


def pictures(folder: Path, words: Sequence[str], broken: bool) -> str:
    cells: list[Any] = [{"bytes": png(word), "path": f"{word}.png"} for word in words]
    cells += [None] if broken else []
    labels = [ord(c["path"][0]) % 2 if c else 0 for c in cells]
    features = {"image": datasets.Image(), "label": datasets.ClassLabel(names=["even", "odd"])}
    return saved(folder / "d", {"image": cells, "label": labels}, features)


EXAMPLES: dict[str, Build] = {"texts": texts, "pictures": pictures}


@pytest.fixture(autouse=True)
def quiet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)


def test_pictures_are_the_stored_bytes_and_classes_their_names(tmp_path: Path) -> None:
    source = open_source(pictures(tmp_path, ["beet", "corn"], broken=False))
    assert source.columns == {"label": "string"}
    assert [(i.data, i.columns["label"]) for i in items(source)] == [(png("beet"), "even"), (png("corn"), "odd")]


def test_a_label_of_minus_one_is_none(tmp_path: Path) -> None:
    features = {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["a"])}
    source = open_source(saved(tmp_path / "d", {"text": ["x", "y"], "label": [0, -1]}, features))
    assert [i.columns["label"] for i in items(source)] == ["a", None]


def test_rows_that_were_chosen_and_shuffled_are_those_that_are_read(tmp_path: Path) -> None:
    whole = datasets.Dataset.from_dict({"text": [f"t{n}" for n in range(700)]})
    whole.shuffle(seed=1).select(range(600)).save_to_disk(str(tmp_path / "d"))
    expected = whole.shuffle(seed=1).select(range(600))["text"]
    assert [i.text for i in items(open_source(f"hf:{tmp_path}/d"))] == list(expected)


def test_splits(tmp_path: Path) -> None:
    parts = {name: datasets.Dataset.from_dict({"text": [name]}) for name in ("train", "test")}
    datasets.DatasetDict(parts).save_to_disk(str(tmp_path / "d"))
    source = open_source(f"hf:{tmp_path}/d?split=test")
    assert ([i.text for i in items(source)], source.root) == (["test"], f"hf:{tmp_path}/d?split=test")
    with pytest.raises(UsageError, match="the splits train, test"):
        open_source(f"hf:{tmp_path}/d")
    with pytest.raises(UnknownName) as error:
        open_source(f"hf:{tmp_path}/d?split=tset")
    assert "test" in error.value.hint


def test_the_hub_is_asked_for_exactly_what_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Any] = []

    def load(*args: Any, **more: Any) -> Any:
        asked.append((args, more))
        return datasets.Dataset.from_dict({"text": ["a"]})

    monkeypatch.setattr(datasets, "load_dataset", load)
    source = open_source("hf:stanfordnlp/imdb@abc123?split=train[:10%]&config=plain")
    assert asked == [(("stanfordnlp/imdb", "plain"), {"split": "train[:10%]", "revision": "abc123"})]
    assert source.root == "hf:stanfordnlp/imdb?split=train[:10%]&config=plain"


@pytest.mark.parametrize("uri", ["hf:", "hf:@rev", "hf:name@", "hf:name?spilt=train"])
def test_other_spellings_are_refused(uri: str) -> None:
    with pytest.raises(UsageError):
        open_source(uri)


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **more: Any) -> Any:
        if name == "datasets":
            raise ImportError(name)
        return real(name, *args, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UsageError) as error:
        open_source("hf:stanfordnlp/imdb")
    assert error.value.hint == "pip install 'permafrost[datasets]'"


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be loaded"):
        open_source(f"hf:{tmp_path}")


def test_a_damaged_file_of_a_data_set_is_refused(tmp_path: Path) -> None:
    uri = saved(tmp_path / "d", {"text": [f"text {n}" for n in range(2000)]})
    (path,) = (tmp_path / "d").glob("*.arrow")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(UsageError, match="cannot be"):
        open_source(uri)


def test_text_that_is_empty_is_one_failure(tmp_path: Path) -> None:
    source = open_source(texts(tmp_path, ["beet"], broken=True), SourceOptions(media="text"))
    assert one_failure(source).reason == "empty_text"
