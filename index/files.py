"""The files that are not Lance's: written whole or not at all, locked, leased, checksummed.

Every write of this room passes `checkpoint`, the seam where tests make the n-th write fail.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import socket
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from filelock import FileLock, Timeout

from embedder.errors import Damaged, Locked

LOCK_WAIT_S = 60.0
CRC = "crc32"
STOPS = (signal.SIGINT, signal.SIGTERM)


def _nothing(point: str) -> None:
    """Let every write through."""


fault: Callable[[str], None] = _nothing


def checkpoint(point: str) -> None:
    """Announce a write that is about to happen; a test may raise, or end the process, from here."""
    fault(point)


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file aside, sync it and rename it, so that a reader sees the old bytes or the new ones."""
    checkpoint(f"file:{path.name}")
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.parent / f".tmp-{os.getpid()}-{time.monotonic_ns()}"
    try:
        with open(aside, "wb") as out:
            out.write(data)
            out.flush()
            os.fsync(out.fileno())
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync_folder(path.parent)


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write an object as indented JSON with its `crc32`, atomically. Raises `ValueError` for NaN or infinity."""
    sealed = {**value, CRC: _crc_of(value)}
    write_bytes(path, json.dumps(sealed, indent=1, allow_nan=False).encode() + b"\n")


def read_json(path: Path) -> Any:
    """Read a JSON file of ours, without its `crc32`.

    Raises:
        Damaged: it is not JSON, or its checksum does not hold.
    """
    try:
        found = json.loads(path.read_bytes())
    except ValueError as error:
        raise Damaged(f"{path.name} is not JSON: {error}", where=str(path), hint="permafrost doctor") from error
    if isinstance(found, dict) and CRC in found and found.pop(CRC) != _crc_of(found):
        raise Damaged(f"{path.name} fails its checksum", where=str(path), hint="permafrost doctor")
    return found


def _crc_of(value: Mapping[str, Any]) -> int:
    return zlib.crc32(json.dumps(value, sort_keys=True, allow_nan=False).encode())


def sync_folder(folder: Path) -> None:
    """Make a rename in `folder` durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_file(path: Path) -> None:
    """Make the bytes of a file that another library wrote durable."""
    with open(path, "rb") as handle:
        os.fsync(handle.fileno())


def sha256(path: Path) -> str:
    """Return the sha256 of a file, in hex."""
    with open(path, "rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


_verified: dict[tuple[int, int, int, int], str] = {}


def check_sha256(path: Path, expected: str) -> None:
    """Compare a file with its checksum, once per (device, inode, size, mtime) in this process.

    Raises:
        Damaged: it is missing, or its bytes differ.
    """
    try:
        stat = path.stat()
    except FileNotFoundError as error:
        raise Damaged(f"{path.name} is missing", where=str(path)) from error
    stamp = (stat.st_dev, stat.st_ino, stat.st_size, stat.st_mtime_ns)
    if _verified.get(stamp) == expected:
        return
    found = sha256(path)
    if found != expected:
        raise Damaged(f"{path.name} fails its checksum", where=str(path))
    _verified[stamp] = expected


def forget_checksums() -> None:
    """Compare files anew from now on: bytes that rot leave the time of their file as it was."""
    _verified.clear()


@contextlib.contextmanager
def unbroken() -> Iterator[None]:
    """Let a first Ctrl-C or SIGTERM wait until the block has ended; a second is handled at once.

    Only signals that the main thread handles in Python wait: one that ends the process is as safe as a power cut.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    waiting: list[int] = []

    def hold(number: int, frame: FrameType | None) -> None:
        if waiting:
            before[number](number, frame)
        waiting.append(number)

    before = {int(number): handler for number in STOPS if callable(handler := signal.getsignal(number))}
    for number in before:
        signal.signal(number, hold)
    try:
        yield
    finally:
        for number, handler in before.items():
            # what a second signal has set in the meantime stays
            if signal.getsignal(number) is hold:
                signal.signal(number, handler)
        if len(waiting) == 1:
            before[waiting[0]](waiting[0], None)


@contextlib.contextmanager
def lock(path: Path, *, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """Hold a short lock; the system frees it when the process ends, however it ends.

    Raises:
        Locked: somebody else held it for `wait_s` seconds.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=wait_s):
            yield
    except Timeout as error:
        raise Locked(
            f"another process held {path.name} for {wait_s:.0f} s",
            where=str(path),
            hint="wait for it, then run this again",
        ) from error


@contextlib.contextmanager
def lease(path: Path, *, what: str) -> Iterator[None]:
    """Hold a lease for a whole run; a second holder is told who has it.

    Raises:
        Locked: the lease is taken; its holder's process, host and start are named.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    owner = path.with_suffix(".owner.json")
    held = FileLock(path, timeout=0)
    try:
        held.acquire()
    except Timeout as error:
        raise Locked(
            f"{what} is busy: {_owner(owner)}", where=str(path), hint="wait for that run, then run this again"
        ) from error
    try:
        started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        write_json(owner, {"pid": os.getpid(), "host": socket.gethostname(), "started": started, "what": what})
        yield
    finally:
        owner.unlink(missing_ok=True)
        held.release()


def is_leased(path: Path) -> bool:
    """Say whether a live process holds the lease."""
    if not path.exists():
        return False
    probe = FileLock(path, timeout=0)
    try:
        probe.acquire()
    except Timeout:
        return True
    probe.release()
    return False


def _owner(path: Path) -> str:
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        record = json.loads(path.read_bytes())
        return f"process {record['pid']} on {record['host']}, since {record['started']}"
    return "its holder left no name"
