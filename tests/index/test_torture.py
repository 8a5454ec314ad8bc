"""The torture corpus from a folder into a store: a line of failures.jsonl for each bad file, all neighbours stored."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from embedder.sourcing import SourceOptions, open_source
from tests.embedder import corpus
from tests.embedder.sources import png
from tests.embedder.spy import Spy, of_texts
from tests.embedder.test_sources_webdataset import tar
from tests.index.tools import fresh, planted, run


def colours(pictures: Any) -> Any:
    """A vector for each prepared picture: its first six numbers, never zero. Golden texts have planted ones."""
    if isinstance(pictures[0], list):
        return of_texts(pictures)
    rows = np.stack([np.asarray(picture, dtype=np.float32).reshape(-1)[:6] for picture in pictures]) + 1
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def lines(found: Any) -> dict[str, dict[str, Any]]:
    """The failures of a run by id; fails where an id has two."""
    records = [json.loads(line) for line in Path(found.failures).read_text().splitlines()]
    assert len({record["id"] for record in records}) == len(records) == found.failed
    return {record["id"]: record for record in records}


def test_bad_pictures_are_a_line_each_and_all_others_are_stored(tmp_path: Path) -> None:
    folder = tmp_path / "pictures"
    folder.mkdir()
    cases = [case for group in (corpus.not_pictures, corpus.damaged, corpus.modes) for case in group()]
    for n, case in enumerate(cases):
        (folder / f"{n:03d}-bad.png").write_bytes(case.data)
        (folder / f"{n:03d}-good.png").write_bytes(png(f"neighbour {n}"))
    os.mkfifo(folder / "pipe.png")
    (folder / "zero.png").symlink_to("/dev/zero")
    (folder / "gone.png").symlink_to(folder / "nowhere")
    collection = fresh(tmp_path)
    found = run(collection, open_source(str(folder), SourceOptions(media="image")), Spy(colours).encoder)
    failed = lines(found)
    stored = set(collection.items.search().select(["id"]).to_arrow()["id"].to_pylist())
    assert stored.isdisjoint(failed)
    assert stored | set(failed) == set(os.listdir(folder))
    for n, case in enumerate(cases):
        assert f"{n:03d}-good.png" in stored, case.name
        record = failed.get(f"{n:03d}-bad.png")
        assert (record["reason"] if record else corpus.GOOD) in case.outcome, case.name
        assert record is None or record["stage"] == "decode", case.name
    assert {failed[name]["stage"] for name in ("pipe.png", "zero.png")} == {"read"}
    assert failed["gone.png"]["reason"] == "missing"


def test_bad_rows_and_a_cut_shard_are_a_line_each_and_all_others_are_stored(tmp_path: Path) -> None:
    bad = ['{"id": "x"', '{"id": "nan", "text": NaN}', '{"id": "blank", "text": " "}', "[" * 100_000]
    good = [json.dumps({"id": f"g{n}", "text": f"text {n}"}) for n in range(len(bad) + 1)]
    rows = tmp_path / "rows.jsonl"
    rows.write_text("\n".join(line for pair in zip(good, [*bad, ""], strict=True) for line in pair))
    collection = fresh(tmp_path)
    found = run(collection, open_source(str(rows)), planted())
    assert sorted(record["reason"] for record in lines(found).values()) == ["bad_json"] * 3 + ["empty_text"]
    assert collection.count() == len(good)

    shards = tmp_path / "shards"
    shards.mkdir()
    whole = tar(shards / "a.tar", [(f"k{n}.txt", b"words %d" % n) for n in range(9)])
    whole.write_bytes(whole.read_bytes()[: 1024 * 5 + 515])
    tar(shards / "b.tar", [("z.txt", b"behind it")])
    collection = fresh(tmp_path / "second")
    found = run(collection, open_source(str(shards), SourceOptions(media="text")), planted())
    assert [record["reason"] for record in lines(found).values()] == ["shard_incomplete"]
    ids = set(collection.items.search().select(["id"]).to_arrow()["id"].to_pylist())
    assert {"a/k0", "a/k4", "b/z"} <= ids
    assert len(ids) == 6
