"""The verb of this room: items in; encoded batches and named failures out, decoding overlapped with the forward pass.

Pictures are decoded in worker processes that run ahead of the forward pass. Texts are tokenised a window at a time and
sorted by their true number of tokens, so that a batch holds little padding; they leave in another order than they came.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import numpy as np

from embedder.decode.text import decode_text
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, Item, Medium, Vectors

WINDOW = 1024
IMAGES_ON_CPU, IMAGES_ON_GPU = 8, 128
TOKENS_ON_CPU, TOKENS_ON_GPU = 2048, 32_768


@dataclass
class Stages:
    """Seconds spent in each stage. Reading and decoding pictures is summed over workers; `wait` is the time in which
    the forward pass stood idle for them; `workers` is how many there are."""

    read: float = 0.0
    decode: float = 0.0
    wait: float = 0.0
    encode: float = 0.0
    write: float = 0.0
    workers: int = 0

    def bottleneck(self) -> str:
        """Return the stage on which the run spent most of its own time: decode, encode or write."""
        own = {"decode": self.wait, "encode": self.encode, "write": self.write}
        return max(own, key=lambda name: own[name])

    def as_json(self) -> dict[str, float]:
        """Return the seconds, rounded."""
        return {name: round(getattr(self, name), 3) for name in ("read", "decode", "wait", "encode", "write")}


def extract(
    items: Iterable[Item],
    encoder: Encoder,
    medium: Medium,
    *,
    pool: DecodePool | None,
    batch_size: int | None,
    stages: Stages,
) -> Iterator[Vectors | Failure]:
    """Encode items of one medium.

    Args:
        pool: decodes pictures; not needed for texts.
        batch_size: pictures in a batch, or texts at most; None takes 8 pictures or 2,048 tokens on a CPU.
        stages: where the seconds are added up.

    Yields:
        `Vectors` with usable vectors only, and a `Failure` for each item that has none. No item stops another.
    """
    tower = encoder.tower(medium)
    if isinstance(tower, TextTower):
        yield from _texts(items, encoder, tower, batch_size, stages)
    elif pool is not None:
        yield from _images(items, encoder, tower, pool, batch_size, stages)
    else:
        raise ValueError("pictures need a pool of decoders")


def _images(
    items: Iterable[Item], encoder: Encoder, tower: ImageTower, pool: DecodePool, batch_size: int | None, stages: Stages
) -> Iterator[Vectors | Failure]:
    size = batch_size or (IMAGES_ON_CPU if encoder.device == "cpu" else IMAGES_ON_GPU)
    batch: list[Decoded] = []
    for found in _timed(pool.map(items, tower.transform, ahead=max(64, 4 * size)), stages):
        if isinstance(found, Failure):
            yield found
            continue
        stages.read += found.read_ms / 1000
        stages.decode += found.decode_ms / 1000
        batch.append(found)
        if len(batch) == size:
            yield from _encode(encoder, "image", [(d, d.value) for d in batch], stages)
            batch = []
    if batch:
        yield from _encode(encoder, "image", [(d, d.value) for d in batch], stages)


def _timed(source: Iterator[Decoded | Failure], stages: Stages) -> Iterator[Decoded | Failure]:
    while True:
        started = time.perf_counter()
        found = next(source, None)
        stages.wait += time.perf_counter() - started
        if found is None:
            return
        yield found


def _texts(
    items: Iterable[Item], encoder: Encoder, tower: TextTower, batch_size: int | None, stages: Stages
) -> Iterator[Vectors | Failure]:
    budget = TOKENS_ON_CPU if encoder.device == "cpu" else TOKENS_ON_GPU
    stream = iter(items)
    while window := list(islice(stream, WINDOW)):
        started = time.perf_counter()
        ready: list[tuple[Decoded, Any]] = []
        failures: list[Failure] = []
        for item in window:
            found = decode_text(item, tower.max_chars)
            if isinstance(found, Failure):
                failures.append(found)
            else:
                ready.append((found, tower.tokenize(found.value, "document")))
        ready.sort(key=lambda pair: tower.length(pair[1]), reverse=True)
        spent = time.perf_counter() - started
        stages.decode += spent
        stages.wait += spent
        yield from failures
        for batch in _budgeted(ready, tower, batch_size, budget):
            yield from _encode(encoder, "text", batch, stages)


def _budgeted(
    ready: list[tuple[Decoded, Any]], tower: TextTower, batch_size: int | None, budget: int
) -> Iterator[list[tuple[Decoded, Any]]]:
    start = 0
    while start < len(ready):
        longest = max(1, tower.length(ready[start][1]))
        size = max(1, budget // longest)
        stop = start + min(size, batch_size or size)
        yield ready[start:stop]
        start = stop


def _encode(
    encoder: Encoder, medium: Medium, batch: Sequence[tuple[Decoded, Any]], stages: Stages
) -> Iterator[Vectors | Failure]:
    started = time.perf_counter()
    first = {d.content_hash: i for i, (d, _) in reversed(list(enumerate(batch)))}
    distinct = sorted(set(first.values()))
    vectors: dict[int, Any] = {}
    _forward(encoder, medium, {i: batch[i][1] for i in distinct}, vectors)
    stages.encode += time.perf_counter() - started
    kept: list[Decoded] = []
    rows: list[Any] = []
    for decoded, _ in batch:
        found = vectors[first[decoded.content_hash]]
        if isinstance(found, np.ndarray):
            kept.append(replace(decoded, value=decoded.value if medium == "text" else None))
            rows.append(found)
        else:
            yield _failure(decoded, *found)
    if kept:
        yield Vectors(tuple(kept), np.stack(rows))


def _forward(encoder: Encoder, medium: Medium, inputs: dict[int, Any], out: dict[int, Any]) -> None:
    """Fill `out` with a vector, or a (reason, exception, message), for each input; split a batch that fails."""
    indices = list(inputs)
    try:
        vectors, good = encoder.forward(medium, list(inputs.values()))
    except (RuntimeError, ValueError, MemoryError) as error:
        if len(indices) == 1:
            out[indices[0]] = ("encode_failed", type(error).__name__, str(error))
            return
        half = len(indices) // 2
        for part in (indices[:half], indices[half:]):
            _forward(encoder, medium, {i: inputs[i] for i in part}, out)
        return
    for i, vector, usable in zip(indices, vectors, good, strict=True):
        out[i] = vector if usable else ("non_finite", "ValueError", "the vector is not finite or has zero norm")


def _failure(decoded: Decoded, reason: str, exception: str, message: str) -> Failure:
    item = decoded.item
    return Failure(item.id, item.source, "encode", reason, exception, message, bytes=decoded.size)
