"""The verb of this room: items in; encoded batches and named failures out.

Pictures are decoded in worker processes that run ahead of the forward pass. Texts are tokenised a window at a time and
sorted by their true number of tokens, so that a batch holds little padding; they leave in another order than they came.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from embedder.batches import ITEM_ERRORS, Batches, Fault
from embedder.chunking import MAX_CHARS
from embedder.decode.text import decode_text
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.fetching import fetched
from embedder.parts import Prepared, Whole
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, Item, Medium, Vectors

WINDOW, WINDOW_ON_GPU = 4096, 16_384
WINDOW_CHARS = 64 << 20
IMAGES_ON_CPU, IMAGES_ON_GPU = 8, 128
TOKENS_ON_CPU, TOKENS_ON_GPU = 2048, 32_768

Found = tuple[int, Vectors | Failure]
"""The position of an encoder, and what it made or could not."""


@dataclass
class Stages:
    """Seconds spent in each stage; `wait`, `encode` and `write` add up to the run.

    `wait` is the time in which the forward pass stood idle for what comes before it: `read` (listing and reading) and
    `decode` (decoding, tokenising), which for pictures are summed over the `workers`.
    """

    read: float = 0.0
    decode: float = 0.0
    wait: float = 0.0
    encode: float = 0.0
    write: float = 0.0
    workers: int = 0

    def bottleneck(self) -> str:
        """Return the stage on which the run spent most of its own time: decode (with reading), encode or write."""
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
        items: taken as they are needed, at most a window (texts) or four batches (pictures) ahead.
        pool: decodes pictures; not needed for texts.
        batch_size: pictures in a batch, or texts at most; None takes 8 pictures or 2,048 tokens on a CPU.
        stages: where the seconds are added up.

    Yields:
        `Vectors` with usable vectors only, and a `Failure` for each item that has none. No item stops another.
    """
    found = extract_all(items, [encoder], medium, pool=pool, batch_size=batch_size, stages=stages)
    yield from (result for _, result in found)


def extract_all(
    items: Iterable[Item],
    encoders: Sequence[Encoder],
    medium: Medium,
    *,
    pool: DecodePool | None,
    batch_size: int | None,
    stages: Stages,
) -> Iterator[Found]:
    """Encode items as `extract` does with several encoders that read the same inputs, reading and decoding once.

    Yields:
        the position of an encoder, and what it made; what cannot be read is a failure of each of them.
    """
    tower = encoders[0].tower(medium)
    batches = Batches(encoders[0], medium, encoders[1:])
    lost: list[Failure] = []
    listed = _listed(items, lost, stages)
    if isinstance(tower, TextTower):
        results = _texts(listed, tower, batches, batch_size, stages)
    elif pool is not None:
        results = _images(listed, tower, batches, pool, batch_size, stages)
    else:
        raise ValueError("pictures need a pool of decoders")
    for result in results:
        yield result
        while lost:
            yield from _for_all(batches, lost.pop())
    for failure in lost:
        yield from _for_all(batches, failure)


def _for_all(batches: Batches, failure: Failure) -> Iterator[Found]:
    return ((n, failure) for n in range(len(batches.encoders)))


def _listed(items: Iterable[Item], lost: list[Failure], stages: Stages) -> Iterator[Item]:
    """Yield the items with their bytes where they are remote; those that cannot be fetched go into `lost`."""
    stream = fetched(items)
    while True:
        started = time.perf_counter()
        found = next(stream, None)
        stages.read += time.perf_counter() - started
        if found is None:
            return
        if isinstance(found, Item):
            yield found
        else:
            lost.append(found)


def _images(
    items: Iterator[Item],
    tower: ImageTower,
    batches: Batches,
    pool: DecodePool,
    batch_size: int | None,
    stages: Stages,
) -> Iterator[Found]:
    size = batch_size or (IMAGES_ON_CPU if batches.encoder.device == "cpu" else IMAGES_ON_GPU)
    batch: list[Prepared] = []
    for found in _awaited(pool.map(items, tower.transform, ahead=max(64, 4 * size)), stages):
        if isinstance(found, Failure):
            yield from _for_all(batches, found)
            continue
        stages.read += found.read_ms / 1000
        stages.decode += found.decode_ms / 1000
        batch.append((found, found.value))
        if len(batch) >= size * batches.share:
            yield from _encode(batches, batch, stages)
            batch = []
    if batch:
        yield from _encode(batches, batch, stages)


def _awaited(source: Iterator[Decoded | Failure], stages: Stages) -> Iterator[Decoded | Failure]:
    while True:
        started = time.perf_counter()
        found = next(source, None)
        stages.wait += time.perf_counter() - started
        if found is None:
            return
        yield found


def _texts(
    items: Iterator[Item], tower: TextTower, batches: Batches, batch_size: int | None, stages: Stages
) -> Iterator[Found]:
    on_cpu = batches.encoder.device == "cpu"
    budget, window = (TOKENS_ON_CPU, WINDOW) if on_cpu else (TOKENS_ON_GPU, WINDOW_ON_GPU)
    while True:
        started = time.perf_counter()
        whole = Whole() if tower.split else None
        ready, failures = _prepared(_window(items, window, WINDOW_CHARS // (8 if whole else 1)), tower, whole, stages)
        stages.wait += time.perf_counter() - started
        if not ready and not failures:
            return
        for failure in failures:
            yield from _for_all(batches, failure)
        wholes = [whole, *(whole.twin() for _ in batches.encoders[1:])] if whole else []
        lengths = [max(1, tower.length(tokens)) for _, tokens in ready]
        start = 0
        while start < len(ready):
            most = max(1, int((batch_size or len(ready)) * batches.share))
            stop = start + full_batch(lengths, start, budget * batches.share, most)
            for n, found in _encode(batches, ready[start:stop], stages):
                yield from ((n, result) for result in (wholes[n].gather([found]) if wholes else [found]))
            start = stop


def full_batch(lengths: Sequence[int], start: int, budget: float, most: int) -> int:
    """Return how many texts from `start` on make a batch; `lengths`, in tokens, fall; `most` is the most texts.

    A batch is full before it costs more than `budget` tokens with their padding, and, once it costs an eighth of that,
    before more than a tenth of it is padding. One text may cost more.
    """
    longest, true = lengths[start], 0
    for n, length in enumerate(lengths[start : start + most], 1):
        true += length
        cost = n * longest
        if n > 1 and (cost > budget or (cost > budget / 8 and cost > 1.1 * true)):
            return n - 1
    return min(most, len(lengths) - start)


def _window(items: Iterator[Item], size: int, most_chars: int) -> Iterator[Item]:
    chars = 0
    for _ in range(size):
        item = next(items, None)
        if item is None:
            return
        yield item
        chars += len(item.text or item.data or "") or item.size or 0
        if chars >= most_chars:
            return


def _prepared(
    items: Iterator[Item], tower: TextTower, whole: Whole | None, stages: Stages
) -> tuple[list[Prepared], list[Failure]]:
    """Decode, cut into parts where `whole` gathers them again, and tokenise; what has most tokens comes first."""
    ready: list[Prepared] = []
    failures: list[Failure] = []
    for item in items:
        started = time.perf_counter()
        found = decode_text(item, MAX_CHARS if whole else tower.max_chars)
        if isinstance(found, Decoded):
            stages.read += found.read_ms / 1000
            started += found.read_ms / 1000
            try:
                ready += whole.split(found, tower) if whole else [(found, tower.tokenize(found.value, "document"))]
            except ITEM_ERRORS as error:
                failures.append(Fault.of(error).failure(found))
        else:
            failures.append(found)
        stages.decode += time.perf_counter() - started
    ready.sort(key=lambda pair: tower.length(pair[1]), reverse=True)
    return ready, failures


def _encode(batches: Batches, batch: Sequence[Prepared], stages: Stages) -> Iterator[Found]:
    started = time.perf_counter()
    found = batches.encode_all(batch)
    stages.encode += time.perf_counter() - started
    yield from ((n, result) for n, results in enumerate(found) for result in results)
