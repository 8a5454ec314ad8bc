"""One test body against a store in a folder and the same store behind a service: equal answers, equal errors."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import permafrost as pf
from api.transport import Transport
from tests.api.conftest import COLOURS, finish, picture, png
from tests.api.test_serve import serve


@pytest.fixture(scope="module")
def address(built: Path) -> Iterator[str]:
    process, url = serve(built)
    yield url
    process.terminate()
    finish(process)


@pytest.fixture(scope="module")
def stores(built: Path, address: str) -> Iterator[tuple[Any, Any]]:
    here, there = pf.open(built), pf.open(address)
    yield here, there
    here.close()
    there.close()


def test_collections_and_facts_are_equal(stores: tuple[Any, Any]) -> None:
    here, there = stores
    assert [c.name for c in here.ls()] == [c.name for c in there.ls()]
    for name in ("notes", "pics"):
        mine, theirs = here.collection(name).info(), there.collection(name).info()
        for key in ("items", "columns", "aliases"):
            assert mine[key] == theirs[key]
        assert [s["fingerprint"] for s in mine["spaces"]] == [s["fingerprint"] for s in theirs["spaces"]]


@pytest.mark.parametrize("where", [None, "year >= 2010", {"must": [{"key": "label", "match": {"value": "boat"}}]}])
@pytest.mark.parametrize("way", ["text", "id", "vector"])
def test_searches_are_equal(stores: tuple[Any, Any], way: str, where: Any) -> None:
    asked: dict[str, Any] = {"text": "a red boat", "id": "n3", "vector": np.arange(1, 65, dtype=np.float32)}
    mine, theirs = (
        store.collection("notes").search(**{way: asked[way]}, k=7, where=where, exact=True) for store in stores
    )
    assert mine.ids == theirs.ids
    assert list(mine.items) == list(theirs.items)
    np.testing.assert_allclose(mine.scores, theirs.scores, rtol=0, atol=1e-6)


@pytest.mark.parametrize("form", ["path", "bytes", "pil", "array"])
def test_pictures_are_read_here_and_found_there(stores: tuple[Any, Any], tmp_path: Path, form: str) -> None:
    image = picture(COLOURS["blue"], 77)
    (tmp_path / "q.png").write_bytes(png(image))
    forms = {"path": tmp_path / "q.png", "bytes": png(image), "pil": image, "array": np.asarray(image)}
    mine, theirs = (store.collection("pics").search(image=forms[form], k=5) for store in stores)
    assert mine.ids == theirs.ids
    labels = [store.collection("pics").head("colour").predict([forms[form]]).labels for store in stores]
    assert labels == [["blue"], ["blue"]]


def test_features_and_predictions_are_equal(stores: tuple[Any, Any]) -> None:
    mine, theirs = (store.collection("notes").features("label", where="year < 2030") for store in stores)
    assert mine.X.dtype == theirs.X.dtype == np.float32
    assert mine.X.tobytes() == theirs.X.tobytes()
    assert (mine.y.tolist(), mine.ids.tolist()) == (theirs.y.tolist(), theirs.ids.tolist())
    heads = [store.collection("notes").head("subject@1") for store in stores]
    assert heads[0].facts == heads[1].facts
    said = [head.predict(["a red boat"], ids=["n1"]) for head in heads]
    assert said[0].labels == said[1].labels == ["boat", "money"]
    assert said[0][0]["input"] == said[1][0]["input"] == "a red boat"


WRONG: list[Callable[[Any], Any]] = [
    lambda c: c.search("a", where="yeer > 1"), lambda c: c.search("a", where="year >"), lambda c: c.search(id="nope"),
    lambda c: c.search("a", space="nope"), lambda c: c.search(vector=[1.0, 2.0]), lambda c: c.search(),
    lambda c: c.head("nope"), lambda c: c.head("subject@9"), lambda c: c.features(columns=["labl"]),
    lambda c: c.head("subject").predict([]), lambda c: c.delete(ids=["nope"]), lambda c: c.delete(),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_errors_are_equal_in_class_and_words(stores: tuple[Any, Any], wrong: Callable[[Any], Any]) -> None:
    raised = []
    for store in stores:
        with pytest.raises(pf.PermafrostError) as caught:
            wrong(store.collection("notes"))
        raised.append((type(caught.value), caught.value.what))
    assert raised[0] == raised[1]


def test_what_is_not_offered_says_what_to_do(stores: tuple[Any, Any]) -> None:
    with pytest.raises(pf.UsageError, match=r"(?s)does not offer verify.*do: +open the store's own folder"):
        stores[1].collection("notes").verify()
    with pytest.raises(pf.UsageError, match="takes no device"):
        pf.open("http://127.0.0.1:1", device="cpu")
    with pytest.raises(pf.UsageError, match="takes no api_key"):
        pf.open("somewhere", api_key="k")


@pytest.mark.parametrize("url", ["http://", "http://a?b=c", "http://key@host:1", "http://host#x"])
def test_a_wrong_address_is_refused(url: str) -> None:
    with pytest.raises(pf.UsageError):
        pf.open(url)


def test_nobody_there_is_said_plainly() -> None:
    with pytest.raises(pf.PermafrostError, match=r"(?s)cannot be reached.*where: http://127.0.0.1:1\n"):
        pf.open("http://127.0.0.1:1").ls()


def test_writes_reach_the_store(store: Path) -> None:
    process, url = serve(store)
    try:
        notes = pf.open(url).collection("notes")
        assert notes.delete(ids=["n0", "n1", "nobody"]) == 2
        assert notes.info()["items"] == 38
        rows = [{"id": f"new{i}", "text": f"a green cow {i}", "year": i, "label": "cow"} for i in range(90)]
        run = notes.embed(rows, encoder="hashing:64")
        assert (run.found, run.embedded, run.failed) == (90, 90, 0)
        assert notes.embed(rows, encoder="hashing:64").unchanged == 90
        notes.label("new1", label="bull")
        assert notes.search("a green cow 1", k=1, where="label = 'bull'").ids == ["new1"]
        assert notes.delete(where="label = 'cow'") == 89
        head = notes.train("label", name="again")
        assert head.predict(["a red boat"]).labels == ["boat"]
        with pytest.raises(pf.UnknownName, match="'yeer'"):
            notes.train("yeer")
        assert notes.index(kind="flat")["kind"] == "flat"
    finally:
        process.terminate()
        finish(process)


class Scripted(BaseHTTPRequestHandler):
    """Gives the answers of a script, one after the other."""

    script: list[tuple[int, dict[str, str], Any]]
    seen: list[tuple[str, str | None]]

    def do_GET(self) -> None:
        self.seen.append((self.path, self.headers["authorization"]))
        status, headers, body = self.script.pop(0)
        data = json.dumps(body).encode() if not isinstance(body, bytes) else body
        self.send_response(status)
        for name, value in {**headers, "content-length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def scripted() -> Iterator[tuple[str, type[Scripted]]]:
    handler = type("Handler", (Scripted,), {"script": [], "seen": []})
    server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler
    server.shutdown()
    thread.join()
    server.server_close()


def failing(kind: str, message: str = "no") -> dict[str, Any]:
    return {"error": {"type": kind, "message": message, "hint": "h", "param": None, "code": "c", "request_id": "r1"}}


def test_overload_and_loading_are_waited_out_and_the_key_is_sent(scripted: tuple[str, type[Scripted]]) -> None:
    url, handler = scripted
    handler.script += [
        (429, {"retry-after": "0"}, failing("overloaded")),
        (503, {}, failing("not_ready")),
        (200, {}, {}),
    ]
    assert Transport(url, api_key="secret").json("GET", "v1", "a/b c", "..") == {}
    assert handler.seen == [("/v1/a%2Fb%20c/%2E%2E", "Bearer secret")] * 3


def test_patience_ends(scripted: tuple[str, type[Scripted]]) -> None:
    url, handler = scripted
    handler.script += [(429, {"retry-after": "500"}, failing("overloaded"))]
    with pytest.raises(pf.PermafrostError, match="no") as caught:
        Transport(url).json("GET", "x")
    assert caught.value.type == "overloaded"
    assert len(handler.seen) == 1


@pytest.mark.parametrize(
    ("status", "body", "kind", "said"),
    [
        (
            409,
            failing("space_mismatch", "a, not b (differs in: layer)"),
            pf.SpaceMismatch,
            "a, not b\nwhere: differs in",
        ),
        (415, failing("undecodable"), pf.Undecodable, "no"),
        (401, failing("unauthorized", "a key is needed"), pf.UsageError, "a key is needed"),
        (500, failing("internal_error"), pf.PermafrostError, "request r1"),
        (405, failing("method_not_allowed"), pf.UsageError, "version"),
        (200, b"<html>", pf.PermafrostError, "no Permafrost service"),
        (404, b"<html>", pf.PermafrostError, "no Permafrost service"),
        (302, failing("x"), pf.PermafrostError, "no"),
    ],
)
def test_errors_come_back_in_their_own_class(
    scripted: tuple[str, type[Scripted]], status: int, body: Any, kind: type[Exception], said: str
) -> None:
    url, handler = scripted
    handler.script += [(status, {}, body)]
    with pytest.raises(kind) as caught:
        Transport(url).json("GET", "x")
    assert said in str(caught.value)
