"""Values from a Python program: every form, ids that stay, what can be read twice, and what does not fit."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from embedder.errors import NothingToDo, UsageError
from embedder.given import PEEK, Given
from embedder.pool import DecodePool
from embedder.records import Decoded, Item
from embedder.sourcing import SourceOptions
from embedder.transform import ImageTransform
from tests.embedder.sources import failures, items, one_failure, png


def given(values: Any, **options: Any) -> Given:
    return Given(values, SourceOptions(**options))


def test_dictionaries_are_rows_with_columns_of_their_types() -> None:
    rows = [
        {"id": 7, "text": "a", "year": np.int64(1999), "score": 1, "day": datetime.date(2026, 1, 2), "group": "g"},
        {"id": "b", "text": "b", "score": 0.5, "more": None},
    ]
    source = given(rows)
    assert source.columns == {"year": "int", "score": "float", "day": "string", "more": "string"}
    a, b = items(source)
    assert (a.id, a.text, a.group) == ("7", "a", "g")
    assert a.columns == {"year": 1999, "score": 1.0, "day": "2026-01-02", "more": None}
    assert (b.id, b.columns["year"]) == ("b", None)
    assert list(source) == list(source)
    assert len(source) == 2


def test_pairs_and_contents_alone() -> None:
    source = given([("x", "one", {"label": "l"}), ("y", "two")])
    assert [(i.id, i.text, i.columns["label"]) for i in items(source)] == [("x", "one", "l"), ("y", "two", None)]
    alone = given(["one", "two", "one"])
    ids = [i.id for i in items(alone)]
    assert len(set(ids)) == 3
    assert [i.id for i in items(given(["zero", *["one", "two", "one"]]))][1:] == ids


def test_pictures_of_every_sort_decode_to_their_pixels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (8, 8, 3), dtype=np.uint8)
    path = tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    values = [pixels, Image.fromarray(pixels), path.read_bytes(), path, Image.fromarray(pixels).convert("CMYK")]
    source = given([(str(n), value) for n, value in enumerate(values)])
    assert source.medium == "image"
    transform = ImageTransform(8, 8, 8, (0, 0, 0), (1, 1, 1), "nearest", "squash")
    with DecodePool(1) as pool:
        decoded = [pool.decode(item, transform) for item in items(source)]
    for one in decoded[:4]:
        assert isinstance(one, Decoded)
        assert np.array_equal(one.value, pixels)
    assert [i.path for i in items(source)][3] == str(path)


def test_a_path_object_is_a_file_also_where_texts_are(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("inside")
    (item,) = items(given([("a", tmp_path / "a.txt")], media="text"))
    assert (item.path, item.text) == (str(tmp_path / "a.txt"), None)
    (text,) = items(given([("a", str(tmp_path / "a.txt"))], media="text"))
    assert text.text == str(tmp_path / "a.txt")
    assert one_failure(given([("a", tmp_path / "gone.png"), ("b", png("b"))])).reason == "missing"


def test_an_iterator_is_read_once_and_a_function_again_and_again() -> None:
    def values() -> Iterator[tuple[str, str]]:
        yield from ((f"i{n}", f"text {n}") for n in range(PEEK + 50))

    again = given(values)
    assert len(again) == PEEK + 50
    assert list(again) == list(again)
    once = given(values())
    with pytest.raises(TypeError):
        len(once)
    assert list(once) == list(again)
    with pytest.raises(UsageError, match="only once"):
        list(once)


def test_an_iterator_is_read_as_it_is_needed() -> None:
    read = 0

    def values() -> Iterator[tuple[str, str]]:
        nonlocal read
        for n in range(10 * PEEK):
            read += 1
            yield f"i{n}", "text"

    stream = iter(given(values()))
    for _ in range(PEEK + 5):
        next(stream)
    assert read <= PEEK + 6


def test_a_late_value_that_does_not_fit_is_one_failure() -> None:
    rows = [{"id": str(n), "text": "t", "n": n} for n in range(PEEK)]
    late = [
        {"id": "bad", "text": "t", "n": 0.5},
        {"id": "good", "text": "t", "n": 3, "new": 1},
        {"id": "x", "text": "t"},
    ]
    found = list(given(iter([*rows, *late])))
    assert len(found) == PEEK + 3
    (failure,) = [one for one in found if not isinstance(one, Item)]
    assert failure.reason == "bad_value"
    assert "'n' holds int, not float" in failure.message
    assert given([*rows, *late]).columns["n"] == "float"


def test_values_of_no_form_are_named() -> None:
    source = given([("a", "text"), ["a", "b", "c", "d"], ("c", "text")])
    assert [f.reason for f in failures(source)] == ["bad_value"]
    assert [i.id for i in items(source)] == ["a", "c"]
    for wrong in ("text", b"x", {"a": 1}, Image.new("RGB", (1, 1))):
        with pytest.raises(UsageError, match="is no source"):
            given(wrong)
    with pytest.raises(NothingToDo):
        given([])
    import pandas as pd

    with pytest.raises(UsageError, match="data frame"):
        given(pd.DataFrame({"text": ["a"]}))
