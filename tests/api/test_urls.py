"""Pictures by address: 35 hosts that must not be reached, a resolver that changes its mind, a misleading server."""

from __future__ import annotations

import base64
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api import urls
from api.app import create_app
from api.serving import Served, Serving
from api.settings import Settings
from embedder.errors import PermafrostError, Undecodable, UsageError
from tests.api.conftest import COLOURS, picture, png

PUBLIC = "93.184.215.14"
HOSTS = (
    "127.0.0.1", "127.1", "2130706433", "0x7f000001", "0177.0.0.1", "0", "0.0.0.0", "localhost", "localhost.",
    "①②⑦.⓪.⓪.①", "127.0.0.1.", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.0.1", "169.254.169.254",
    "100.64.0.1", "192.0.0.192", "192.88.99.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "[::1]",
    "[::]", "[::ffff:127.0.0.1]", "[::7f00:1]", "[64:ff9b::7f00:1]", "[64:ff9b:1::1]", "[2002:7f00:1::]", "[fe80::1]",
    "[fc00::1]", "[fec0::1]", "[ff02::1]", "[2001:db8::1]",
)  # fmt: skip
WRITTEN = (
    "ftp://a.example/", "file:///etc/passwd", "http://a.example:8080/", "http://u:p@a.example/", "http://a.example\\@b.example/",
    "http://a.example/\r\nx: y", "http://", "https://[::1", "http://a.example:99999/", "http://a b.example/", "gopher://a.example:80/",
    "http://[fe80::1%25eth0]/", "http://intranet/",
)  # fmt: skip


def never(address: tuple[str, int], timeout: float) -> socket.socket:
    raise AssertionError(f"connected to {address}")


def literal(name: str, port: int) -> Sequence[str]:
    """Resolve an IP address to itself, an example to a public address, and the rest to this machine."""
    if name[:1].isdigit() or ":" in name:
        return [name.rstrip(".")]
    return [PUBLIC if name.endswith(".example") else "127.0.0.1"]


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_of_this_machine_or_network_is_reached(host: str) -> None:
    with pytest.raises(UsageError):
        urls.fetched(f"http://{host}/x.png", resolve=literal, dial=never)
    with pytest.raises(UsageError):
        # the same, asked of the machine's own resolver, which reads more spellings than a parser does
        urls.fetched(f"https://{host}/x.png", dial=never)


@pytest.mark.parametrize("url", WRITTEN)
def test_what_is_no_plain_address_is_refused(url: str) -> None:
    with pytest.raises(UsageError):
        urls.fetched(url, resolve=lambda name, port: [PUBLIC], dial=never)


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::1", "fec0::1", "100.127.255.255"]
)
def test_a_name_with_one_address_inside_is_refused(address: str) -> None:
    with pytest.raises(UsageError, match="public internet"):
        urls.fetched("http://a.example/", resolve=lambda name, port: [PUBLIC, address], dial=never)


def test_public_addresses_are_public() -> None:
    assert all(urls.is_public(one) for one in ("8.8.8.8", PUBLIC, "2606:4700::1111", "2a00:1450:4001:80b::200e"))


class Misleading(BaseHTTPRequestHandler):
    """Answers by path: a picture, redirects, too much, too slowly."""

    def do_GET(self) -> None:
        hop = int(self.path[4:] or 0) if self.path.startswith("/hop") else 0
        where = {"/in": "http://127.0.0.1/secret", "/up": "//b.example/ok", "/file": "file:///etc/passwd"}
        if hop or self.path in where:
            self.send_response(302)
            self.send_header("location", where.get(self.path) or (f"/hop{hop - 1}" if hop > 1 else "/ok"))
            self.send_header("content-length", "0")
            self.end_headers()
            return
        self.send_response(404 if self.path == "/none" else 200)
        self.send_header("content-length", str(11 << 20 if self.path == "/big" else 99 if self.path == "/slow" else 2))
        self.end_headers()
        with_body = {"/big": bytes(11 << 20), "/slow": b"x"}.get(self.path, b"ok")
        try:
            self.wfile.write(with_body)
            while self.path == "/slow":
                time.sleep(0.05)
                self.wfile.write(b"x")
        except OSError:
            self.close_connection = True

    def log_message(self, format: str, *args: object) -> None:
        pass


Reach = Callable[[tuple[str, int], float], socket.socket]


@pytest.fixture(scope="module")
def reach() -> Iterator[Reach]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Misleading)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def dial(address: tuple[str, int], timeout: float) -> socket.socket:
        assert address == (PUBLIC, 80)
        return socket.create_connection(("127.0.0.1", server.server_port), timeout)

    yield dial
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_address_that_was_checked_is_the_one_that_is_reached(reach: Reach) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]
    assert urls.fetched("http://a.example/ok", resolve=lambda name, port: answers.pop(0), dial=reach) == b"ok"
    assert answers == [["127.0.0.1"]], "resolved once"


@pytest.mark.parametrize("path", ["ok", "up", "hop3"])
def test_redirects_are_followed_three_times(reach: Reach, path: str) -> None:
    assert urls.fetched(f"http://a.example/{path}", resolve=lambda name, port: [PUBLIC], dial=reach) == b"ok"


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("in", UsageError),
        ("file", UsageError),
        ("hop4", Undecodable),
        ("none", Undecodable),
        ("big", Undecodable),
        ("slow", Undecodable),
    ],
)
def test_what_misleads_is_an_error(
    reach: Reach, path: str, error: type[PermafrostError], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(urls, "MOST_S", 1.0 if path == "slow" else 30.0)
    with pytest.raises(error):
        urls.fetched(f"http://a.example/{path}", resolve=literal, dial=reach)


def test_a_resolver_that_hangs_is_within_the_deadline_and_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(urls, "MOST_S", 0.05)
    monkeypatch.setattr(urls, "RESOLVERS", threading.BoundedSemaphore(2))
    answered = threading.Event()

    def hangs(name: str, port: int) -> Sequence[str]:
        assert answered.wait(60)
        return [PUBLIC]

    for why in ("in time", "in time", "too many"):
        with pytest.raises(Undecodable, match=why):
            urls.fetched("http://a.example/x.png", resolve=hangs, dial=never)
    answered.set()
    for thread in threading.enumerate():
        if thread.name == "resolve":
            thread.join(60)
    # what hung and has answered since makes room again
    monkeypatch.setattr(urls, "MOST_S", 60.0)
    with pytest.raises(Undecodable, match="not known"):
        urls.fetched("http://a.example/x.png", resolve=unknown, dial=never)


def unknown(name: str, port: int) -> Sequence[str]:
    raise socket.gaierror(socket.EAI_NONAME, "not known")


@pytest.mark.parametrize("allowed", [False, True])
def test_an_address_is_a_query_only_where_that_is_allowed(
    store: Path, allowed: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, asked = png(picture(COLOURS["red"], 77)), list[str]()
    monkeypatch.setattr(urls, "fetched", lambda url: asked.append(url) or data)
    service = Serving(Settings(store=str(store)), Served(allow_urls=allowed))
    with closing(service), TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        body = {"query": {"image": "https://a.example/red.png"}, "k": 3}
        reply = client.post("/v1/collections/pics/search", json=body)
        predicted = client.post("/v1/collections/pics/heads/colour/predict", json={"inputs": [body["query"]]})
        if not allowed:
            assert (reply.status_code, predicted.status_code, asked) == (422, 422, [])
            assert "--allow-urls" in reply.json()["error"]["hint"]
            return
        plain = client.post(
            "/v1/collections/pics/search", json={"query": {"image": base64.b64encode(data).decode()}, "k": 3}
        )
        assert reply.json()["hits"] == plain.json()["hits"]
        assert predicted.json()["results"][0]["label"] == "red"
        assert asked == ["https://a.example/red.png"] * 2
