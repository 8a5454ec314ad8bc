"""A real server process and the clients that people have: OpenAI's, TEI's, slow ones, too many, and a power cut."""

from __future__ import annotations

import json
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx2
import huggingface_hub
import numpy as np
import openai
import pytest
from huggingface_hub import InferenceClient

from api import keys
from api.gate import RECEIVE_S
from embedder.encoder import load_encoder
from tests.api.conftest import finish, start
from tests.api.test_serve import WAIT_S, serve

ENCODER = load_encoder("hashing:64")


def until_ready(url: str) -> None:
    for _ in range(WAIT_S * 10):
        if httpx2.get(f"{url}/readyz", timeout=WAIT_S).status_code == 200:
            return
        time.sleep(0.1)
    raise AssertionError("it was not ready in time")


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    words = ("--model", "mine=hashing:64", "--predict", "notes/subject", "--log", "json")
    process = start("--store", built, "serve", "--port", "0", *words)
    assert process.stderr is not None
    url = process.stderr.readline().split()[1]
    until_ready(url)
    yield url
    process.terminate()
    said = finish(process)
    assert said.code == 143
    lines = [json.loads(line) for line in said.err.splitlines() if line.startswith("{")]
    assert lines
    assert {"request_id", "path", "status", "ms", "bytes_in"} <= set(lines[0])
    assert "a red boat" not in said.err


@pytest.fixture(scope="module")
def client(address: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{address}/v1", api_key="none", max_retries=0) as client:
        yield client


def vectors(reply: Any) -> Any:
    return np.array([one.embedding for one in reply.data], dtype=np.float32)


def test_the_openai_client_gets_the_encoders_vectors_either_way(client: openai.OpenAI) -> None:
    texts = ["a red boat", "money", "a red boat"]
    expected = ENCODER.encode(texts)
    coded = client.embeddings.create(model="mine", input=texts)
    plain = client.embeddings.create(model="hashing:64", input=texts, encoding_format="float")
    np.testing.assert_array_equal(vectors(coded), vectors(plain))
    np.testing.assert_allclose(vectors(coded), expected, atol=1e-6)
    assert [one.index for one in coded.data] == [0, 1, 2]
    assert coded.usage.prompt_tokens > 0
    cut = vectors(client.embeddings.create(model="mine", input="money", dimensions=16))[0]
    head = expected[1, :16]
    np.testing.assert_allclose(cut, head / np.linalg.norm(head), atol=1e-6)
    assert {"mine", "hashing:64", "pixels:8"} <= {model.id for model in client.models.list()}


def test_the_openai_client_reads_our_errors(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.embeddings.create(model="mien", input="a")
    assert "mine" in str(unknown.value.body["hint"])  # type: ignore[index]
    for wrong in ({"dimensions": 65}, {"input": []}, {"input": ["a"] * 2049}, {"input": [1, 2]}):
        with pytest.raises(openai.UnprocessableEntityError):
            client.embeddings.create(**{"model": "mine", "input": "a", **wrong})  # type: ignore[arg-type]


def test_a_client_of_tei_gets_vectors_and_labels(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # the client refuses every address, this machine's too, while the hub is said to be offline
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    found = InferenceClient(address).feature_extraction("a red boat")
    np.testing.assert_allclose(np.asarray(found)[0], ENCODER.encode(["a red boat"])[0], atol=1e-6)
    info = httpx2.get(f"{address}/info", timeout=WAIT_S).json()
    assert info["max_client_batch_size"] == 2048
    said = httpx2.post(f"{address}/predict", json={"inputs": "a red boat on the sea"}, timeout=WAIT_S).json()
    assert said[0]["label"] == "boat"
    body = {"inputs": {"source_sentence": "a boat", "sentences": ["a boat", "money"]}}
    near = httpx2.post(f"{address}/similarity", json=body, timeout=WAIT_S)
    assert near.json()[0] == pytest.approx(1.0)
    assert near.headers["x-permafrost-space"] == ENCODER.space.fingerprint


def test_metrics_are_all_there_and_count(address: str) -> None:
    httpx2.get(f"{address}/nothing", timeout=WAIT_S)
    text = httpx2.get(f"{address}/metrics", timeout=WAIT_S).text
    for name in ("requests_total", "queue_inputs", "batch_inputs_bucket", "stage_seconds_bucket", "memory_bytes",
                 "index_recall_at_10", "rows_not_indexed", "jobs"):  # fmt: skip
        assert f"permafrost_{name}" in text
    assert 'status="4xx"} 0.0' in text
    assert 'permafrost_requests_total{method="GET",status="4xx"} 0.0' not in text


def test_a_slow_client_is_let_go_and_others_are_answered(address: str) -> None:
    port = int(address.rpartition(":")[2])
    half = b"POST /v1/embeddings HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 99\r\n\r\n{"
    with socket.create_connection(("127.0.0.1", port)) as head, socket.create_connection(("127.0.0.1", port)) as body:
        head.sendall(b"GET /livez HTTP/1.1\r\nhost: 127")
        body.sendall(half)
        assert httpx2.get(f"{address}/livez", timeout=WAIT_S).status_code == 200
        for connection in (head, body):
            connection.settimeout(3 * RECEIVE_S)
        assert head.recv(1000) == b""
        assert b" 408 " in body.recv(4000)


@pytest.mark.parametrize(
    "head",
    [
        b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * (40 << 10) + b"\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\nx: " + b"a" * (40 << 10),
        b"GET /livez?" + b"a" * (40 << 10) + b" HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n",
        b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"a: b\r\n" * 101 + b"\r\n",
        b"GET /livez HTTP/1.1\r\nhost: 127.0.0.1\r\n" + b"a: b\r\n" * 9000 + b"\r\n",
        b"nothing that is HTTP\r\n\r\n",
    ],
    ids=["long", "endless", "path", "many", "very many", "none"],
)
def test_heads_that_are_too_long_are_refused(address: str, head: bytes) -> None:
    said = b""
    # what is not read any more may reset the connection before the answer is read
    with opened(address) as connection, suppress(ConnectionError):
        connection.sendall(head)
        with connection.makefile("rb") as reply:
            said = reply.readline()
    assert not said or b" 400 " in said
    assert httpx2.get(f"{address}/livez", headers={"x": "a" * 20_000}, timeout=WAIT_S).status_code == 200


def test_ten_times_too_much_is_refused_and_probes_are_answered(address: str) -> None:
    replies: list[httpx2.Response] = []
    probes: list[int] = []
    stop = threading.Event()

    def probe() -> None:
        while not stop.is_set():
            probes.append(httpx2.get(f"{address}/livez", timeout=WAIT_S).status_code)
            time.sleep(0.02)

    def ask(n: int) -> None:
        body = {"model": "mine", "input": [f"{n} {i}" for i in range(2000)]}
        replies.append(httpx2.post(f"{address}/v1/embeddings", json=body, timeout=WAIT_S))

    watcher = threading.Thread(target=probe)
    watcher.start()
    with ThreadPoolExecutor(20) as pool:
        list(pool.map(ask, range(20)))
    stop.set()
    watcher.join()
    accepted, refused = ([one for one in replies if one.status_code == status] for status in (200, 429))
    assert len(accepted) + len(refused) == 20
    assert all(len(one.json()["data"]) == 2000 for one in accepted)
    assert accepted
    assert refused
    assert all(1 <= int(one.headers["retry-after"]) <= 30 for one in refused)
    assert set(probes) == {200}
    assert httpx2.post(f"{address}/embed", json={"inputs": "after"}, timeout=WAIT_S).status_code == 200


def queued(url: str) -> float:
    lines = httpx2.get(f"{url}/metrics", timeout=WAIT_S).text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith("permafrost_queue_inputs{"))


def large(url: str, name: str) -> bytes:
    """Return a request of 2,000 texts, each long enough to take a while."""
    texts = [f"{name} {n} " + "a red boat on the sea " * 40 for n in range(2000)]
    body = json.dumps({"model": "hashing:64", "input": texts}).encode()
    lines = ("POST /v1/embeddings HTTP/1.1", f"host: {url[7:]}", "content-type: application/json",
             f"content-length: {len(body)}", "", "")  # fmt: skip
    return "\r\n".join(lines).encode() + body


def opened(url: str) -> socket.socket:
    return socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=WAIT_S)


def until(act: Callable[[], bool]) -> bool:
    end = time.monotonic() + WAIT_S
    while not act():
        if time.monotonic() > end:
            return False
        time.sleep(0.01)
    return True


def test_what_nobody_waits_for_leaves_the_queue(address: str) -> None:
    gone = [opened(address) for _ in range(2)]
    for n, connection in enumerate(gone):
        connection.sendall(large(address, f"gone{n}"))
    assert until(lambda: queued(address) > 2000)
    for connection in gone:
        connection.close()
    assert until(lambda: queued(address) == 0)
    assert httpx2.post(f"{address}/embed", json={"inputs": "after them"}, timeout=WAIT_S).status_code == 200


def test_what_is_under_way_at_sigterm_is_answered(store: Path) -> None:
    process, url = serve(store)
    until_ready(url)
    under_way = [opened(url) for _ in range(2)]
    for n, connection in enumerate(under_way):
        connection.sendall(large(url, f"late{n}"))
    assert until(lambda: queued(url) > 2000)
    process.terminate()
    for connection in under_way:
        with connection, connection.makefile("rb") as reply:
            assert b" 200 " in reply.readline()
            headers = dict(line.lower().split(b": ", 1) for line in iter(reply.readline, b"\r\n"))
            assert len(json.loads(reply.read(int(headers[b"content-length"])))["data"]) == 2000
    assert finish(process).code == 143


def test_memory_is_flat(store: Path) -> None:
    process, url = serve(store)
    until_ready(url)

    def after(count: int) -> int:
        with httpx2.Client(base_url=url, timeout=WAIT_S) as client:
            for n in range(count):
                way = {"text": f"boat {n}"} if n % 2 else {"id": f"n{n % 40}"}
                assert client.post("/v1/collections/notes/search", json={"query": way}).status_code == 200
                assert client.post("/embed", json={"inputs": f"text {n}"}).status_code == 200
                assert client.post("/v1/collections/notes/search", json={"query": {"id": "no"}}).status_code == 404
        lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

    warm = after(300)
    assert after(500) < 1.1 * warm
    process.terminate()
    assert finish(process).code == 143


def test_what_was_acknowledged_is_there_after_a_power_cut(store: Path) -> None:
    process, url = serve(store)
    until_ready(url)
    told: list[str] = []

    def write(worker: int) -> None:
        for n in range(1000):
            body = {"items": [{"id": f"w{worker}-{n}", "text": f"text {worker} {n}"}]}
            try:
                reply = httpx2.put(f"{url}/v1/collections/notes/items", json=body, timeout=WAIT_S)
            except httpx2.TransportError:
                return
            if reply.status_code == 200 and reply.json()["counts"] == {"inserted": 1}:
                told.append(f"w{worker}-{n}")

    writers = [threading.Thread(target=write, args=(w,)) for w in range(3)]
    for writer in writers:
        writer.start()
    while len(told) < 6:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    finish(process)
    for writer in writers:
        writer.join()
    process, url = serve(store)
    until_ready(url)
    for id in told:
        body = {"query": {"id": id}, "k": 1}
        assert httpx2.post(f"{url}/v1/collections/notes/search", json=body, timeout=WAIT_S).status_code == 200, id
    process.terminate()
    assert finish(process).code == 143


def test_every_address_is_served_with_keys_only(store: Path, tmp_path: Path) -> None:
    token, _ = keys.make(tmp_path / "keys", "a", "read")
    process = start("--store", store, "serve", "--host", "0.0.0.0", "--port", "0", "--api-key-file", tmp_path / "keys")
    assert process.stderr is not None
    url = process.stderr.readline().split()[1].replace("0.0.0.0", "127.0.0.1")
    until_ready(url)
    assert httpx2.get(f"{url}/v1/collections", timeout=WAIT_S).status_code == 401
    allowed = httpx2.get(f"{url}/v1/collections", headers={"x-api-key": token, "origin": "http://x"}, timeout=WAIT_S)
    assert allowed.status_code == 200
    assert "access-control-allow-origin" not in allowed.headers
    process.terminate()
    assert finish(process).code == 143


def test_a_model_that_cannot_be_loaded_ends_the_service(store: Path) -> None:
    process = start("--store", store, "serve", "--port", "0", "--model", "hashing:5000")
    said = finish(process)
    assert said.code == 2
    assert "5000" in said.err
