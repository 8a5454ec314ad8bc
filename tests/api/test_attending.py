"""What nobody waits for is never encoded: clients that go away while their texts wait behind a pass that is held."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Future
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson
import pytest

from api import attending, waiting
from api.app import create_app
from api.attending import Attending
from api.serving import Served, Serving
from api.settings import Settings
from embedder.encoder import Encoder
from embedder.errors import DeadlineExceeded

WAIT_S = 30
SEARCH, PREDICT = "/v1/collections/notes/search", "/v1/collections/notes/heads/subject/predict"
ROUTES: dict[str, Callable[[list[str]], Any]] = {
    "/v1/embeddings": lambda texts: {"model": "hashing:64", "input": texts},
    "/embed": lambda texts: {"inputs": texts},
    "/similarity": lambda texts: {"inputs": {"source_sentence": texts[0], "sentences": texts[1:]}},
    SEARCH: lambda texts: {"queries": [{"text": text} for text in texts]},
    PREDICT: lambda texts: {"inputs": [{"text": text} for text in texts]},
    "/v1/classify": lambda texts: {
        "inputs": [{"text": texts[0]}], "labels": [f"label {text}" for text in texts], "model": "hashing:64",
    },
}  # fmt: skip


class Gated(Serving):
    """A service whose forward passes wait for `go`; `began` is set by the first, `seen` are the texts that they had."""

    def __init__(self, store: Path) -> None:
        super().__init__(Settings(store=str(store)), Served(models=("hashing:64",)))
        self.go, self.began = threading.Event(), threading.Event()
        self.seen: list[str] = []

    def fitted(self, encoder: Encoder) -> Encoder:
        found = super().fitted(encoder)
        text = found.text
        assert text is not None

        def tokenize(words: str, role: Any) -> Any:
            return words, text.tokenize(words, role)

        def forward(prepared: Any) -> Any:
            self.seen += [words for words, _ in prepared]
            self.began.set()
            assert self.go.wait(WAIT_S)
            return text.forward([made for _, made in prepared])

        return replace(
            found, text=replace(text, tokenize=tokenize, tokenize_all=None, forward=forward, length=lambda one: 1)
        )


@pytest.fixture
def service(store: Path) -> Iterator[Gated]:
    made = Gated(store)
    with closing(made):
        made.go.set()
        made.models.load_named()
        collection = made.collection("notes")
        made.encoder_of(collection, collection.space())
        made.warm("notes")
        made.go.clear()
        made.began.clear()
        made.seen.clear()
        try:
            yield made
        finally:
            made.go.set()


class Client:
    """One connection to an application: `leave` hangs up, `status` is what was answered."""

    def __init__(self, app: Any, path: str, body: Any) -> None:
        self.status: int | None = None
        self._gone = asyncio.Event()
        self._body: bytes | None = orjson.dumps(body)
        headers = [(b"host", b"127.0.0.1"), (b"content-type", b"application/json")]
        scope = {
            "type": "http", "method": "POST", "path": path, "raw_path": path.encode(), "query_string": b"",
            "headers": headers, "http_version": "1.1", "scheme": "http", "root_path": "", "state": {},
            "server": ("127.0.0.1", 80), "client": ("127.0.0.1", 1),
        }  # fmt: skip
        self.answered = asyncio.ensure_future(app(scope, self._receive, self._send))

    async def _receive(self) -> Any:
        body, self._body = self._body, None
        if body is not None:
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message: Any) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]

    def leave(self) -> None:
        self._gone.set()


async def until(true: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not true():
            await asyncio.sleep(0.001)


async def held(service: Gated, app: Any) -> Client:
    """Begin a pass that does not end before `go`."""
    first = Client(app, "/v1/embeddings", {"model": "hashing:64", "input": "the first"})
    await until(service.began.is_set)
    return first


def waits(service: Gated) -> int:
    return sum(one.get("waiting", 0) for one in service.models.standing() if one["id"] == "hashing:64")


@pytest.mark.parametrize("path", ROUTES)
def test_what_a_client_left_waiting_is_never_encoded(service: Gated, path: str) -> None:
    async def scenario() -> None:
        app = create_app(service)
        first = await held(service, app)
        gone = Client(app, path, ROUTES[path](["gone 1", "gone 2", "gone 3"]))
        await until(lambda: waits(service) > 1)
        gone.leave()
        await until(lambda: waits(service) == 1)
        last = Client(app, path, ROUTES[path](["kept 1", "kept 2"]))
        await until(lambda: waits(service) > 1)
        service.go.set()
        await asyncio.gather(first.answered, last.answered, gone.answered, return_exceptions=True)
        assert (first.status, last.status) == (200, 200)

    asyncio.run(scenario())
    assert not [text for text in service.seen if "gone" in text]
    assert any("kept" in text for text in service.seen)


@pytest.mark.parametrize("path", ROUTES)
def test_what_is_late_is_a_504_and_never_encoded(service: Gated, path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        app = create_app(service)
        first = await held(service, app)
        with monkeypatch.context() as patched:
            # over as soon as it is waited for: what is late is decided by no clock here
            patched.setattr(waiting, "DEADLINE_S", 0.0)
            late = Client(app, path, ROUTES[path](["late 1", "late 2"]))
            await asyncio.wait_for(late.answered, WAIT_S)
        assert late.status == 504
        await until(lambda: waits(service) == 1)
        service.go.set()
        await first.answered

    asyncio.run(scenario())
    assert not [text for text in service.seen if "late" in text]


@contextmanager
def attended(here: Attending) -> Iterator[None]:
    token = attending.attended.set(here)
    try:
        yield
    finally:
        attending.attended.reset(token)


def test_leaving_cancels_what_is_waited_for_and_what_is_begun_later() -> None:
    here, waited, later = Attending(), Future[int](), Future[int]()
    with attended(here):
        with here.noted(waited):
            here.leave()
        assert waited.cancelled()
        with pytest.raises(CancelledError):
            attending.result(later)
    assert later.cancelled()


def test_without_anybody_attending_a_result_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    done, never = Future[int](), Future[int]()
    done.set_result(3)
    assert attending.result(done) == 3
    monkeypatch.setattr(attending, "DEADLINE_S", 0.0)
    with pytest.raises(DeadlineExceeded):
        attending.result(never)
    assert never.cancelled()
