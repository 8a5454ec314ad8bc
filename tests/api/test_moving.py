"""Export, import and reembed at the doors: who says which Space, what is verified, and an alias that is swapped."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import permafrost as pf
from embedder.errors import Refused, SpaceMismatch, TooManyFailures, UnknownName, UsageError
from tests.api.conftest import NOTES, Run

CLIP = "hashing:32"


def write_table(path: Path, encoder: str, *, rename: str = "text") -> Path:
    texts = [f"a red boat number {n}" for n in range(12)]
    vectors = pf.Encoder(encoder).encode(texts)
    pq.write_table(pa.table({"id": [f"t{n}" for n in range(12)], rename: texts, "vector": vectors.tolist()}), path)
    return path


def test_what_is_exported_is_found_again_elsewhere(store: Path, tmp_path: Path, run: Run) -> None:
    for format in ("parquet", "npy", "arrow", "jsonl"):
        said = run("export", "pics", "--to", tmp_path / format, "--format", format, "--store", store, "--json")
        assert (said.code, said.json["rows"], said.json["format"]) == (0, 24, format)
        there = tmp_path / "other"
        said = run("import", tmp_path / format, "--into", f"c-{format}", "--store", there, "--json")
        assert (said.code, said.json["inserted"]) == (0, 24)
        here, other = pf.open(store).collection("pics"), pf.open(there).collection(f"c-{format}")
        picture = here.info()["roots"][""] + "/red/3.png"
        assert other.search(image=picture, k=5).ids == here.search(image=picture, k=5).ids
        assert other.search(id="red/3.png").scores.tolist() == here.search(id="red/3.png").scores.tolist()
        assert other.verify()["ok"]
    assert "exported 24 items" in run("export", "pics", "--to", tmp_path / "again", "--store", store).out
    assert "nothing new" in run("import", tmp_path / "again", "--into", "c-npy", "--store", there).out
    assert run("export", "pics", "--to", tmp_path / "again", "--store", store).code == 3


def test_a_space_must_be_said(store: Path, tmp_path: Path) -> None:
    table, notes = write_table(tmp_path / "t.parquet", CLIP), pf.open(store).collection("notes")
    with pytest.raises(UsageError, match="equal dimension is not equal Space"):
        notes.import_(table)
    with pytest.raises(UsageError, match="must be said, once"):
        notes.import_(table, encoder=CLIP, declare="x")
    with pytest.raises(UsageError, match="the vectors have 32 dimensions"):
        notes.import_(table, space="hashing:64")
    with pytest.raises(UnknownName, match="neither a file nor a Space"):
        notes.import_(table, space="hashing:65")
    with pytest.raises(UsageError, match="takes no 'vector_colum'"):
        notes.import_(table, vector_colum="vector")
    assert len(notes.info()["spaces"]) == 1


def test_an_encoder_is_compared_with_what_it_is_said_to_have_made(store: Path, tmp_path: Path) -> None:
    collection = pf.open(store).collection("new")
    done = collection.import_(write_table(tmp_path / "t.parquet", CLIP), encoder=CLIP, media="text")
    assert (done.inserted, done.verified["sampled"]) == (12, 12)
    assert done.verified["cosine"] >= 0.999
    assert collection.search("red boat number 7", k=1).ids == ["t7"]
    # the same length, another encoder: named with what was measured
    other = write_table(tmp_path / "other.parquet", f"{CLIP}?query_prompt=q%20&document_prompt=d%20")
    with pytest.raises(SpaceMismatch, match=r"the least cosine is 0\.\d+"):
        collection.import_(other, encoder=CLIP, media="text")
    hidden = write_table(tmp_path / "hidden.parquet", CLIP, rename="secret")
    with pytest.raises(Refused, match="no content of theirs can be reached"):
        collection.import_(hidden, encoder=CLIP, media="text", prefix="h-")
    shown = collection.import_(hidden, encoder=CLIP, media="text", prefix="h-", content_column="secret")
    assert shown.verified["sampled"] == 12
    trusted = collection.import_(hidden, encoder=CLIP, media="text", prefix="u-", unverified=True)
    assert (trusted.verified, trusted.inserted) == (None, 12)


def test_pictures_are_compared_by_their_files(store: Path, sources: Path, tmp_path: Path) -> None:
    names = [f"{colour}/{n}.png" for n in range(4) for colour in ("red", "green")]
    X, _, ids = pf.open(store).collection("pics").features()
    rows = [X[list(ids).index(name)].tolist() for name in names]
    for folder, order in (("good", rows), ("shuffled", rows[1:] + rows[:1])):
        table = pa.table({"path": [str(sources / "pics" / n) for n in names], "id": names, "vector": order})
        pq.write_table(table, tmp_path / f"{folder}.parquet")
    collection = pf.open(store).collection("new")
    done = collection.import_(tmp_path / "good.parquet", encoder="pixels:8")
    assert (done.verified["sampled"], done.inserted) == (8, 8)
    with pytest.raises(SpaceMismatch, match="does not make these vectors"):
        collection.import_(tmp_path / "shuffled.parquet", encoder="pixels:8")


def test_a_source_that_says_its_space_is_not_overruled(store: Path, tmp_path: Path) -> None:
    db = pf.open(store)
    db.collection("notes").export(tmp_path / "x")
    pf.open(store).collection("notes").embed("notes", encoder="hashing:64?document_prompt=note")
    other = next(s for s in db.collection("notes").info()["spaces"] if not s["default"])
    with pytest.raises(SpaceMismatch) as caught:
        db.collection("notes").import_(tmp_path / "x", space=other["fingerprint"])
    assert str(other["fingerprint"][:12]) in str(caught.value)
    assert "hashing:64," in str(caught.value)
    with pytest.raises(SpaceMismatch):
        db.collection("notes").import_(tmp_path / "x", declare="mine")
    same = db.collection("copy").import_(tmp_path / "x", space=str(tmp_path / "x" / "permafrost-export.json"))
    assert same.inserted == NOTES


def test_a_declared_space_answers_vectors_and_ids_but_no_texts(store: Path, tmp_path: Path, run: Run) -> None:
    matrix = np.random.default_rng(0).normal(size=(20, 16)).astype("float32")
    np.save(tmp_path / "m.npy", matrix)
    words = ("import", tmp_path / "m.npy", "--into", "d", "--store", store, "--prefix", "v", "--media", "text")
    assert run(*words).code == 2
    said = run(*words, "--declare", "a lab's model", "--json")
    assert (said.json["inserted"], said.json["encoder"], said.json["dim"]) == (20, "declared:a lab's model", 16)
    d = pf.open(store).collection("d")
    assert d.search(vector=matrix[7], k=1).ids == ["v7"]
    assert d.search(id="v7", k=1).ids != ["v7"]
    for act in (lambda: d.search("a boat"), lambda: d.reembed("declared:a lab's model")):
        with pytest.raises(UsageError, match="was declared: its vectors came ready"):
            act()
    assert run(*words, "--declare", "another", "--dim", "17").code == 2
    scaled = run(*words, "--declare", "unit", "--normalize", "--json").json
    assert (scaled["updated"], scaled["beside"] != []) == (20, True)


def test_failures_beyond_the_rate_end_with_four(store: Path, tmp_path: Path, run: Run) -> None:
    matrix = np.eye(10, 16, dtype="float32")
    matrix[4] = np.nan
    np.save(tmp_path / "m.npy", matrix)
    words = ("import", tmp_path / "m.npy", "--into", "d", "--store", store, "--prefix", "v", "--declare", "x", "--json")
    said = run(*words)
    assert (said.code, said.json["inserted"], said.json["reasons"]) == (4, 9, {"non_finite": 1})
    line = json.loads(Path(said.json["failures"]).read_text())
    assert (line["id"], line["reason"]) == ("v4", "non_finite")
    assert run(*words, "--max-failure-rate", "0.1").code == 0
    with pytest.raises(TooManyFailures):
        pf.open(store).collection("d").import_(tmp_path / "m.npy", declare="x", prefix="v")


def test_reembed_swaps_under_a_querying_thread_and_rolls_back(store: Path, run: Run) -> None:
    notes = pf.open(store).collection("notes")
    old = notes.info()["aliases"]["default"]
    seen: list[Any] = []
    stop = threading.Event()

    def ask() -> None:
        mine = pf.open(store).collection("notes")
        while not stop.is_set():
            try:
                hits = mine.search("a red boat", k=5)
                seen.append((hits.document.space, len(hits)))
            except Exception as error:  # noqa: BLE001
                seen.append(error)

    asking = threading.Thread(target=ask)
    asking.start()
    try:
        done = notes.reembed("hashing:128")
    finally:
        stop.set()
        asking.join()
    assert seen
    assert all(one in {(old, 5), (done.to, 5)} for one in seen)
    assert (done.swapped, done["from"], done.missing) == (True, old, 0)
    low, high = done.overlap["interval"]
    assert 0.3 < low <= done.overlap["mean"] <= high <= 1
    assert notes.search("boat").document.space == done.to
    again = run("reembed", "notes", "--encoder", "hashing:128", "--store", store)
    assert (again.code, "already" in again.err) == (2, True)
    assert f"is {old[:12]} again" in run("reembed", "notes", "--rollback", "--store", store).out
    assert notes.search("boat").document.space == old
    # what was embedded is still there: the second time nothing is made again
    back = run("reembed", "notes", "--encoder", "hashing:128", "--store", store, "--json").json
    assert (back["swapped"], back["runs"][0]["embedded"], back["runs"][0]["unchanged"]) == (True, 0, NOTES)


def test_gates_leave_the_alias_where_it_is(store: Path, run: Run) -> None:
    notes = pf.open(store).collection("notes")
    before = notes.info()["aliases"]
    words = ("reembed", "notes", "--encoder", "hashing:16", "--store", store, "--json")
    assert run(*words, "--dry-run").json["runs"][0]["skipped"] == NOTES
    assert len(notes.info()["spaces"]) == 1
    kept = run(*words, "--keep").json
    assert (kept["swapped"], kept["overlap"]["queries"]) == (False, NOTES)
    refused = run(*words, "--min-overlap", "1")
    assert (refused.code, refused.json["swapped"]) == (3, False)
    assert refused.json["overlap"] == kept["overlap"]
    assert "overlap@10" in refused.json["error"]["message"]
    assert notes.info()["aliases"] == before
    assert run("reembed", "notes", "--rollback", "--store", store).code == 2
    assert run(*words, "--alias", "Bad Name").code == 2


def test_items_that_cannot_be_reached_are_named_and_stop_the_swap(store: Path, tmp_path: Path, run: Run) -> None:
    from tests.api.conftest import COLOURS, picture, png, write_pictures

    pics = pf.open(store).collection("mine")
    folder = write_pictures(tmp_path / "pics", 3)
    pics.embed(folder, "pixels:8")
    pics.embed([{"id": "bytes", "image": png(picture(COLOURS["red"], 5))}], "pixels:8", prefix="from-")
    (folder / "red" / "1.png").unlink()
    words = ("reembed", "mine", "--encoder", "pixels:4", "--store", store, "--json")
    said = run(*words)
    assert (said.code, said.json["missing"], said.json["swapped"]) == (3, 2, False)
    reasons = {one["id"]: one["reason"] for one in said.json["missing_items"]}
    assert set(reasons) == {"red/1.png", "from-bytes"}
    assert "is gone" in reasons["red/1.png"]
    assert "its ids are the same" in reasons["from-bytes"]
    assert pics.info()["aliases"]["default"] == said.json["from"]
    allowed = run(*words, "--allow-missing")
    assert (allowed.code, allowed.json["swapped"], allowed.json["missing"]) == (0, True, 2)


def test_a_space_without_golden_vectors_is_asked_by_text_all_the_same(store: Path, tmp_path: Path) -> None:
    """Its fingerprint answers for it: an encoder of another Space is refused."""
    table = write_table(tmp_path / "t.parquet", CLIP)
    record = pf.Encoder(CLIP).space.as_json()
    (tmp_path / "space.json").write_text(json.dumps(record))
    new = pf.open(store).collection("new")
    assert new.import_(table, space=str(tmp_path / "space.json"), media="text").inserted == 12
    assert new.search("a red boat number 7", k=1).ids == ["t7"]
    (tmp_path / "space.json").write_text(json.dumps({**record, "dim": 33}))
    with pytest.raises(pf.PermafrostError, match="fields make"):
        new.import_(table, space=str(tmp_path / "space.json"), media="text")
