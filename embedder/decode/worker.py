"""The process that decodes: reads requests on stdin, answers on stdout, until stdin ends.

Imports decoders, numpy and light modules of ours only: no torch, hence a fast start and little memory. It holds nothing
that could be lost, so the pool may kill it at any time.

    request  the transform, the path, or the file's bytes where there is no path
    answer   {"shape", "content_hash", "size", "mtime_ns", "read_ms", "decode_ms"}, and the pixels; or
             {"stage", "reason", "exception", "message"} and the facts known by then
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import importlib
import json
import os
import resource
import signal
import sys
from collections.abc import Callable
from functools import lru_cache
from time import perf_counter
from typing import Any, BinaryIO

import numpy as np
from PIL import AvifImagePlugin, Image, ImageFile

from embedder.decode import frames
from embedder.decode.image import MAX_PIXELS
from embedder.errors import Undecodable
from embedder.reading import read_file
from embedder.records import Pixels
from embedder.transform import ImageTransform

Decoder = Callable[[bytes, tuple[int, int, int]], Image.Image | Pixels]
MAX_LOG = 1 << 20
NOTHING = memoryview(b"")
# glibc's names for what `mallopt` sets, and bytes
KEPT = {"M_MMAP_THRESHOLD": (-3, 32 << 20), "M_TRIM_THRESHOLD": (-1, 64 << 20)}


def main(memory_bytes: str, timeout_s: str, decoder: str) -> None:
    """Serve until stdin ends. `decoder` names the module whose `decode(data, background)` is called."""
    requests, answers = sys.stdin.buffer, os.dup(1)
    # what a library prints must not end up between two frames
    os.dup2(2, 1)
    decode: Decoder = importlib.import_module(decoder).decode
    _confine(int(memory_bytes))
    _keep_memory()
    # should the pool be gone or stopped, the kernel ends a stuck decoder without us
    patience = 1.5 * float(timeout_s) + 1
    _write(answers, {"ready": os.getpid()}, NOTHING)
    while (request := _read(requests)) is not None:
        signal.setitimer(signal.ITIMER_REAL, patience)
        header, pixels = answer(*request, decode)
        _write(answers, header, pixels)
        signal.setitimer(signal.ITIMER_REAL, 0)


def answer(record: bytes, path: str, content: bytes, decode: Decoder) -> tuple[dict[str, Any], memoryview]:
    """Read, hash, decode and transform one picture; a failure is an answer too."""
    started = perf_counter()
    facts: dict[str, Any] = {}
    try:
        data, mtime_ns = content, None
        if path:
            data, _, mtime_ns = read_file(path)
        facts = {"size": len(data), "mtime_ns": mtime_ns, "content_hash": hashlib.sha256(data).hexdigest()}
        facts["read_ms"] = 1e3 * (perf_counter() - started)
        transform = _transform(record)
        pixels = np.ascontiguousarray(transform.pixels(decode(data, transform.background)))
        facts["decode_ms"] = 1e3 * (perf_counter() - started) - facts["read_ms"]
    except Undecodable as error:
        message = error.what + (f" ({error.hint})" if error.hint else "")
        return facts | _failed(error.stage, error.reason, error.__cause__ or error, message), NOTHING
    except MemoryError as error:
        message = "decoding it needs more memory than a worker may take"
        return facts | _failed("decode", "out_of_memory", error, message), NOTHING
    return {**facts, "shape": pixels.shape}, pixels.reshape(-1).data


def _failed(stage: str, reason: str, cause: BaseException, message: str) -> dict[str, Any]:
    return {
        "stage": stage,
        "reason": reason,
        "exception": type(cause).__name__,
        "message": message[: frames.MAX_MESSAGE],
    }


@lru_cache(maxsize=8)
def _transform(record: bytes) -> ImageTransform:
    return ImageTransform.from_json(json.loads(record))


def _confine(memory_bytes: int) -> None:
    """Take limits that hold whatever a decoder does: memory, core files, log size; and leave Ctrl-C to the parent."""
    for kind, most in ((resource.RLIMIT_AS, memory_bytes), (resource.RLIMIT_CORE, 0), (resource.RLIMIT_FSIZE, MAX_LOG)):
        hard = resource.getrlimit(kind)[1]
        value = most if hard == resource.RLIM_INFINITY else min(most, hard)
        # macOS has RLIMIT_AS but refuses to set it
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(kind, (value, value))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    Image.MAX_IMAGE_PIXELS = MAX_PIXELS
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _keep_memory() -> None:
    """Let the next picture have the memory of the last: to fault it in anew is not free.

    Only with glibc; others keep what they do.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        for option, most in KEPT.values():
            mallopt(option, most)


def _read(source: BinaryIO) -> tuple[bytes, str, bytes] | None:
    lengths = source.read(frames.REQUEST.size)
    if len(lengths) < frames.REQUEST.size:
        return None
    transform_bytes, path_bytes, content_bytes = frames.REQUEST.unpack(lengths)
    known = source.read(transform_bytes + path_bytes)
    return known[:transform_bytes], known[transform_bytes:].decode("utf-8", "surrogatepass"), source.read(content_bytes)


def _write(handle: int, header: dict[str, Any], pixels: memoryview) -> None:
    parts = [memoryview(frames.answer(header, len(pixels))), pixels]
    while parts:
        frames.advance(parts, os.writev(handle, parts))
