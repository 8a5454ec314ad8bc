"""Kinds of heads whose labels are more than one class an item, at every door."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

import permafrost as pf
from api.app import create_app
from api.serving import Serving
from api.settings import Settings


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Texts `word number` with tags (a few words decide them) and a grade."""
    folder = tmp_path_factory.mktemp("kinds")
    lines = ["text,tags,grade"]
    for i in range(90):
        word, tags, grade = (("red", "warm;hue", "low"), ("green", "hue", "mid"), ("cold", "ice", "high"))[i % 3]
        lines.append(f"{word} {word} {word} {i},{tags},{grade}")
    (folder / "t.csv").write_text("\n".join(lines), encoding="utf-8")
    pf.open(folder / "store").collection("t").embed(folder / "t.csv", encoder="hashing:64")
    return folder / "store"


@pytest.fixture
def client(stocked: Path) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(stocked)))
    with closing(service), TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield client


def finished(client: TestClient, asked: dict[str, Any]) -> Any:
    """Train, and return the job once it has ended, however long it takes."""
    job = client.post("/v1/collections/t/heads", json=asked).json()
    while job["state"] in ("queued", "running"):
        time.sleep(0.05)
        job = client.get(f"/v1/jobs/{job['id']}").json()
    assert job["state"] == "finished", job["error"]
    return job


def test_every_door_gives_several_classes_alike(run: Any, stocked: Path, client: TestClient) -> None:
    words = ("--store", stocked, "train", "t", "--label", "tags", "--head", "multilabel", "--separator", ";")
    said = run(*words).out
    for part in ("3 classes, several an item", "mean AP", "chance", "micro F1", "held all true classes"):
        assert part in said, part
    job = {"label": "tags", "kind": "multilabel", "separator": ";", "coverage": 0.8, "controls": False}
    ended = finished(client, job)
    assert ended["result"]["task"] == "multilabel"
    asked = ["red red red", "cold cold"]
    told = run("--store", stocked, "classify", "t/tags@2", *asked, "--json").json
    reply = client.post("/v1/collections/t/heads/tags@2/predict", json={"inputs": [{"text": t} for t in asked]}).json()
    assert reply == told
    assert [{*one["labels"]} for one in told["results"]] == [{"warm", "hue"}, {"ice"}]
    assert pf.open(stocked).collection("t").head("tags@2").predict(asked).document == told
    assert "hue 1.000, warm" in run("--store", stocked, "classify", "t/tags@2", *asked).out
    assert run("--store", stocked, "train", "t", "--label", "tags", "--separator", ";").code == 2


def test_every_door_keeps_an_order_alike(run: Any, stocked: Path, client: TestClient) -> None:
    words = ("--store", stocked, "train", "t", "--label", "grade", "--head", "ordinal")
    said = run(*words, "--order", "low, mid,high").out
    for part in ("low < mid < high", "ranks off", "always the median", "kappa"):
        assert part in said, part
    assert "--order" in run(*words).err
    job = {"label": "grade", "kind": "ordinal", "order": ["low", "mid", "high"], "controls": False}
    ended = finished(client, job)
    assert ended["result"]["classes"] == ["low", "mid", "high"]
    told = run("--store", stocked, "classify", "t/grade@2", "cold cold", "--json").json
    body = {"inputs": [{"text": "cold cold"}]}
    assert client.post("/v1/collections/t/heads/grade@2/predict", json=body).json() == told
    assert told["results"][0]["label"] == "high"
    head = pf.open(stocked).collection("t").train("grade", kind="ordinal", order=["low", "mid", "high"], controls=False)
    assert head.metrics["quadratic_kappa"] > 0.9


def test_every_door_blends_names_with_labels_alike(run: Any, stocked: Path, client: TestClient, built: Path) -> None:
    words = ("--store", stocked, "train", "t", "--label", "grade", "--name", "mix", "--head", "blend")
    said = run(*words, "--template", "a {} thing", "--template", "{}").out
    for part in ("blend in", "texts alone", "items alone"):
        assert part in said, part
    job = {"label": "grade", "kind": "blend", "name": "mix", "templates": ["a {} thing", "{}"], "controls": False}
    ended = finished(client, job)
    assert ended["result"]["metrics"]["texts_alone"] <= 1
    told = run("--store", stocked, "classify", "t/mix@2", "cold cold", "--json").json
    body = {"inputs": [{"text": "cold cold"}]}
    assert client.post("/v1/collections/t/heads/mix@2/predict", json=body).json() == told
    assert told["results"][0]["label"] == "high"
    head = pf.open(stocked).collection("t").train("grade", kind="blend", name="mix", controls=False)
    assert head.metrics["accuracy"] > 0.9
    assert run(*words[:-1], "linear", "--template", "{}").code == 2
    told = run("--store", built, "train", "pics", "--label", "label", "--head", "blend")
    assert (told.code, "reads no texts" in told.err) == (2, True)
