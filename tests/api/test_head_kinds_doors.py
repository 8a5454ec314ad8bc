"""Kinds of heads whose labels are more than one class an item, at every door."""

from __future__ import annotations

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
from tests.api.test_jobs import follow


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


def test_every_door_gives_several_classes_alike(run: Any, stocked: Path, client: TestClient) -> None:
    words = ("--store", stocked, "train", "t", "--label", "tags", "--head", "multilabel", "--separator", ";")
    said = run(*words).out
    for part in ("3 classes, several an item", "mean AP", "chance", "micro F1", "held all true classes"):
        assert part in said, part
    job = {"label": "tags", "kind": "multilabel", "separator": ";", "coverage": 0.8, "controls": False}
    ended = follow(client, client.post("/v1/collections/t/heads", json=job))[-1][1]
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
    ended = follow(client, client.post("/v1/collections/t/heads", json=job))[-1][1]
    assert ended["result"]["classes"] == ["low", "mid", "high"]
    told = run("--store", stocked, "classify", "t/grade@2", "cold cold", "--json").json
    body = {"inputs": [{"text": "cold cold"}]}
    assert client.post("/v1/collections/t/heads/grade@2/predict", json=body).json() == told
    assert told["results"][0]["label"] == "high"
    head = pf.open(stocked).collection("t").train("grade", kind="ordinal", order=["low", "mid", "high"], controls=False)
    assert head.metrics["quadratic_kappa"] > 0.9
