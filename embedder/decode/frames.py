"""What the pool and its workers say to each other: a JSON header and raw bytes, both with their length before them."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from typing import Any

LENGTHS = struct.Struct(">II")
MAX_HEADER = 1 << 20


def head(header: Mapping[str, Any], body_bytes: int) -> bytes:
    """Return everything of a frame but its body."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode("ascii")
    return LENGTHS.pack(len(text), body_bytes) + text
