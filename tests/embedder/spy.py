"""An encoder that keeps what each forward pass was given, and whose vectors can be computed by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from embedder import extract
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.naming import EncoderName
from embedder.records import Decoded, Failure, Item, Medium, Vectors
from embedder.space import Space
from embedder.stages import Stages
from embedder.transform import ImageTransform
from tests.embedder.sources import png

DIM = 6
TRANSFORM = ImageTransform(4, 4, 4, (0, 0, 0), (1, 1, 1), "box", "squash")
Forward = Callable[[Sequence[Any]], Any]


def vector(key: bytes) -> np.ndarray:
    """The vector planted for a content."""
    row = np.frombuffer(hashlib.sha256(key).digest()[: 4 * DIM], dtype="<u4").astype(np.float64)
    return np.asarray(row / np.linalg.norm(row), dtype=np.float32)


def of_texts(prepared: Sequence[list[str]]) -> np.ndarray:
    return np.stack([vector(" ".join(words).encode()) for words in prepared])


class Spy:
    """An encoder of planted vectors that keeps what each forward pass was given. A token is a word."""

    def __init__(self, forward: Forward = of_texts, *, device: str = "cpu", normalize: bool = True) -> None:
        self.calls: list[list[Any]] = []
        self._forward = forward
        text = TextTower(lambda text, role: text.split(), len, self.forward, 10_000)
        space = Space("spy:6", DIM, ("image", "text"), {"normalize": normalize})
        image = ImageTower(TRANSFORM, self.forward)
        self.encoder = Encoder(EncoderName("spy", "6"), space, device, image, text)

    def forward(self, prepared: Sequence[Any]) -> Any:
        self.calls.append(list(prepared))
        return self._forward(prepared)

    def run(self, items: Iterable[Item], **options: Any) -> list[Vectors | Failure]:
        given: dict[str, Any] = {"pool": None, "batch_size": None, "stages": Stages(), **options}
        medium: Medium = "text" if given["pool"] is None else "image"
        return list(extract.extract(items, self.encoder, medium, **given))

    @property
    def sizes(self) -> list[int]:
        return [len(call) for call in self.calls]


def text_items(*texts: str) -> list[Item]:
    return [Item(str(n), "text", f"t#{n}", text=text) for n, text in enumerate(texts)]


def picture_items(*words: str) -> list[Item]:
    return [Item(str(n), "image", f"{word}.png", data=png(word)) for n, word in enumerate(words)]


def split(found: Iterable[Vectors | Failure]) -> tuple[dict[str, np.ndarray], dict[str, Failure]]:
    """Vectors and failures by id; an id that comes twice is noticed."""
    vectors: dict[str, np.ndarray] = {}
    failures: dict[str, Failure] = {}
    for one in found:
        if isinstance(one, Failure):
            assert one.id not in failures
            failures[one.id] = one
            continue
        assert one.array.dtype == np.float32
        assert one.array.flags.c_contiguous
        assert one.array.shape == (len(one.decoded), DIM)
        for decoded, row in zip(one.decoded, one.array, strict=True):
            assert decoded.item.id not in vectors
            vectors[decoded.item.id] = row
    assert not vectors.keys() & failures.keys()
    return vectors, failures


def troubled(prepared: Sequence[list[str]]) -> np.ndarray:
    """Planted vectors, and trouble for the texts that ask for it."""
    for words in prepared:
        if words[0] == "raise":
            raise RuntimeError("cannot")
    rows = of_texts(prepared)
    for row, words in zip(rows, prepared, strict=True):
        if words[0] in ("nan", "inf", "zero"):
            row[-1 if words[0] == "nan" else slice(None)] = float(words[0].replace("zero", "0"))
    return rows


class Ready:
    """Stands in for the pool: pictures that are decoded already."""

    def map(self, items: Iterable[Item], transform: ImageTransform, ahead: int) -> Iterator[Decoded | Failure]:
        self.ahead = ahead
        for item in items:
            yield Decoded(item, item.id, np.full((4, 4, 3), int(item.id) % 251, np.uint8), 48, decode_ms=2.0)
