"""A decoder for pool tests that does what the bytes tell it to: one word, and perhaps more behind a space."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import time

import numpy as np
from PIL import Image


def decode(data: bytes, background: tuple[int, int, int]) -> Image.Image:
    """Misbehave as told; `good N` gives a picture of one colour made of N, `pid` one made of the process id."""
    word, _, rest = data.decode().partition(" ")
    if word == "abort":
        os.abort()
    if word == "segv":
        ctypes.string_at(0)
    if word == "exit":
        sys.exit(3)
    if word == "bug":
        raise KeyError("a bug of ours")
    if word == "eat":
        np.ones(4 << 30, dtype=np.uint8)
    if word == "sleep":
        time.sleep(float(rest))
        rest = ""
    if word == "chatter":
        print("noise on stdout " * 1000, flush=True)
        os.write(1, b"and under it " * 1000)
        sys.stderr.write("noise on stderr " * 200_000)
    if word == "garble":
        for handle in range(3, 8):
            with contextlib.suppress(OSError):
                os.write(handle, b"\xff" * 64)
    if word == "last":
        sys.stderr.write("first line\nthe last words\n")
        sys.stderr.flush()
        os.abort()
    if word == "core":
        return colour(max(resource.getrlimit(resource.RLIMIT_CORE)) & 0xFFFFFF)
    return colour(os.getpid() if word == "pid" else int(rest or 0))


def colour(number: int) -> Image.Image:
    """A picture of one colour, which `number_of` turns back into the number."""
    return Image.new("RGB", (8, 8), (number >> 16 & 255, number >> 8 & 255, number & 255))


def number_of(pixels: np.ndarray) -> int:
    """The number that `colour` was made of, from any pixel."""
    red, green, blue = (int(v) for v in pixels[0, 0])
    return red << 16 | green << 8 | blue
