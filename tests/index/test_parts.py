"""Items of several vectors: stored whole, resumed exactly, and ranked by their best part as brute force ranks them."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lancedb import col, lit

from embedder.chunking import Chunking, Splitter
from embedder.encoder import Encoder
from embedder.errors import PermafrostError
from embedder.records import Decoded, FloatMatrix, Item
from index import build, commit, inspect
from index.features import features
from index.known import KeySet, Known
from index.search import search
from index.store import Collection, Store
from tests.index.tools import DIM, Rows, fresh, planted, planted_vector, run, view

MAX_PARTS = 60
WRITER = """
import sys, time
import embedder.extract, index.ingest
from index import files
from index.store import Store
from tests.index.test_parts import cutting, many
from tests.index.tools import Rows, run
embedder.extract.WINDOW = 8
index.ingest.COMMIT_ROWS = 64
files.fault = lambda point: time.sleep(0.02)
collection = Store.open(sys.argv[1], create=True).collection("c", create=True)
print("ready", flush=True)
print("done", run(collection, Rows(many(120)), cutting()).embedded, flush=True)
"""


def cutting(tokens: int = 4) -> Encoder:
    """Planted vectors, one for each `tokens` words; a Space of its own."""
    plain = planted()
    assert plain.text is not None
    tower = replace(plain.text, tokenize=lambda text, role: text, length=lambda text: len(text.split()))
    split = Splitter(Chunking(tokens + 1), tower.length, "here")
    split.tokens = tokens
    identity = {**plain.space.identity, "text": {"chunk": {"tokens": tokens}}}
    return replace(plain, space=replace(plain.space, identity=identity), text=replace(tower, split=split))


def many(n: int, seed: int = 0) -> dict[str, str]:
    """Texts of 1 to 60 parts each."""
    draw = random.Random(seed)
    return {f"i{k}": " ".join(f"w{seed}x{k}x{j}" for j in range(draw.randint(1, 4 * MAX_PARTS))) for k in range(n)}


def parts_of(text: str) -> FloatMatrix:
    """The vectors of a text's parts, from its definition."""
    words = text.split()
    rows = np.stack([planted_vector(" ".join(words[a : a + 4])) for a in range(0, len(words), 4)])
    # the encoder scales to unit length again, in single precision
    return np.asarray(rows / np.linalg.norm(rows, axis=1)[:, None], dtype=np.float32)


def stored(collection: Collection) -> dict[str, list[tuple[int, bytes]]]:
    """The parts of every live item, in order."""
    items = {r["key"]: r["id"] for r in collection.items.search().to_arrow().to_pylist()}
    found: dict[str, list[tuple[int, bytes]]] = {}
    for row in collection.vectors(cutting().space).search().to_arrow().to_pylist():
        if items.get(row["key"]) is not None:
            assert items[row["key"]] == row["id"]
            found.setdefault(row["id"], []).append((row["part"], np.asarray(row["vector"], "<f4").tobytes()))
    return {id: sorted(rows) for id, rows in found.items()}


def expected(texts: dict[str, str]) -> dict[str, list[tuple[int, bytes]]]:
    return {id: [(n, row.tobytes()) for n, row in enumerate(parts_of(text))] for id, text in texts.items()}


def filled(folder: Path, texts: dict[str, str], **more: Any) -> Collection:
    collection = fresh(folder)
    run(collection, Rows(texts, **more), cutting())
    return collection


def ranked(texts: dict[str, str], query: FloatMatrix, k: int) -> list[str]:
    unit = query.astype(np.float64) / np.linalg.norm(query.astype(np.float64))
    best = {id: float((parts_of(text).astype(np.float64) @ unit).max()) for id, text in texts.items()}
    return sorted(best, key=lambda id: -best[id])[:k]


def test_every_part_is_stored_once_under_its_item_s_key(tmp_path: Path) -> None:
    texts = many(40)
    collection = filled(tmp_path, texts)
    assert stored(collection) == expected(texts)
    again = run(collection, Rows(texts), cutting())
    assert (again.embedded, again.unchanged) == (0, 40)
    assert stored(collection) == expected(texts)
    assert inspect.verify(collection).problems == []
    (space,) = inspect.describe(collection)["spaces"]
    assert (space["vectors"], space["parts"]) == (40, sum(map(len, expected(texts).values())))


def test_a_changed_text_has_the_parts_of_its_new_content_only(tmp_path: Path) -> None:
    texts = many(10)
    collection = filled(tmp_path, texts)
    texts["i3"] = "now it is short"
    assert run(collection, Rows(texts), cutting()).embedded == 1
    assert stored(collection) == expected(texts)


@pytest.mark.parametrize("where", [None, "n < 12"])
@pytest.mark.parametrize("indexed", ["none", "flat", "faiss_hnsw", "part of it"])
def test_search_equals_brute_force_over_the_best_parts(tmp_path: Path, indexed: str, where: str | None) -> None:
    texts = many(60)
    # one item whose many parts are all near the first query: alone they would fill every candidate
    texts["crowd"] = " ".join("same words come again" for _ in range(400))
    values = {id: {"n": n} for n, id in enumerate(texts)}
    collection = filled(tmp_path, texts, columns=values, types={"n": "int"})
    if indexed != "none":
        kind = "flat" if indexed == "part of it" else indexed
        build.build(collection, cutting().space, kind=kind, recall=0.0)
    if indexed == "part of it":
        more = many(20, seed=1)
        texts |= {f"late{id}": text for id, text in more.items()}
        values = {id: {"n": n} for n, id in enumerate(texts)}
        run(collection, Rows(texts, columns=values, types={"n": "int"}), cutting())
    kept = {id: text for id, text in texts.items() if where is None or values[id]["n"] < 12}
    queries = np.stack([planted_vector("same words come again"), *(planted_vector(f"q{n}") for n in range(5))])
    for k in (1, 10, 1000):
        answers = search(view(collection), queries, k=k, where=where, exact=indexed == "faiss_hnsw")
        for query, answer in zip(queries, answers, strict=True):
            assert [hit.id for hit in answer.hits] == ranked(kept, query, k)


def test_an_approximate_index_answers_k_items_where_there_are_k(tmp_path: Path) -> None:
    texts = many(30) | {"crowd": " ".join("same words come again" for _ in range(300))}
    collection = filled(tmp_path, texts)
    build.build(collection, cutting().space, kind="faiss_hnsw", recall=0.0)
    answer = search(view(collection), planted_vector("same words come again")[None], k=31)[0]
    # the graph had too few items among its parts, so every vector was scored, and the answer says so
    assert (answer.index, answer.exact) == ("flat", True)
    assert sorted(hit.id for hit in answer.hits) == sorted(texts)


def test_heads_and_a_query_by_id_read_the_mean_of_the_parts(tmp_path: Path) -> None:
    texts = many(12)
    collection = filled(tmp_path, texts)
    read = features(collection, cutting().space)
    for id, row in zip(read.ids, read.X, strict=True):
        assert np.allclose(row, parts_of(texts[id]).mean(axis=0), atol=1e-6)
        assert np.allclose(view(collection).vector_of(id)[0], row, atol=1e-6)


@pytest.mark.parametrize("part", [0, 2])
def test_verify_names_an_item_that_lacks_a_part_and_mend_makes_it_whole(tmp_path: Path, part: int) -> None:
    texts = {"a": "w " * 20, "b": "one two", "c": "w " * 9}
    collection = filled(tmp_path, texts)
    collection.vectors(cutting().space).delete((col("id") == lit("a")) & (col("part") == lit(part)))
    verdict = inspect.verify(collection)
    assert {p.id for p in verdict.problems} == {"a"}
    inspect.mend(collection, verdict)
    assert run(collection, Rows(texts), cutting()).embedded == 1
    assert stored(collection) == expected(texts)
    assert inspect.verify(collection).problems == []


@pytest.mark.parametrize("counts", [[1, 1], [3, 0], [2], [4, -1]])
def test_counts_that_do_not_fit_the_rows_are_refused(tmp_path: Path, counts: list[int]) -> None:
    collection = filled(tmp_path, {"a": "x"})
    known = Known.read(collection, cutting().space)
    batch = [Decoded(Item(id, "text", "s", text=id), id, id, 1) for id in ("b", "c")]
    with pytest.raises(PermafrostError, match="a batch of 2 items"):
        commit.commit(collection, cutting().space, known, batch, np.ones((3, DIM), dtype=np.float32), counts)


def test_a_killed_run_resumes_to_the_same_parts(tmp_path: Path) -> None:
    draw = random.Random(5)
    kills = 0
    for _ in range(3):
        command = [sys.executable, "-c", WRITER, str(tmp_path / "store")]
        writer = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert writer.stdout is not None
        assert writer.stdout.readline() == "ready\n"
        time.sleep(draw.uniform(0.1, 1.2))
        writer.send_signal(signal.SIGKILL)
        kills += "done" not in writer.communicate()[0]
    collection = Store.open(tmp_path / "store").collection("c")
    already = KeySet.read(collection, cutting().space).keys if collection.spaces() else set()
    last = run(collection, Rows(many(120)), cutting())
    assert kills >= 1, "no run was caught alive; the moments are too late"
    assert last.unchanged == len(already)
    assert stored(collection) == expected(many(120))
    assert inspect.verify(collection).problems == []
