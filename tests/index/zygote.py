"""Writers that are killed, forked from one process that has imported everything, so that a kill costs no start.

`python -m tests.index.zygote` answers each line `STORE INSTANT` with how the writer ended. INSTANT is `@n`, the n-th
write that it announces, or a number of seconds. Lance's runtime does not run in this process, only in its children.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np

import embedder.extract
import index.ingest
from embedder.encoder import Encoder, TextTower
from index import files
from index.store import Store
from tests.index.tools import Rows, planted, planted_vector, run

N, BATCH, PASS = 48, 12, 4
HUNG_S = 60.0


def rows() -> Rows:
    """What every writer embeds: every content once, so that each vector made beyond `N` was made again."""
    columns = {f"i{k}": {"label": f"l{k % 5}"} for k in range(N)}
    return Rows({f"i{k}": f"text {k}" for k in range(N)}, columns, {"label": "string"})


def logging(log: Path) -> Encoder:
    """The planted encoder; each text that it makes a vector of is a line in `log`, which outlives the process."""
    plain = planted()
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def forward(texts: list[str]) -> np.ndarray:
        os.write(out, "".join(f"{text}\n" for text in texts).encode())
        return np.stack([planted_vector(text) for text in texts])

    tower = TextTower(tokenize=lambda text, role: text, length=len, forward=forward, max_chars=1000)
    return Encoder(plain.name, plain.space, "cpu", text=tower)


def made(log: Path) -> Counter[str]:
    """How often each text of `rows` was encoded; golden texts are not counted."""
    return Counter(line for line in log.read_text().splitlines() if line.startswith("text "))


def write(store: Path, fault: Callable[[str], None]) -> None:
    """Make a collection and embed into it, in commits of `BATCH` that are made of passes of `PASS`."""
    embedder.extract.WINDOW = index.ingest.COMMIT_ROWS = BATCH
    files.fault = fault
    collection = Store.open(store, create=True).collection("c", create=True)
    run(collection, rows(), logging(store.with_suffix(".log")), batch_size=PASS)


def killer(n: int) -> Callable[[str], None]:
    """Return a fault that ends this process at the n-th announcement, as SIGKILL does."""
    seen = iter(range(1, n + 1))

    def fault(point: str) -> None:
        if next(seen, n) == n:
            os.kill(os.getpid(), signal.SIGKILL)

    return fault


def _child(store: Path, instant: str) -> None:
    code = 1
    try:
        write(store, killer(int(instant[1:])) if instant.startswith("@") else lambda point: None)
        code = 0
    finally:
        os._exit(code)


def _one(store: Path, instant: str) -> str:
    child = os.fork()
    if child == 0:
        _child(store, instant)
    limit = HUNG_S if instant.startswith("@") else float(instant)
    timer = threading.Timer(limit, os.kill, (child, signal.SIGKILL))
    timer.start()
    started = time.monotonic()
    _, status = os.waitpid(child, 0)
    timer.cancel()
    if time.monotonic() - started >= HUNG_S:
        return "hung"
    return "killed" if os.waitstatus_to_exitcode(status) == -signal.SIGKILL else f"exit {os.WEXITSTATUS(status)}"


if __name__ == "__main__":
    warnings.filterwarnings("ignore", "lancedb fork support", RuntimeWarning)
    for line in sys.stdin:
        path, _, moment = line.strip().rpartition(" ")
        print(_one(Path(path), moment), flush=True)
