"""No weights: hashed words and letters, and small signatures of pictures. For tests and baselines. `hashing:64`.

Both towers lead into one Space so that everything can be exercised with it; a text and a picture are near each other
only by chance. The first component is a constant, so no vector has zero norm.
"""

from __future__ import annotations

import hashlib
import re
import zlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.encoders._common import describe, prompts, settings
from embedder.errors import UsageError
from embedder.naming import EncoderName
from embedder.records import Role
from embedder.transform import ImageTransform

OPTIONS = frozenset({"normalize", "fit", "background", "query_prompt", "document_prompt"})
CONSTANT = 0.1
SIDE = 8
GRAM = 3
LIMITS = (8, 4096)
WORD = re.compile(r"\w+")


def catalogue() -> list[str]:
    """Return one example; any dimension from 8 to 4096 can be asked for."""
    return ["hashing:64"]


def load(name: EncoderName, device: str) -> Encoder:
    """Build the encoder; there is nothing to load, and `device` is not used.

    Raises:
        UsageError: the name is not a dimension from 8 to 4096, or carries a revision.
    """
    dim = dimension(name, *LIMITS)
    chosen = settings(name)
    transform = ImageTransform(SIDE, SIDE, SIDE, (0, 0, 0), (1, 1, 1), "box", "squash").with_options(name)
    prompt = prompts(name)
    space = describe(
        name, chosen, dim=dim, architecture="hashing/1", weights={"none": True}, layer="hashed", pooling="sum",
        image=transform, text={"words": WORD.pattern, "letters": GRAM, "prompts": prompt},
    )  # fmt: skip
    signs = projection(SIDE * SIDE * 3, dim - 1)

    def tokenize(text: str, role: Role) -> list[str]:
        return terms(prompt[role] + text)

    def of_texts(prepared: Sequence[Any]) -> NDArray[np.floating[Any]]:
        return _with_constant(np.stack([bag(one, dim - 1) for one in prepared]))

    def of_images(prepared: Sequence[Any]) -> NDArray[np.floating[Any]]:
        areas = np.stack(prepared).reshape(len(prepared), -1).astype(np.float32) / 255
        # one picture at a time: a matrix product may round differently in another batch
        return _with_constant(np.stack([(one - 0.5) @ signs for one in areas]))

    return Encoder(name, space, "cpu", ImageTower(transform, of_images), TextTower(tokenize, len, of_texts, 8192))


def dimension(name: EncoderName, low: int, high: int) -> int:
    """Read the number that names an encoder without weights. Raises `UsageError`."""
    if not name.name.isdecimal() or not low <= int(name.name) <= high:
        raise UsageError(f"{name.kind}:N takes a whole number from {low} to {high}, not {name.name!r}", where=str(name))
    if name.revision:
        raise UsageError(f"{name.kind} has no revisions", where=str(name), hint=f"write {name.kind}:{name.name}")
    return int(name.name)


def terms(text: str) -> list[str]:
    """Return the words of a text and its overlapping groups of three characters, each with a letter for its sort."""
    low = " ".join(text.lower().split())
    padded = f" {low} "
    return [f"w{word}" for word in WORD.findall(low)] + [
        f"c{padded[i : i + GRAM]}" for i in range(max(1, len(padded) - GRAM + 1))
    ]


def bag(found: Sequence[str], buckets: int) -> NDArray[np.float32]:
    """Return signed counts; the bucket and the sign come from the CRC-32 of each term, the same on every machine."""
    row = np.zeros(buckets, dtype=np.float32)
    for term in found:
        bucket, sign = divmod(zlib.crc32(term.encode()), 2)
        row[bucket % buckets] += (1.0 if sign else -1.0) * (2.0 if term[0] == "w" else 1.0)
    return row


def projection(rows: int, columns: int) -> NDArray[np.float32]:
    """Return a fixed matrix of +1 and -1, drawn from SHAKE-128 so that it never depends on a library's generator."""
    raw = hashlib.shake_128(b"permafrost hashing").digest((rows * columns + 7) // 8)
    bits = np.unpackbits(np.frombuffer(raw, dtype=np.uint8))[: rows * columns]
    return (bits.astype(np.float32) * 2 - 1).reshape(rows, columns)


def _with_constant(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = rows / np.where(norms > 0, norms, 1)
    return np.concatenate([np.full((len(rows), 1), CONSTANT, dtype=np.float32), unit], axis=1)
