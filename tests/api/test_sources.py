"""Every sort of source through the command line, with a broken member in each; then again, when nothing is new."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

import permafrost as pf
from api.service import Service
from api.settings import Settings
from embedder import golden
from embedder.encoder import Encoder
from index import inspect
from tests.api.conftest import Run, picture, png
from tests.embedder.test_sources_huggingface import pictures as hugging
from tests.embedder.test_sources_remote import memory
from tests.embedder.test_sources_webdataset import tar

N = 6
BROKEN = b"no picture"


def bytes_of(n: int) -> bytes:
    return BROKEN if n == N - 1 else png(picture((200, 30, 20), n))


def folder(at: Path) -> str:
    for n in range(N):
        (at / f"{n}.png").write_bytes(bytes_of(n))
    return str(at)


def csv(at: Path) -> str:
    folder(at)
    (at / "t.csv").write_text("image\n" + "".join(f"{n}.png\n" for n in range(N)))
    return str(at / "t.csv")


def arrow(at: Path) -> str:
    table = pa.table({"image": [bytes_of(n) for n in range(N)]})
    with pa.ipc.new_file(at / "t.arrow", table.schema) as out:
        out.write_table(table)
    return str(at / "t.arrow")


def shards(at: Path) -> str:
    for n in range(N):
        tar(at / f"s{n}.tar", [(f"{n}.png", bytes_of(n)), (f"{n}.json", b'{"n": 1}')])
    return str(at / "s{0..5}.tar")


def cut_shard(at: Path) -> str:
    path = tar(at / "s.tar", [(f"{n}.png", bytes_of(n % 3)) for n in range(N)])
    path.write_bytes(path.read_bytes()[:-10_000])
    tar(at / "t.tar", [("x.png", bytes_of(0))])
    return str(at)


def in_memory(at: Path) -> str:
    for n in range(N):
        memory(at, f"{n}.png", bytes_of(n))
    return f"memory://{at}"


def data_set(at: Path) -> str:
    return hugging(at, [f"w{n}" for n in range(N - 1)], True)


SOURCES: list[Callable[[Path], str]] = [folder, csv, arrow, shards, in_memory, data_set]


@pytest.mark.parametrize("make", SOURCES, ids=lambda make: make.__name__)
def test_every_good_item_is_stored_and_the_broken_one_named(run: Run, tmp_path: Path, make: Any) -> None:
    (tmp_path / "source").mkdir()
    words = ("--store", tmp_path / "s", "embed", make(tmp_path / "source"), "--into", "c", "--encoder", "pixels:8")
    first = run(*words, "--max-failure-rate", "0.5", "--json")
    assert first.code == 0, first.err
    assert (first.json["found"], first.json["embedded"], first.json["failed"]) == (N, N - 1, 1)
    lines = [json.loads(line) for line in Path(first.json["failures"]).read_text().splitlines()]
    assert len(lines) == 1
    again = run(*words, "--max-failure-rate", "0.5", "--json")
    assert (again.json["embedded"], again.json["unchanged"], again.json["failed"]) == (0, N - 1, 1)
    collection = Service(Settings(store=str(tmp_path / "s"))).collection("c")
    assert inspect.verify(collection).problems == []


def test_nothing_kept_of_shards_says_why_and_exits_2(run: Run, tmp_path: Path) -> None:
    path = tar(tmp_path / "s.tar", [(f"{n}.json", b"{}") for n in range(10)])
    said = run("--store", tmp_path / "s", "embed", path, "--into", "c", "--encoder", "pixels:8", "--media", "image")
    assert said.code == 2
    assert "0 of 10 samples have an image" in said.err
    assert "they have .json" in said.err


def test_a_cut_shard_costs_what_was_cut_and_the_others_go_on(run: Run, tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    source = cut_shard(tmp_path / "d")
    said = run("--store", tmp_path / "s", "embed", source, "--into", "c", "--encoder", "pixels:8", "--json")
    assert said.code == 4
    (reason,) = said.json["reasons"]
    assert reason == "read: shard_incomplete"
    assert said.json["embedded"] >= 2


def test_items_at_an_address_are_embedded_with_one_more_encoder(run: Run, tmp_path: Path) -> None:
    words = ("--store", tmp_path / "s", "embed", in_memory(tmp_path), "--into", "c", "--max-failure-rate", "1")
    run(*words, "--encoder", "pixels:8")
    said = run("--store", tmp_path / "s", "embed", "c", "--into", "c", "--encoder", "pixels:4", "--json")
    assert (said.json["found"], said.json["embedded"]) == (N - 1, N - 1)


def test_remote_bytes_that_are_stored_already_are_not_encoded_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written again unchanged, and named by a table that knows no times."""
    source = in_memory(tmp_path)
    table = memory(tmp_path, "t.csv", b"image\n0.png\n1.png\n")
    words = ("--store", tmp_path / "s", "embed")
    more = ("--into", "c", "--encoder", "pixels:8", "--max-failure-rate", "1", "--json")
    run(*words, source, *more)
    run(*words, table, *more, "--prefix", "t/")
    in_memory(tmp_path)
    passes: list[int] = []
    forward = Encoder.forward
    monkeypatch.setattr(Encoder, "forward", lambda *a: passes.append(len(a[2])) or forward(*a))
    again = run(*words, source, *more).json
    assert (again["unchanged"], again["embedded"]) == (N - 1, 0)
    assert run(*words, table, *more, "--prefix", "t/").json["unchanged"] == 2
    # the golden pictures of each load, and nothing else
    assert sum(passes) == 2 * len(golden.pictures())


def test_items_that_came_as_bytes_say_where_to_take_them_from(run: Run, tmp_path: Path) -> None:
    run("--store", tmp_path / "s", "embed", shards(tmp_path), "--into", "c", "--encoder", "pixels:8")
    said = run("--store", tmp_path / "s", "embed", "c", "--into", "c", "--encoder", "pixels:4")
    failures = next((tmp_path / "s").rglob("runs/*/failures.jsonl"))
    assert said.code == 2
    assert any("embed that again" in path.read_text() for path in failures.parents[1].rglob("failures.jsonl"))


def test_values_of_a_program_are_embedded_once(tmp_path: Path) -> None:
    notes = pf.open(tmp_path / "s").collection("notes")
    rows = [{"id": f"n{n}", "text": f"note {n}", "year": 2000 + n} for n in range(20)]
    assert notes.embed(rows, encoder="hashing:64")["embedded"] == 20
    more = notes.embed(({"id": f"n{n}", "text": f"note {n}", "year": 2000 + n} for n in range(10, 30)), "hashing:64")
    assert (more["found"], more["embedded"], more["unchanged"]) == (20, 10, 10)
    assert notes.search("note 25", where="year = 2025").ids == ["n25"]
    photos = pf.open(tmp_path / "s").collection("photos")
    pictures = [(str(n), Image.fromarray(np.full((8, 8, 3), 40 * n, np.uint8))) for n in range(5)]
    assert photos.embed(pictures, encoder=["pixels:8", "pixels:4"])["embedded"] == 5
    assert photos.embed(pictures, encoder="pixels:8")["unchanged"] == 5
    with pytest.raises(pf.UsageError, match="only once"):
        photos.embed(iter(pictures), encoder=["pixels:8", "pixels:4"])


def test_chunks_from_the_command_line_and_the_door(run: Run, tmp_path: Path) -> None:
    long = " ".join(f"word{n}" for n in range(200))
    (tmp_path / "t.jsonl").write_text(
        "".join(json.dumps({"id": id, "text": text}) + "\n" for id, text in [("long", long), ("short", "a boat")])
    )
    words = ("--store", tmp_path / "s", "embed", tmp_path / "t.jsonl", "--into", "c", "--encoder", "hashing:64")
    said = run(*words, "--chunk", "64:8", "--json")
    assert (said.json["embedded"], said.json["encoder"]) == (2, "hashing:64?chunk=64:8")
    assert run(*words, "--chunk", "64:8", "--json").json["unchanged"] == 2
    notes = pf.open(tmp_path / "s").collection("c")
    (space,) = notes.info()["spaces"]
    assert space["vectors"] == 2
    assert space["parts"] > 10
    assert notes.search("word150 word151 word152", k=2).ids == ["long", "short"]
    plain = notes.embed(tmp_path / "t.jsonl", encoder="hashing:64")
    assert plain["space"] != said.json["space"]
    # without parts, words so far behind are drowned; with them, their part is near
    whole = notes.search("word150 word151 word152", k=2, space="hashing:64")
    parts = notes.search("word150 word151 word152", k=2, space="hashing:64?chunk=64:8")
    assert parts.scores[0] > whole.scores[0]
    assert notes.embed("c", encoder="hashing:64", chunk="32")["embedded"] == 2
    for bad in ("0", "x"):
        assert run(*words, "--chunk", bad).code == 2
