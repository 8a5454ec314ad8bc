from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import permafrost as pf
from api.app import create_app
from api.serving import Serving
from api.settings import Settings

LABELS = ["a red boat on the sea", "the stock market fell"]
TEXTS = ["red boat sea", "stock market"]


def test_every_door_classifies_by_name_alike(run: Any, built: Path) -> None:
    told = run("--store", built, "classify", "notes", *TEXTS, "--labels", ",".join(LABELS), "--json").json
    door = pf.open(built).collection("notes").classify(TEXTS, LABELS)
    asked = {"inputs": [{"text": t} for t in TEXTS], "labels": LABELS, "collection": "notes"}
    service = Serving(Settings(store=str(built)))
    with closing(service), TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        reply = client.post("/v1/classify", json=asked).json()
        wrong = client.post("/v1/classify", json={**asked, "model": "hashing:64"})
        alone = {**asked, "collection": None, "model": told["model"]}
        by_model = client.post("/v1/classify", json={k: v for k, v in alone.items() if v}).json()
        elsewhere = {"inputs": asked["inputs"], "labels": LABELS, "model": "hashing:128"}
        unserved = client.post("/v1/classify", json=elsewhere)
    assert told == reply == door.document
    assert door.labels == LABELS
    assert [r["probabilities"] for r in by_model["results"]] == [r["probabilities"] for r in told["results"]]
    assert wrong.status_code == 422
    assert unserved.status_code == 404
    assert "hashing:64" in unserved.json()["error"]["hint"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pics", "--id", "red/0.png", "--labels", "a,b"], "reads no texts"),
        (["notes", "x", "--labels", "a"], "two different labels"),
        (["notes", "x", "--labels", "a,b", "--template", "none"], "where the label goes"),
        (["notes/subject", "x", "--labels", "a,b"], "names a head"),
        (["notes/subject", "x", "--template", "{}"], "--template needs --labels"),
    ],
)
def test_what_cannot_be_named_is_refused(run: Any, built: Path, words: list[str], said: str) -> None:
    told = run("--store", built, "classify", *words)
    assert (told.code, said in told.err) == (2, True)


def test_a_head_is_exported_at_both_doors(run: Any, built: Path, tmp_path: Path) -> None:
    told = run("--store", built, "export-head", "notes/subject", "--to", tmp_path / "h.onnx", "--json").json
    assert told["bytes"] == (tmp_path / "h.onnx").stat().st_size
    pf.open(built).collection("notes").head("subject").export(tmp_path / "h.npz")
    assert (tmp_path / "h.npz").exists()
    assert run("--store", built, "export-head", "notes/subject", "--to", tmp_path / "h.pkl").code == 2
