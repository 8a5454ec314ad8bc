"""Does memory stay flat? `soak.py [REQUESTS]`: a service under 8 clients, and what it holds as they go on.

Half of the requests embed a text that was never sent before, so that the cache of vectors turns over; the rest search
by such a text, by an item, and by a vector. The weights are those of `hashing:1024`, which are none.
"""

from __future__ import annotations

import sys
import tempfile
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np

sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benches import serve  # noqa: E402

from api.service import Service  # noqa: E402
from api.settings import Settings  # noqa: E402

MODEL, ROWS, TURN, CLIENTS = "hashing:1024", 2000, 1000, 8


def main(requests: int) -> None:
    """Send the requests in turns, and print the memory after each tenth."""
    queries = np.random.default_rng(0).standard_normal((TURN // 4, 1024), dtype=np.float32)
    with tempfile.TemporaryDirectory(prefix="permafrost-soak-") as folder:
        work = Path(folder)
        fill(work)
        command = ["-m", "api", "--store", str(work / "store"), "serve", "--port", "{port}", "--model", MODEL]
        url = serve.started(command, "/readyz")
        for sent in range(0, requests, TURN):
            embedded = [{"model": MODEL, "input": f"text {sent + n} of many"} for n in range(TURN // 2)]
            serve.sent(f"{url}/v1/embeddings", CLIENTS, serve.lines(work / "a", embedded))
            asked: list[dict[str, Any]] = [
                {"vector": queries[n].round(6).tolist()} if n % 2 else {"id": str((sent + n) % ROWS)}
                for n in range(TURN // 4)
            ]
            asked += [{"text": f"query {sent + n}"} for n in range(TURN // 4)]
            bodies = serve.lines(work / "b", [{"query": query} for query in asked])
            serve.sent(f"{url}/v1/collections/vectors/search", CLIENTS, bodies)
            if (sent + TURN) % (requests // 10) == 0:
                print(f"{sent + TURN} requests: {held(url) / 2**20:.1f} MiB", flush=True)


def fill(work: Path) -> None:
    """Make the store that is searched."""
    lines = ["id,text", *(f"{n},item {n} of the store" for n in range(ROWS))]
    (work / "texts.csv").write_text("\n".join(lines), encoding="utf-8")
    service = Service(Settings(store=str(work / "store")))
    service.embed(str(work / "texts.csv"), "vectors", encoders=[MODEL])
    service.close()


def held(url: str) -> float:
    """Return the bytes that the service says it holds."""
    with urllib.request.urlopen(f"{url}/metrics", timeout=60) as reply:
        lines = reply.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("permafrost_memory_bytes "))


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 100_000)
