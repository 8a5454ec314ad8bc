"""The service as a process, and the same query through all three doors."""

from __future__ import annotations

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import pytest

import permafrost as pf
from api.server import check_host
from embedder.errors import Refused
from tests.api.conftest import COLOURS, Run, finish, picture, png, start

WAIT_S = 60


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    process, url = serve(built)
    yield url
    process.terminate()
    assert finish(process).code == 143


def serve(store: Path) -> tuple[subprocess.Popen[str], str]:
    process = start("--store", store, "serve", "--port", "0")
    assert process.stderr is not None
    line = process.stderr.readline()
    assert line.startswith("ready http://127.0.0.1:"), line + process.stderr.read()
    return process, line.split()[1]


def test_it_listens_at_once_and_becomes_ready(address: str) -> None:
    assert httpx2.get(f"{address}/livez", timeout=WAIT_S).json() == {"status": "alive"}
    for _ in range(WAIT_S * 10):
        reply = httpx2.get(f"{address}/readyz", timeout=WAIT_S)
        if reply.status_code == 200:
            break
        assert reply.status_code == 503
    assert reply.json()["ready"]


@pytest.mark.parametrize("where", [None, "year >= 2010 AND year < 2031"])
@pytest.mark.parametrize("way", ["text", "id", "vector"])
def test_three_doors_give_equal_ids_and_scores(
    run: Run, built: Path, address: str, tmp_path: Path, way: str, where: str | None
) -> None:
    vector = np.random.default_rng(3).normal(size=64).astype(np.float32)
    np.save(tmp_path / "v.npy", vector)
    asked: dict[str, Any] = {"text": "a red boat", "id": "n3", "vector": vector.tolist()}
    words = {"text": ["a red boat"], "id": ["--id", "n3"], "vector": ["--vector", tmp_path / "v.npy"]}[way]
    said = run("--store", built, "search", "notes", *words, "-k", "7", "--json", *(["--where", where] if where else []))
    body = {"query": {way: asked[way]}, "k": 7, **({"filter": where} if where else {})}
    reply = httpx2.post(f"{address}/v1/collections/notes/search", json=body, timeout=WAIT_S)
    hits = pf.open(str(built)).collection("notes").search(**{way: asked[way]}, k=7, where=where)
    for other in (reply.json()["hits"], said.json["hits"]):
        assert [hit["id"] for hit in other] == hits.ids
        assert [hit["score"] for hit in other] == hits.scores.tolist()
        assert [hit["item"] for hit in other] == list(hits.items)
    assert reply.json()["space"] == said.json["space"] == hits.document.space


def test_a_picture_gives_equal_scores_as_a_path_as_bytes_and_as_pixels(
    run: Run, built: Path, address: str, tmp_path: Path
) -> None:
    import base64

    image = picture(COLOURS["green"], 4321)
    (tmp_path / "q.png").write_bytes(png(image))
    said = run("--store", built, "search", "pics", "--image", tmp_path / "q.png", "--json")
    body = {"query": {"image": base64.b64encode(png(image)).decode()}}
    reply = httpx2.post(f"{address}/v1/collections/pics/search", json=body, timeout=WAIT_S)
    store = pf.open(str(built))
    hits = store.collection("pics").search(image=image)
    store.close()
    assert hits.ids == [hit["id"] for hit in said.json["hits"]] == [hit["id"] for hit in reply.json()["hits"]]
    assert (
        hits.scores.tolist()
        == [hit["score"] for hit in said.json["hits"]]
        == [h["score"] for h in reply.json()["hits"]]
    )


def test_predictions_are_equal_through_all_doors(run: Run, built: Path, address: str) -> None:
    said = run("--store", built, "classify", "notes/subject", "a red boat", "--json").json["results"]
    body = {"inputs": [{"text": "a red boat"}]}
    reply = httpx2.post(f"{address}/v1/collections/notes/heads/subject/predict", json=body, timeout=WAIT_S).json()[
        "results"
    ]
    found = pf.open(str(built)).collection("notes").head("subject").predict(["a red boat"])
    assert said[0]["probabilities"] == reply[0]["probabilities"] == found[0].probabilities
    assert found.labels == ["boat"]


def test_rows_written_by_another_process_are_found_and_deleted_ones_are_gone(
    run: Run, store: Path, tmp_path: Path
) -> None:
    process, url = serve(store)
    try:
        body = {"query": {"text": "something unheard of"}, "k": 1}

        def first() -> Any:
            return httpx2.post(f"{url}/v1/collections/notes/search", json=body, timeout=WAIT_S).json()["hits"][0]

        assert first()["score"] < 0.9
        (tmp_path / "new.csv").write_text("id,text,year,label\nnew,something unheard of,2050,new\n")
        words = ("--into", "notes", "--encoder", "hashing:64", "--prefix", "p/")
        assert run("--store", store, "embed", tmp_path / "new.csv", *words).code == 0
        assert first()["id"] == "p/new"
        assert run("--store", store, "delete", "notes", "--id", "p/new").code == 0
        assert first()["id"] != "p/new"
    finally:
        process.send_signal(signal.SIGINT)
        said = finish(process)
    assert said.code == 130
    assert said.err == "stopped\n"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.com", "8.8.8.8", "127.0.0.1.example.com"])
def test_an_address_that_others_reach_is_refused(run: Run, built: Path, host: str) -> None:
    said = run("--store", built, "serve", "--host", host)
    assert said.code == 3
    assert "no keys" in said.err
    assert "127.0.0.1" in said.err


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.8.8.8"])
def test_loopback_is_not_refused(host: str) -> None:
    check_host(host)
    with pytest.raises(Refused):
        check_host("192.168.0.1")


def test_a_port_in_use_is_said_plainly(run: Run, built: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = run("--store", built, "serve", "--port", str(port))
    assert said.code == 1
    assert f"port {port} is taken" in said.err
    assert "--port 0" in said.err


def test_a_store_that_is_not_there_ends_it_before_it_listens(run: Run, tmp_path: Path) -> None:
    said = run("--store", tmp_path / "none", "serve", "--port", "0")
    assert said.code == 2
    assert "ready" not in said.err
