"""The Python door: light to import, one object for each word, and no other module in place of a room."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import permafrost as pf
from embedder import errors
from tests.api.conftest import COLOURS, NOTES, ROOT, environment, picture, png, write_notes
from tests.checkpoints import timm_folder


def python(code: str, cwd: Path, *, path: Path = ROOT) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, capture_output=True, text=True, cwd=cwd, env=environment(PYTHONPATH=str(path)), timeout=60, check=False
    )


def test_importing_the_door_imports_nothing_heavy(tmp_path: Path) -> None:
    heavy = "[n for n in ('torch', 'lancedb', 'numpy', 'pydantic') if n in sys.modules]"
    code = f"import permafrost as pf, sys; print({heavy}, pf.Locked)"
    done = python(code, tmp_path)
    assert done.stdout.startswith("[] <class"), done.stderr


@pytest.mark.parametrize(("name", "file"), [("index", "index.py"), ("api", "api/__init__.py"), ("heads", "heads.py")])
def test_a_users_own_module_in_place_of_a_room_is_named(tmp_path: Path, name: str, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("")
    done = python("import permafrost", tmp_path)
    assert done.returncode == 1
    assert f"ImportError: 'import {name}' finds {tmp_path / file}" in done.stderr
    assert "rename" in done.stderr


def test_a_users_folder_without_a_module_is_no_room(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    assert python("import permafrost", tmp_path).returncode == 0


def test_every_error_can_be_caught_by_the_door() -> None:
    ours = {n for n, e in vars(errors).items() if isinstance(e, type) and issubclass(e, errors.PermafrostError)}
    assert ours <= set(pf.__all__)
    assert all(getattr(pf, name) is getattr(errors, name) for name in ours)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = pf.nothing  # type: ignore[attr-defined]


def test_embed_returns_the_run_and_takes_the_flags_of_the_command(tmp_path: Path) -> None:
    notes = pf.open(tmp_path / "s").collection("notes")
    source = write_notes(tmp_path / "notes.csv")
    run = notes.embed(source, encoder="hashing:64", limit=5, prefix="p/", rename={"year": "born"})
    assert (run.embedded, run["found"], run.dim) == (5, 5, 64)
    with pytest.raises(AttributeError, match="'nothing' is not among run"):
        _ = run.nothing
    again = notes.embed(source, encoder=["hashing:64", "hashing:32"], limit=5, prefix="p/", rename={"year": "born"})
    assert [r["unchanged"] for r in again.runs] == [5, 0]
    with pytest.raises(pf.UsageError, match="embed takes no 'limt'"):
        notes.embed(source, encoder="hashing:64", limt=5)
    assert [c.name for c in pf.open(tmp_path / "s").ls()] == ["notes"]


def test_hits_are_a_sequence_and_print_as_a_table(built: Path) -> None:
    hits = pf.open(built).collection("notes").search("a red boat", k=3, where="year < 2020")
    assert len(hits) == 3
    assert [hit.id for hit in hits] == hits.ids
    assert hits.scores.dtype == np.float64
    assert hits[0].item["label"] == "boat"
    assert hits.items[0] == hits[0].item
    table = repr(hits).splitlines()
    assert table[0].split() == ["score", "id"]
    assert len(table) == 4
    assert hits.ids[0] in table[1]


@pytest.mark.parametrize("form", ["path", "text", "bytes", "pil", "array"])
def test_a_picture_comes_in_every_form_and_finds_the_same(built: Path, tmp_path: Path, form: str) -> None:
    image = picture(COLOURS["red"], 31337)
    path = tmp_path / "q.png"
    path.write_bytes(png(image))
    forms = {"path": path, "text": str(path), "bytes": png(image), "pil": image, "array": np.asarray(image)}
    store = pf.open(built)
    hits = store.collection("pics").search(image=forms[form], k=4)
    reference = store.collection("pics").search(image=str(path), k=4)
    predictions = store.collection("pics").head("colour").predict([forms[form]])
    store.close()
    assert hits.ids == reference.ids
    assert hits.scores.tolist() == reference.scores.tolist()
    assert predictions.labels == ["red"]


def test_what_is_no_picture_is_refused(built: Path) -> None:
    with pytest.raises(pf.UsageError, match="a dict is not a picture"):
        pf.open(built).collection("pics").search(image={})


def test_features_are_ready_for_scikit_learn(store: Path) -> None:
    notes = pf.open(store).collection("notes")
    X, y, ids = notes.features(label="label")
    assert X.shape == (NOTES, 64)
    assert X.dtype == np.float32
    assert [str(v) for v in y] == [{"0": "boat", "1": "money"}[str(int(i[1:]) % 2)] for i in ids]
    table = notes.features(columns=["year", "label"], where="year >= 2035")
    assert table.y["year"] == [2000 + int(i[1:]) for i in table.ids]
    assert notes.features().y is None
    notes.label("n0", label=None)
    assert "n0" not in notes.features(label="label").ids
    with pytest.raises(pf.UsageError, match="not both"):
        notes.features("label", columns=["year"])
    with pytest.raises(pf.UnknownName, match="no column is called 'labl'"):
        notes.features("labl")


def test_train_gives_a_head_that_predicts(store: Path) -> None:
    notes = pf.open(store).collection("notes")
    head = notes.train(label="label", name="again")
    assert head.name == "again@1"
    assert 0 <= head.metrics["accuracy"] <= 1
    found = head.predict(["the stock market", "a red boat"], ids=["n1"], top_k=1)
    assert found.labels == ["money", "boat", "money"]
    assert len(found) == 3
    assert "label" in repr(found).splitlines()[0]
    assert {"prediction_set", "abstained", "why", "domain"} <= set(found[0])
    assert head.label_errors(limit=3).errors == []
    with pytest.raises(pf.UsageError, match="a list"):
        head.predict("a red boat")


def test_the_rest_of_daily_life(store: Path) -> None:
    notes = pf.open(store).collection("notes")
    assert notes.index(kind="flat").recall_at_10 == 1.0
    assert notes.verify().ok
    notes.label("n3", label="ship")
    assert notes.search(id="n1", where="label = 'ship'").ids == ["n3"]
    assert notes.delete(ids="n3") == 1
    assert notes.delete(where="year >= 2030") == 10
    assert notes.info()["items"] == NOTES - 11
    with pytest.raises(pf.UnknownName, match="no collection is called 'nots'"):
        pf.open(store).collection("nots").info()


def test_an_encoder_needs_no_store() -> None:
    encoder = pf.Encoder("hashing:16")
    texts = encoder.encode(["a", "b", "a"])
    assert texts.shape == (3, encoder.dim) == (3, 16)
    assert texts.dtype == np.float32
    assert np.array_equal(texts[0], texts[2])
    assert encoder.encode([Image.new("RGB", (9, 9), "red")]).shape == (1, 16)
    assert encoder.space.encoder == "hashing:16"
    with pytest.raises(pf.UnknownName, match="hashin"):
        pf.Encoder("hashin:16")


def test_an_encoder_is_run_by_the_runtime_that_the_door_is_given(tmp_path: Path) -> None:
    name = f"timm:local-dir:{timm_folder(tmp_path / 'model')}"
    encoder = pf.Encoder(name, "cpu", runtime="openvino")
    assert repr(encoder).endswith("cpu, openvino)")
    photos = pf.open(tmp_path / "s", device="cpu", runtime="onnx").collection("photos")
    assert photos.embed([picture(COLOURS["red"], 1)], encoder=name).embedded == 1
    again = pf.open(tmp_path / "s", device="cpu", runtime="openvino").collection("photos")
    assert again.search(image=picture(COLOURS["red"], 1)).scores[0] > 0.9999
    with pytest.raises(pf.UnknownName, match="openvinno"):
        pf.Encoder(name, runtime="openvinno")
