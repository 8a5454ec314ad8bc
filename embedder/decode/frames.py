"""What the pool and its workers say to each other: lengths, a header of JSON, and raw bytes."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

REQUEST = struct.Struct(">III")
"""Bytes of the transform (JSON), of the path, and of the file's content where there is no path; they follow in turn."""
PIXELS = struct.Struct(">I")
"""Bytes of the pixels, which an answer begins with; then the header, then the pixels."""
HEADER = 4096
"""Bytes of a header: JSON, filled up with spaces, so that it and the pixels can be read at one go."""
MAX_MESSAGE = 300
"""Characters of a message: at most twelve bytes each."""


def request(transform: bytes, path: str | None, content: bytes) -> bytes:
    """Return everything of a request but the content."""
    place = (path or "").encode("utf-8", "surrogatepass")
    return REQUEST.pack(len(transform), len(place), len(content)) + transform + place


def answer(header: Mapping[str, Any], pixel_bytes: int) -> bytes:
    """Return everything of an answer but the pixels."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("ascii")
    return PIXELS.pack(pixel_bytes) + text.ljust(HEADER)


def advance(parts: list[memoryview], done: int) -> None:
    """Take the first `done` bytes off `parts`."""
    while parts and done >= len(parts[0]):
        done -= len(parts.pop(0))
    if parts:
        parts[0] = parts[0][done:]
