"""The latest vectors of queries, by what they are of: asked again, they are not encoded again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from embedder.records import FloatMatrix

MOST_BYTES = 64 << 20
OVERHEAD = 400
Name = tuple[str, str, str, str]
"""Fingerprint of the Space, medium, role, and the sha256 of the content in hex."""


class Recent:
    """A cache of at most `most_bytes`; the vector that was not asked for longest leaves first. Safe between threads."""

    def __init__(self, most_bytes: int = MOST_BYTES) -> None:
        self._most, self._bytes = most_bytes, 0
        self._rows: OrderedDict[Name, tuple[FloatMatrix, int]] = OrderedDict()
        self._lock = Lock()

    def get(self, name: Name) -> tuple[FloatMatrix, int] | None:
        """Return a vector (dim,) and the tokens that it cost, or None."""
        with self._lock:
            found = self._rows.get(name)
            if found is not None:
                self._rows.move_to_end(name)
            return found

    def put(self, name: Name, vector: FloatMatrix, tokens: int) -> None:
        """Keep a copy of a vector (dim,), so that it holds on to no batch."""
        kept = vector.copy()
        kept.setflags(write=False)
        with self._lock:
            self._drop(name)
            self._rows[name] = kept, tokens
            self._bytes += kept.nbytes + OVERHEAD
            while self._bytes > self._most and self._rows:
                self._drop(next(iter(self._rows)))

    def _drop(self, name: Name) -> None:
        gone = self._rows.pop(name, None)
        if gone is not None:
            self._bytes -= gone[0].nbytes + OVERHEAD
