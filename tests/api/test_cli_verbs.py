"""Each verb: what it does, the keys of its document, and what people read."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.store import Store
from tests.api.conftest import COLOURS, NOTES, PER_COLOUR, Run, picture, png, write_notes, write_pictures

PICTURES = len(COLOURS) * PER_COLOUR
KEYS = {
    "embed": {
        "run", "space", "found", "embedded", "unchanged", "failed", "failures", "seconds", "items_per_second", "stages",
        "bottleneck", "advice", "batch_size", "batch_of", "measured",
    },
    "search": {"collection", "space", "exact", "index", "took_ms", "hits", "metric"},
    "index": {"index", "kind", "recall_at_10", "p50_ms", "bytes", "build_seconds", "considered"},
    "train": {
        "head", "version", "kind", "space", "label", "classes", "n_train", "n_test", "metrics", "seconds",
    },
}  # fmt: skip


def embed(run: Run, store: Path, source: Any, *more: Any) -> Any:
    return run("--store", store, "embed", source, "--json", *more)


def test_embed_tells_what_became_of_every_item_and_does_nothing_twice(run: Run, sources: Path, tmp_path: Path) -> None:
    words = (sources / "notes.csv", "--into", "notes", "--encoder", "hashing:64")
    first = embed(run, tmp_path / "s", *words)
    assert first.code == 0
    assert first.json.keys() >= KEYS["embed"]
    assert (first.json["batch_of"], first.json["measured"], first.json["advice"]) == ("tokens", False, None)
    assert (first.json["found"], first.json["embedded"], first.json["dim"]) == (NOTES, NOTES, 64)
    again = embed(run, tmp_path / "s", *words)
    assert (again.json["embedded"], again.json["unchanged"], again.json["bottleneck"]) == (0, NOTES, None)
    read = run("--store", tmp_path / "s", "embed", *words)
    assert read.out.startswith(f"nothing new for notes: {NOTES} items unchanged")


def test_embed_for_people_says_space_speed_and_bottleneck(run: Run, sources: Path, tmp_path: Path) -> None:
    said = run("--store", tmp_path / "s", "embed", sources / "pics", "--into", "pics", "--encoder", "pixels:8")
    assert said.out.startswith(f"embedded {PICTURES} items into pics in ")
    space = Store.open(tmp_path / "s").collection("pics").space()
    assert f"{space.short}  192-d  pixels:8" in said.out
    assert "items/s: " in said.out
    assert "is the bottleneck" in said.out
    assert "  batch    8 pictures, as it was set" in said.out.splitlines()
    assert all(len(line) <= 80 for line in said.out.splitlines() if "see" not in line)
    assert f"embed {PICTURES}/{PICTURES}" in said.err.splitlines()[-1]
    assert "\r" not in said.err


def test_embed_counts_failures_by_reason_and_exits_4(run: Run, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pics")
    (pictures / "red" / "broken.png").write_bytes(b"no picture")
    words = (pictures, "--into", "pics", "--encoder", "pixels:8")
    said = embed(run, tmp_path / "s", *words)
    assert said.code == 4
    assert (said.json["embedded"], said.json["failed"], said.json["error"]["exit_code"]) == (PICTURES, 1, 4)
    (line,) = Path(said.json["failures"]).read_text().splitlines()
    assert json.loads(line)["id"] == "red/broken.png"
    read = run("--store", tmp_path / "s", "embed", *words)
    assert read.code == 4
    assert "failures.jsonl" in read.out
    assert "1 of 25 items failed, 1.00% are allowed" in read.err
    assert embed(run, tmp_path / "s", *words, "--max-failure-rate", "0.05").code == 0


def test_embed_of_nothing_exits_2(run: Run, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    said = embed(run, tmp_path / "s", tmp_path / "empty", "--into", "c", "--encoder", "pixels:8")
    assert said.code == 2
    assert said.json["error"]["type"] == "nothing_to_do"
    assert embed(run, tmp_path / "s", tmp_path / "missing", "--into", "c", "--encoder", "pixels:8").code == 2


def test_a_dry_run_counts_and_writes_nothing(run: Run, store: Path, tmp_path: Path) -> None:
    notes = write_notes(tmp_path / "notes.csv", NOTES + 5)
    known = embed(run, store, notes, "--into", "notes", "--encoder", "hashing:64", "--dry-run")
    assert (known.json["skipped"], known.json["unchanged"]) == (5, NOTES)
    new = embed(run, tmp_path / "none", notes, "--into", "new", "--encoder", "hashing:64", "--dry-run")
    assert new.json["skipped"] == NOTES + 5
    assert not (tmp_path / "none").exists()
    assert run("--store", store, "ls", "--json").json["collections"][0]["items"] == NOTES


def test_embed_takes_limit_where_prefix_rename_and_two_encoders(run: Run, sources: Path, tmp_path: Path) -> None:
    said = embed(
        run, tmp_path / "s", sources / "notes.csv", "--into", "notes", "--encoder", "hashing:64",
        "--encoder", "hashing:32", "--where", "born >= 2010", "--limit", "7", "--prefix", "p/", "--rename", "year=born",
    )  # fmt: skip
    assert [r["dim"] for r in said.json["runs"]] == [64, 32]
    rows = Store.open(tmp_path / "s").collection("notes").items.search().to_arrow().to_pylist()
    assert sorted(r["id"] for r in rows) == sorted(f"p/n{i}" for i in range(10, 17))
    assert {r["born"] for r in rows} == set(range(2010, 2017))


def test_embed_prunes_and_relocates_when_told_to(run: Run, tmp_path: Path) -> None:
    pictures = write_pictures(tmp_path / "pics")
    words = ("--into", "pics", "--encoder", "pixels:8")
    embed(run, tmp_path / "s", pictures, *words)
    (pictures / "red" / "0.png").unlink()
    assert embed(run, tmp_path / "s", pictures, *words, "--prune").json["pruned"] == 1
    moved = Path(shutil.move(pictures, tmp_path / "moved"))
    assert embed(run, tmp_path / "s", moved, *words).code == 2
    assert embed(run, tmp_path / "s", moved, *words, "--relocate").json["embedded"] == 0


def test_a_collection_is_a_source_for_one_more_encoder(run: Run, store: Path) -> None:
    said = embed(run, store, "notes", "--into", "notes", "--encoder", "hashing:32")
    assert said.json["embedded"] == NOTES
    assert len(run("--store", store, "info", "notes", "--json").json["spaces"]) == 2


@pytest.mark.parametrize("way", ["text", "id", "vector", "image"])
def test_search_finds_by_text_picture_item_and_vector(run: Run, built: Path, tmp_path: Path, way: str) -> None:
    store = Store.open(built)
    notes = store.collection("notes")
    (tmp_path / "q.png").write_bytes(png(picture(COLOURS["blue"], 999)))
    row = notes.vectors(notes.space()).search().to_arrow().to_pylist()[0]
    np.save(tmp_path / "v.npy", np.array(row["vector"], dtype=np.float32))
    words = {
        "text": ("notes", "a red boat"), "id": ("notes", "--id", "n1"),
        "vector": ("notes", "--vector", tmp_path / "v.npy"),
        "image": ("pics", "--image", tmp_path / "q.png"),
    }[way]  # fmt: skip
    found = run("--store", built, "search", *words, "-k", "3", "--json").json
    assert found.keys() >= KEYS["search"]
    scores = [hit["score"] for hit in found["hits"]]
    assert len(scores) == 3
    assert scores == sorted(scores, reverse=True)
    labels = {hit["item"]["label"] for hit in found["hits"]}
    if way == "vector":
        assert found["hits"][0]["id"] == row["id"]
    elif way == "id":
        assert labels == {"money"}
        assert "n1" not in [hit["id"] for hit in found["hits"]]
    else:
        assert labels == {"boat" if way == "text" else "blue"}


def test_search_for_people_is_one_line_a_hit_and_a_note_beside(run: Run, built: Path) -> None:
    said = run("--store", built, "search", "notes", "a red boat", "-k", "2", "--where", "year < 2010")
    assert len(said.out.splitlines()) == 2
    assert all("label=boat" in line for line in said.out.splitlines())
    assert said.err.startswith("2 hits in 10 of 40 by cosine, exact, ")


@pytest.mark.parametrize(
    ("words", "code", "what"),
    [
        (["notes"], 2, "nothing was given"),
        (["notes", "a", "--id", "n1"], 2, "text, id was given"),
        (["nots", "a"], 2, "did you mean notes?"),
        (["notes", "--id", "n999"], 2, "no item has the id 'n999'"),
        (["notes", "a", "--where", "yeer > 2"], 2, "did you mean year?"),
        (["notes", "a", "--where", "year >"], 2, "error: "),
        (["notes", "a", "--space", "abc"], 2, "no Space is called 'abc'"),
        (["notes", "--vector", "missing.npy"], 2, "missing.npy is not a .npy file"),
        (["pics", "a red picture"], 2, "does not read texts"),
        (["pics", "--image", "missing.png"], 1, "missing.png"),
    ],
)
def test_searches_that_cannot_be_answered(run: Run, built: Path, words: list[str], code: int, what: str) -> None:
    said = run("--store", built, "search", *words)
    assert said.code == code
    assert what in said.err
    assert said.out == ""


def test_ls_and_info_tell_what_is_there(run: Run, built: Path) -> None:
    listed = run("--store", built, "ls", "--json").json["collections"]
    assert [(c["name"], c["items"]) for c in listed] == [("notes", NOTES), ("pics", PICTURES)]
    assert [h["head"] for h in listed[0]["heads"]] == ["subject"]
    assert f"notes  {NOTES} items" in run("--store", built, "ls").out
    info = run("--store", built, "info", "notes", "--json").json
    assert info["columns"]["year"] == "int"
    assert info["spaces"][0]["vectors"] == NOTES
    read = run("--store", built, "info", "notes").out
    assert "(default)" in read
    assert "year int" in read
    assert "subject@1" in read


def test_ls_of_an_empty_store_says_what_to_do(run: Run, tmp_path: Path) -> None:
    Store.open(tmp_path / "s", create=True)
    said = run("--store", tmp_path / "s", "ls")
    assert (said.code, said.out) == (0, "")
    assert "permafrost embed" in said.err
    assert run("--store", tmp_path / "none", "ls").code == 2


def test_index_builds_and_refuses_what_misses_its_targets(run: Run, store: Path) -> None:
    built = run("--store", store, "index", "notes", "--kind", "flat", "--memory", "1MiB", "--json")
    assert built.json.keys() >= KEYS["index"]
    assert built.json["recall_at_10"] == 1.0
    assert "notes: flat over 40 rows" in run("--store", store, "index", "notes").out
    assert run("--store", store, "index", "notes", "--memory", "10b").code == 3
    assert run("--store", store, "index", "notes", "--latency", "0.0001us").code == 3
    assert "flat" in run("--store", store, "index", "notes", "--kind", "flt").err


def test_index_shows_what_it_considered_and_takes_arguments_by_hand(run: Run, store: Path) -> None:
    chosen = run("--store", store, "index", "notes", "--latency", "10s", "--recall", "0.5").out.splitlines()
    table = [line.split() for line in chosen[[line.split()[0] for line in chosen].index("considered") + 1 :]]
    assert {"flat", "faiss_hnsw", "faiss_pq_fs"} <= {row[0] for row in table}
    assert [row[0] for row in table if row[-1] == "taken"] == [chosen[0].split()[1]]
    by_hand = ("--store", store, "index", "notes", "--kind", "faiss_hnsw", "--recall", "0.5")
    assert run(*by_hand, "--set", "links=9", "--set", "ef_search=44", "--json").json["args"]["links"] == 9
    wrong = run(*by_hand, "--set", "link=9")
    assert (wrong.code, "did you mean links" in wrong.err) == (2, True)
    assert "takes int values" in run(*by_hand, "--set", "links=few").err
    assert run("--store", store, "index", "notes", "--set", "links=9").code == 2


def test_train_and_classify(run: Run, store: Path, tmp_path: Path) -> None:
    trained = run("--store", store, "train", "pics", "--label", "label", "--name", "hue", "--json").json
    assert trained.keys() >= KEYS["train"]
    assert (trained["head"], trained["version"], trained["classes"]) == ("hue", 1, sorted(COLOURS))
    (tmp_path / "new.png").write_bytes(png(picture(COLOURS["green"], 77)))
    found = run("--store", store, "classify", "pics/hue@1", tmp_path / "new.png", "--id", "blue/0.png", "--json").json
    assert [r["label"] for r in found["results"]] == ["green", "blue"]
    assert [r["id"] for r in found["results"]] == [None, "blue/0.png"]
    assert sum(found["results"][0]["probabilities"].values()) == pytest.approx(1)
    read = run("--store", store, "classify", "pics/hue", tmp_path / "new.png", "-k", "1")
    assert read.out.split()[1] == "green"
    assert read.err.startswith("pics/hue@1, space ")
    assert found["results"][0].keys() >= {"prediction_set", "abstained", "domain"}


def test_train_says_what_a_tired_engineer_needs(run: Run, store: Path) -> None:
    words = ("--coverage", "0.8", "--max-risk", "0.3", "--group-column", "year", "--no-controls")
    said = run("--store", store, "train", "notes", "--label", "label", *words)
    assert said.code == 0
    for part in ("accuracy", "majority", "calibration", "80% asked", "abstains", "next", "classify notes/label"):
        assert part in said.out
    assert run("--store", store, "train", "notes", "--label", "label", "--coverage", "1.5").code == 2
    full = run("--store", store, "train", "pics", "--label", "label").out
    assert "shuffled labels" in full
    assert "10 neighbours" in full


def test_a_wrong_label_is_listed_and_settled_once_it_is_set(run: Run, store: Path) -> None:
    assert run("--store", store, "label", "notes", "--id", "n4", "--set", "label=money").code == 0
    assert run("--store", store, "train", "notes", "--label", "label", "--name", "doubt").code == 0
    listed = run("--store", store, "label-errors", "notes/doubt", "--json").json
    assert [(e["id"], e["given"], e["suggested"]) for e in listed["errors"]] == [("n4", "money", "boat")]
    assert len(listed["errors"][0]["like"]) == 3
    read = run("--store", store, "label-errors", "notes/doubt", "--limit", "1")
    assert "n4" in read.out
    assert "hard or mislabelled" in read.err
    run("--store", store, "label", "notes", "--id", "n4", "--set", "label=boat")
    done = run("--store", store, "label-errors", "notes/doubt")
    assert "no label is doubted" in done.out
    assert "1 more were relabelled" in done.err
    assert "stale" in done.err
    assert run("--store", store, "label-errors", "notes").code == 2


def test_an_encoder_that_cannot_be_had_leaves_no_empty_collection(run: Run, store: Path, sources: Path) -> None:
    said = run("--store", store, "embed", sources / "pics", "--into", "new", "--encoder", "timm:local-dir:/nowhere")
    assert said.code == 1
    assert "new" not in [row["name"] for row in run("--store", store, "ls", "--json").json["collections"]]


def test_a_head_of_another_space_is_refused_and_both_are_named(run: Run, store: Path, sources: Path) -> None:
    assert run("--store", store, "embed", "pics", "--into", "pics", "--encoder", "hashing:64").code == 0
    said = run("--store", store, "classify", "pics/colour", "--id", "red/0.png", "--space", "hashing:64")
    assert said.code == 3
    assert "hashing:64" in said.err
    assert "pixels:8" in said.err
    assert run("--store", store, "classify", "pics/colour", "--id", "red/0.png", "--space", "pixels:8").code == 0


def test_classify_reads_words_and_files_as_what_they_are(run: Run, built: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the stock market fell")
    found = run(
        "--store", built, "classify", "notes/subject", "a red boat on the sea", tmp_path / "a.txt", "--json"
    ).json
    assert [r["label"] for r in found["results"]] == ["boat", "money"]
    assert run("--store", built, "classify", "pics/colour", "missing.png").code == 2
    assert run("--store", built, "classify", "pics/colour").code == 2
    nearest = run("--store", built, "classify", "pics/color", "--id", "red/0.png")
    assert nearest.code == 2
    assert "did you mean colour?" in nearest.err


def test_label_sets_columns_of_their_own_type(run: Run, store: Path) -> None:
    said = run("--store", store, "label", "notes", "--id", "n1", "--set", "label=ship", "--set", "year=1912", "--json")
    assert said.json["set"] == {"label": "ship", "year": 1912}
    rows = Store.open(store).collection("notes").items.search().to_arrow().to_pylist()
    assert {(r["label"], r["year"]) for r in rows if r["id"] == "n1"} == {("ship", 1912)}
    assert run("--store", store, "label", "notes", "--id", "n1", "--set", "year=soon").code == 2
    assert "did you mean label?" in run("--store", store, "label", "notes", "--id", "n1", "--set", "labl=x").err


def test_delete_by_id_by_filter_and_whole(run: Run, store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("--store", store, "delete", "notes", "--id", "n1", "--id", "n2", "--json").json["deleted"] == 2
    assert run("--store", store, "delete", "notes", "--where", "label = 'boat'", "--json").json["deleted"] == 19
    assert run("--store", store, "delete", "notes", "--id", "n1").code == 2
    refused = run("--store", store, "delete", "notes", "--all")
    assert refused.code == 3
    assert "--yes" in refused.err
    assert run("--store", store, "delete", "notes", "--all", "--yes", "--json").json["removed"]
    assert run("--store", store, "info", "notes").code == 2


@pytest.mark.parametrize(("answer", "code"), [("y\n", 0), ("n\n", 3), ("\n", 3), ("", 3)])
def test_delete_of_all_asks_a_person(
    run: Run, store: Path, monkeypatch: pytest.MonkeyPatch, answer: str, code: int
) -> None:
    import io

    class Person(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Person(answer))
    said = run("--store", store, "delete", "notes", "--all")
    assert said.code == code
    assert f"Delete collection notes with {NOTES} items" in said.err
    assert (store / "notes").exists() == (code == 3)


def test_verify_names_what_is_damaged_and_mends_it(run: Run, store: Path) -> None:
    assert "all sound" in run("--store", store, "verify", "notes").out
    index = next((store / "notes" / "indexes").rglob("matrix.npy"))
    data = bytearray(index.read_bytes())
    data[-1] ^= 1
    index.write_bytes(data)
    said = run("--store", store, "verify", "notes", "--json")
    assert said.code == 1
    assert not said.json["ok"]
    assert said.json["problems"][0]["do"] == "permafrost index notes"
    read = run("--store", store, "verify", "notes")
    assert "matrix.npy fails its checksum" in read.out
    assert run("--store", store, "index", "notes").code == 0
    assert run("--store", store, "verify", "notes").code == 0


def test_encoders_are_listed_by_pattern(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "api.acts.keeping.catalogue", lambda pattern: [n for n in ("hashing:64", "pixels:8") if pattern in n]
    )
    assert run("encoders", "hash", "--json").json == {"encoders": ["hashing:64"]}
    assert run("encoders").out == "hashing:64\npixels:8\n"
    assert run("encoders", "nothing-like-it").code == 2


def test_a_defect_is_one_short_message_and_a_traceback_only_when_asked_for(
    run: Run, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any) -> Any:
        raise ZeroDivisionError("no reason")

    monkeypatch.setattr("api.service.Service.ls", broken)
    said = run("--store", built, "ls")
    assert said.code == 1
    assert "unexpected ZeroDivisionError: no reason" in said.err
    assert "Traceback" not in said.err
    debug = run("--store", built, "ls", "--debug", "--json")
    assert "Traceback" in debug.err
    assert debug.json["error"]["type"] == "internal_error"
