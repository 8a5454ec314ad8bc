"""What passes between rooms. Shapes, dtypes and units are stated here once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar, cast, dataclass_transform, get_args

import numpy as np
from numpy.typing import NDArray

from embedder.errors import Undecodable

T = TypeVar("T")
Medium = Literal["image", "text"]
Role = Literal["document", "query"]
Stage = Literal["list", "read", "decode", "encode", "write"]
MEDIA: tuple[Medium, ...] = get_args(Medium)

FloatMatrix = NDArray[np.float32]
"""Vectors as rows: shape (n, dim), float32, C-contiguous."""
Keys = NDArray[np.int64]
"""Row keys: shape (n,), int64; a key names one version of an item's content."""
Pixels = NDArray[np.uint8]
"""One picture: shape (height, width, 3), uint8, RGB."""


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def _record(cls: type[T]) -> type[T]:
    """Return a dataclass that type checkers hold to be frozen: one that is so at run time takes three times to make."""
    return dataclass(slots=True)(cls)


@_record
class Item:
    """One thing to embed, before it is read; nobody changes it after it was made.

    Exactly one of `path`, `data`, `text` and `remote` is set: a local file, the bytes of a file, the text itself, or
    what fetches the bytes when they are needed (raising `Undecodable`). `size` (bytes) and `mtime_ns` are those of the
    file, if there is one; they let an unchanged file be skipped. Of a remote file, `mtime_ns` may stand for its etag.
    """

    id: str
    medium: Medium
    source: str
    path: str | None = None
    data: bytes | None = None
    text: str | None = None
    size: int | None = None
    mtime_ns: int | None = None
    group: str | None = None
    columns: Mapping[str, Any] = field(default_factory=dict)
    remote: Callable[[], bytes] | None = None


@dataclass(frozen=True, slots=True)
class Decoded:
    """An item that was read and decoded.

    `value` is `Pixels` of the size that the encoder's transform asked for, or a string.
    `content_hash` is the sha256, in hex, of the file's bytes, or of the text in UTF-8.
    """

    item: Item
    content_hash: str
    value: Any
    size: int | None
    mtime_ns: int | None = None
    truncated: bool = False
    read_ms: float = 0.0
    decode_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """One item that did not become a vector: one line of `failures.jsonl`."""

    id: str
    source: str
    stage: Stage
    reason: str
    exception: str
    message: str
    bytes: int | None = None
    attempt: int = 1
    ms: float = 0.0

    @classmethod
    def of(cls, item: Item, error: Undecodable, *, size: int | None = None, ms: float = 0.0) -> Failure:
        """Name what became of `item`; `exception` is the class of the error's cause, where it has one."""
        message = error.what + (f" ({error.hint})" if error.hint else "")
        cause = type(error.__cause__ or error).__name__
        return cls(item.id, item.source, cast(Stage, error.stage), error.reason, cause, message, bytes=size, ms=ms)

    def as_json(self) -> dict[str, Any]:
        """Return the line's fields; the message is escaped and at most 200 characters."""
        text = self.message.encode("unicode_escape").decode("ascii")[:200]
        return {
            "id": self.id, "source": self.source, "stage": self.stage, "reason": self.reason,
            "exception": self.exception, "message": text, "bytes": self.bytes,
            "attempt": self.attempt, "ms": round(self.ms, 3),
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Vectors:
    """One encoded batch: the next `parts[i]` rows of `array` are the vectors of `decoded[i]`, part after part.

    `parts` None: one row each. An item's parts are never spread over two batches. The `value` of pictures is dropped.
    """

    decoded: tuple[Decoded, ...]
    array: FloatMatrix
    parts: tuple[int, ...] | None = None
