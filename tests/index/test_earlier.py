"""What a run found out about batch sizes: written down, and where the next run of that Space begins."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from embedder import tuning
from index import earlier, files
from tests.index.tools import Rows, contents, fresh, planted, planted_vector, run


def records(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in sorted(folder.glob("store/c/runs/*/run.json"))]


def rows(first: int, count: int) -> Rows:
    return Rows({f"i{n}": f"a text with the number {n}" for n in range(first, first + count)})


def narrow(most: int) -> tuple[Any, list[int]]:
    """A planted encoder for which more than `most` texts do not fit, and the sizes that it was given."""
    encoder, sizes = planted(), list[int]()

    def forward(texts: list[str]) -> Any:
        sizes.append(len(texts))
        if len(texts) > most:
            raise MemoryError("Unable to allocate 8 GiB")
        return np.stack([planted_vector(text) for text in texts])

    assert encoder.text is not None
    return replace(encoder, text=replace(encoder.text, forward=forward)), sizes


def test_a_size_that_fits_is_kept_for_the_next_run(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    encoder, sizes = narrow(5)
    assert run(collection, rows(0, 300), encoder).embedded == 300
    assert max(sizes) > 5
    (record,) = records(tmp_path)
    assert (record["measured"], record["medium"], record["device"]) == (True, "text", "cpu")
    assert earlier.batch_size(collection, encoder, "text") == record["batch_size"]
    sizes.clear()
    assert run(collection, rows(300, 300), encoder).embedded == 300
    # golden inputs aside, nothing that cannot fit was tried again
    assert max(sizes) <= 5
    assert len(contents(collection, encoder.space)) == 600


def test_what_the_user_said_is_not_kept(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run(collection, rows(0, 20), batch_size=3)
    assert records(tmp_path)[0]["measured"] is False
    assert earlier.batch_size(collection, planted(), "text") is None


def test_a_measured_size_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuning, "SETTLE_S", 0.0)
    monkeypatch.setattr(tuning, "PAIRS", 1)
    # no challenger wins, so that it is settled after two of them, however the seconds fall
    monkeypatch.setattr(tuning, "GAIN", float("inf"))
    collection = fresh(tmp_path)
    run(collection, rows(0, 3000))
    found = records(tmp_path)[0]
    assert found["measured"] is True
    assert earlier.batch_size(collection, planted(), "text") == found["batch_size"]


def test_only_a_run_of_the_same_space_medium_and_device_counts(tmp_path: Path) -> None:
    collection = fresh(tmp_path)
    run(collection, rows(0, 5))
    home = tmp_path / "store/c/runs"
    record = {
        **{k: v for k, v in records(tmp_path)[0].items() if k != "crc32"}, "measured": True, "batch_size": 77,
    }  # fmt: skip
    (home / "99990101t000000-a").mkdir()
    place = home / "99990101t000000-a" / "run.json"
    files.write_json(place, record)
    assert earlier.batch_size(collection, planted(), "text") == 77
    assert earlier.batch_size(collection, planted(), "image") is None
    assert earlier.batch_size(collection, planted(salt="other"), "text") is None
    assert earlier.batch_size(collection, replace(planted(), device="cuda:0"), "text") is None
    assert earlier.batch_size(collection, replace(planted(), runtime="openvino"), "text") is None
    for size in (None, 0, "many"):
        files.write_json(place, {**record, "batch_size": size})
        assert earlier.batch_size(collection, planted(), "text") is None


@pytest.mark.parametrize("text", ["", "{", "[1]", "\x00"])
def test_a_damaged_record_is_passed_over(tmp_path: Path, text: str) -> None:
    collection = fresh(tmp_path)
    encoder, _ = narrow(5)
    run(collection, rows(0, 300), encoder)
    (tmp_path / "store/c/runs/99990101t000000-a").mkdir()
    (tmp_path / "store/c/runs/99990101t000000-a/run.json").write_text(text)
    assert earlier.batch_size(collection, encoder, "text") == records_valid(tmp_path)
    assert run(collection, rows(300, 5), encoder).embedded == 5


def records_valid(folder: Path) -> int:
    paths = sorted(folder.glob("store/c/runs/2*/run.json"))
    return int(json.loads(paths[0].read_text())["batch_size"])
