"""The service under 1, 8 and 64 clients in a process of their own: searches by vector, and embeddings of one text each.

The notes have the median and the 99th percentile of one run in milliseconds, as the clients saw them. The limits are
the same work in the library, and a FastAPI application that answers 384 floats and does nothing else.

infinity is not among the peers: infinity-emb 0.0.78 installs, but wants numpy < 2 and older typer, click, rich and
uvicorn than the rest of this environment, so that it would need an environment of its own.
"""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from benches import inputs, vectors
from benches.frame import Contender

from embedder.encoder import Encoder, load_encoder
from embedder.records import FloatMatrix
from index.search import search
from index.view import View

UNIT = "requests"
CLIENTS = (1, 8, 64)
ROWS, K = 5000, 10
MODEL, HALF = "bundled:minilm", "bundled:minilm?dtype=bfloat16"
HERE = Path(__file__).parent
ROOT = HERE.parents[1]
STARTING_S = 120.0


def contenders(work: Path, options: Namespace) -> list[Contender]:
    """Start the servers on a store of 5,000 vectors, and return what asks them."""
    base, queries = vectors.planted(options.rows or ROWS, 64 if options.quick else 640)
    collection = vectors.filled(work, base)
    peer = started([str(HERE / "serve_peers.py"), "{port}", inputs.minilm_folder()], "/openapi.json")
    command = [
        "-m",
        "api",
        "--store",
        str(work / "store"),
        "serve",
        "--port",
        "{port}",
        "--model",
        MODEL,
        "--model",
        HALF,
    ]
    ours = started(command, "/readyz")
    view = View(collection, collection.space())
    texts = inputs.paragraphs(64 if options.quick else 384)
    return [*searches(work, view, queries, ours, peer), *embeddings(work, texts, ours, peer)]


def searches(work: Path, view: View, queries: FloatMatrix, ours: str, peer: str) -> Iterator[Contender]:
    """Yield searches by vector through the service, beside the echo and the search in process."""
    asked = lines(work / "searches", [{"query": {"vector": q.round(6).tolist()}, "k": K} for q in queries])
    few = lines(work / "few", [{"query": {"vector": q.round(6).tolist()}, "k": K} for q in queries[:64]])
    for clients in CLIENTS:
        scope, file = f"search, {clients} at once", few if clients == 1 else asked
        yield remote("limit", "FastAPI, 384 floats and nothing else", f"{peer}/echo", clients, file, scope)
        if clients == 1:
            yield local("permafrost search, in process", view, queries[:64], scope)
        url = f"{ours}/v1/collections/vectors/search"
        yield remote("us", "permafrost serve", url, clients, file, scope)


def embeddings(work: Path, texts: Sequence[str], ours: str, peer: str) -> Iterator[Contender]:
    """Yield embeddings of one text a request at 64 clients, beside the library's batches; no text comes twice."""
    encoder, scope, turn = load_encoder(MODEL), "embeddings, 64 at once", iter(range(10**6))

    def fresh(model: str = MODEL) -> Path:
        # what was asked before is answered from memory: each round asks for other texts
        words = [f"{next(turn)} {text}" for text in texts]
        return lines(work / "texts", [{"model": model, "input": text} for text in words])

    for size in (len(texts), 64):
        yield Contender(
            "limit", "the library, all in one call" if size > 64 else "the library, 64 in a call",
            partial(encoded, encoder, texts, size), scope, "texts of one length go together",
        )  # fmt: skip
    yield remote("peer", "sentence-transformers, a request at a time", f"{peer}/v1/embeddings", 64, fresh, scope)
    for name, model in (("permafrost serve", MODEL), ("permafrost serve, bfloat16", HALF)):
        yield remote("us", name, f"{ours}/v1/embeddings", 64, partial(fresh, model), scope)


def encoded(encoder: Encoder, texts: Sequence[str], size: int) -> int:
    """Encode the texts, `size` of them in each call, and return how many there are."""
    return sum(len(encoder.encode(texts[at : at + size])) for at in range(0, len(texts), size))


def local(name: str, view: View, queries: FloatMatrix, scope: str) -> Contender:
    """Return the searches without HTTP, one at a time."""
    took = []
    for at in range(len(queries)):
        began = time.perf_counter()
        search(view, queries[at : at + 1], k=K)
        took.append(1000 * (time.perf_counter() - began))

    def run() -> int:
        return sum(len(search(view, queries[at : at + 1], k=K)) for at in range(len(queries)))

    return Contender("limit", name, run, scope, percentiles(took))


def remote(role: Any, name: str, url: str, clients: int, file: Path | Callable[[], Path], scope: str) -> Contender:
    """Return requests from a process of clients; one run beforehand warms up, another is for the note."""
    make = file if callable(file) else lambda: file
    sent(url, clients, make())
    note = percentiles(sent(url, clients, make()))
    return Contender(role, name, lambda: len(sent(url, clients, make())), scope, note)


def sent(url: str, clients: int, file: Path) -> list[float]:
    """Send all the requests of a file and return the milliseconds of each answer."""
    asking = crowd()
    assert asking.stdin is not None
    assert asking.stdout is not None
    asking.stdin.write(f"{url} {clients} {file}\n")
    asking.stdin.flush()
    line = asking.stdout.readline()
    if not line:
        raise SystemExit(f"the clients of {url} ended: see above")
    found: list[float] = json.loads(line)
    return found


@cache
def crowd() -> subprocess.Popen[str]:
    """Return the process of the clients, started once: its start is no part of any figure."""
    command = [sys.executable, str(HERE / "serve_client.py")]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    atexit.register(process.kill)
    return process


def percentiles(took: Sequence[float]) -> str:
    """Return the median and the 99th percentile in words."""
    return f"p50 {np.percentile(took, 50):.2f} ms, p99 {np.percentile(took, 99):.2f} ms"


def lines(path: Path, bodies: Sequence[Any]) -> Path:
    """Write one body a line."""
    path.write_text("\n".join(json.dumps(body) for body in bodies), encoding="utf-8")
    return path


def started(command: Sequence[str], probe: str) -> str:
    """Start a server that is ended with this process, wait until it answers 200 at `probe`, and return its address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    said = [sys.executable, *(word.format(port=port) for word in command)]
    server = subprocess.Popen(said, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE)
    atexit.register(server.kill)
    until = time.monotonic() + STARTING_S
    while server.poll() is None and time.monotonic() < until:
        if answers(port, probe):
            return f"http://127.0.0.1:{port}"
        time.sleep(0.1)
    server.kill()
    raise SystemExit(f"{' '.join(said)} did not start: {server.communicate()[1].decode(errors='replace')[-500:]}")


def answers(port: int, path: str) -> bool:
    """Say whether a server answers 200."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as there:
            there.sendall(f"GET {path} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode())
            return b" 200 " in there.recv(64)
    except OSError:
        return False
