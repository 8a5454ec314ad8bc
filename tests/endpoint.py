"""An OpenAI-compatible endpoint on this machine, which can be told to misbehave."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from embedder.encoders.hashing import bag, terms
from embedder.records import FloatMatrix
from embedder.remote import Endpoint

MODELS = ("tiny", "org/other")
DIM = 24
KEY = "sk-planted-1234567890"


def vectors(texts: list[str], model: str = "tiny", dimensions: int | None = None) -> FloatMatrix:
    """What the endpoint's model makes of texts: (n, 24) or (n, dimensions), not of unit length."""
    rows = np.stack([np.roll(bag(terms(text), DIM), MODELS.index(model)) for text in texts]) + 0.5
    return np.ascontiguousarray(rows[:, :dimensions], dtype=np.float32)


@dataclass(frozen=True)
class Odd:
    """One answer that is not as it should be. `status` with `body` and `headers` replace it; `seconds` delay it."""

    status: int = 200
    body: Any = None
    headers: Mapping[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    how: str = ""


@dataclass
class Fake:
    """The endpoint: what it was asked, and what it will answer to the next requests; `most` is the most texts."""

    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)
    keys: list[str | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    coming: deque[Odd] = field(default_factory=deque)
    most: int = 2048

    def endpoint(self, **more: Any) -> Endpoint:
        """Return the settings that lead here, quick to lose patience."""
        return Endpoint(self.url, **{"api_key": KEY, "timeout_s": 5.0, "attempts": 4, "backoff_s": 0.01, **more})

    def answer(self, body: dict[str, Any], odd: Odd) -> tuple[int, Any]:
        """Return the status and the document for one request."""
        if odd.status != 200:
            return odd.status, odd.body if odd.body is not None else {"error": {"message": f"said {odd.status}"}}
        if body["model"] not in MODELS:
            return 404, {"error": {"message": f"The model {body['model']} does not exist", "code": "model_not_found"}}
        if len(body["input"]) > self.most:
            return 413, {"message": f"batch size {len(body['input'])} > {self.most}", "type": "Validation"}
        if "REFUSE" in body["input"] or "REFUSE" in "".join(body["input"]):
            return 400, {"error": {"message": "a text is not allowed"}}
        rows = [
            {"object": "embedding", "index": i, "embedding": self.packed(row, body, odd.how)}
            for i, row in enumerate(vectors(body["input"], body["model"], body.get("dimensions")))
        ]
        changed = {
            "reversed": rows[::-1], "short": rows[:-1], "long": [*rows, rows[0]], "twice": [rows[0]] * len(rows),
            "unnumbered": [{"embedding": row["embedding"]} for row in rows],
        }  # fmt: skip
        return 200, odd.body if odd.body is not None else {"object": "list", "data": changed.get(odd.how, rows)}

    def packed(self, row: FloatMatrix, body: dict[str, Any], how: str) -> Any:
        """Return one vector as the request wants it, unless told to ignore that."""
        if how == "full":
            row = np.resize(row, DIM)
        if how == "floats" or body.get("encoding_format") != "base64":
            return [float(x) for x in row]
        return base64.b64encode(row.astype("<f4").tobytes()[: -1 if how == "cut" else None]).decode()


def _handler(fake: Fake) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            assert self.path == "/v1/embeddings", self.path
            fake.asked.append(body)
            fake.keys.append(self.headers["Authorization"])
            fake.times.append(time.monotonic())
            odd = fake.coming.popleft() if fake.coming else Odd()
            time.sleep(odd.seconds)
            status, document = fake.answer(body, odd)
            data = document.encode() if isinstance(document, str) else json.dumps(document).encode()
            try:
                self.send_response(status)
                for name, value in {**odd.headers, "Content-Length": str(len(data))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data)
            except BrokenPipeError:
                self.close_connection = True

        def log_message(self, *_: object) -> None:
            return

    return Handler


def started() -> tuple[Fake, ThreadingHTTPServer]:
    """Start an endpoint in a thread that ends with this process."""
    fake = Fake()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(fake))
    server.daemon_threads = True
    fake.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    return fake, server


@contextmanager
def running() -> Iterator[Fake]:
    """Start an endpoint, and stop it at the end."""
    fake, server = started()
    try:
        yield fake
    finally:
        server.shutdown()
        server.server_close()
