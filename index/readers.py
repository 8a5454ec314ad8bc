"""Who is reading: a purge waits until nobody is, and lets nobody in until it is done.

Each read of several steps holds a shared lock on `locks/readers.lock` while it lasts, in every process. A purge first
takes `locks/gate.lock`, through which every reader passes in front of that lock, so that readers without an end cannot
keep it waiting. The locks are the kernel's (`flock`): they end with the process that holds them.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from embedder.errors import Locked
from index.store import Collection

GATE, READERS = "gate", "readers"
DRAIN_WAIT_S = 60.0
PAUSE_S = 0.005

_held = threading.local()


@contextlib.contextmanager
def reading(collection: Collection) -> Iterator[None]:
    """Keep a purge away for the length of one read; a thread that holds this may take it again."""
    depth: dict[Path, int] = _held.__dict__.setdefault("depth", {})
    if depth.get(collection.path, 0):
        depth[collection.path] += 1
        try:
            yield
        finally:
            depth[collection.path] -= 1
        return
    with contextlib.ExitStack() as held:
        gate, readers = _open(collection, GATE), _open(collection, READERS)
        for handle in (gate, readers):
            if handle is not None:
                held.callback(os.close, handle)
        if gate is not None and readers is not None:
            fcntl.flock(gate, fcntl.LOCK_SH)
            fcntl.flock(readers, fcntl.LOCK_SH)
            fcntl.flock(gate, fcntl.LOCK_UN)
        depth[collection.path] = 1
        try:
            yield
        finally:
            del depth[collection.path]


@contextlib.contextmanager
def drained(collection: Collection, wait_s: float = DRAIN_WAIT_S) -> Iterator[None]:
    """Wait until nobody reads, and let nobody in until the block ends.

    Raises:
        Locked: somebody still read after `wait_s` seconds.
    """
    deadline = time.monotonic() + wait_s
    with contextlib.ExitStack() as held:
        for name in (GATE, READERS):
            path = collection.lock_path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            held.callback(os.close, handle)
            _exclusive(handle, deadline, path, wait_s)
        yield


def _exclusive(handle: int, deadline: float, path: Path, wait_s: float) -> None:
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError as error:
            if time.monotonic() > deadline:
                raise Locked(
                    f"a query was still running after {wait_s:.0f} s", where=str(path), hint="run this again later"
                ) from error
            time.sleep(PAUSE_S)


def _open(collection: Collection, name: str) -> int | None:
    """Open a lock file; None where there is none and none can be made: nothing can be purged there either."""
    path = collection.lock_path(name)
    try:
        return os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        with contextlib.suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            return os.open(path, os.O_RDONLY | os.O_CREAT, 0o644)
    return None
