"""The verb of this room: items in; encoded batches and named failures out.

Pictures are decoded in worker processes that run ahead of the forward pass. Texts are tokenised beside it, a window at
a time, and sorted by their true number of tokens, so that a batch holds little padding; they leave in another order
than they came. Nothing waits without a bound: memory does not grow with the number of items.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future

import numpy as np
from numpy.typing import NDArray

from embedder import machine
from embedder.batches import Batches
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.fetching import fetched
from embedder.moving import Gathered, Moving
from embedder.packing import PASS_COST, cuts
from embedder.parts import Prepared
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, Item, Medium, Vectors
from embedder.runtime import others
from embedder.stages import Setup, Stages
from embedder.texts import Readying, Window, taken
from embedder.tuning import PICTURES, TOKENS, Tuner

WINDOW, WINDOW_ON_GPU = 8192, 32_768
WINDOW_CHARS = 32 << 20

Found = tuple[int, Vectors | Failure]
"""The position of an encoder, and what it made or could not."""


def extract(
    items: Iterable[Item],
    encoder: Encoder,
    medium: Medium,
    *,
    pool: DecodePool | None,
    batch_size: int | None,
    stages: Stages,
    found: int | None = None,
) -> Iterator[Vectors | Failure]:
    """Encode items of one medium.

    Args:
        items: taken as they are needed, at most two windows (texts) or six batches (pictures) ahead.
        pool: decodes pictures; not needed for texts.
        batch_size: pictures in a batch, or texts at most. None begins with 8 pictures or 2,048 tokens on a CPU (128 and
            32,768 on a GPU), and takes another size where that turns out to be faster.
        stages: where the seconds are added up, and the size of a full batch is noted.
        found: pictures or tokens in a batch, as an earlier run found them by measurement: nothing else is tried.

    Yields:
        `Vectors` with usable vectors only, and a `Failure` for each item that has none. No item stops another.
    """
    made = extract_all(items, [encoder], medium, pool=pool, batch_size=batch_size, stages=stages, found=found)
    yield from (result for _, result in made)


def extract_all(
    items: Iterable[Item],
    encoders: Sequence[Encoder],
    medium: Medium,
    *,
    pool: DecodePool | None,
    batch_size: int | None,
    stages: Stages,
    found: int | None = None,
) -> Iterator[Found]:
    """Encode items as `extract` does with several encoders that read the same inputs, reading and decoding once.

    Yields:
        the position of an encoder, and what it made; what cannot be read is a failure of each of them.
    """
    tower = encoders[0].tower(medium)
    passes = _Passes(Batches(encoders[0], medium, encoders[1:]), stages, batch_size, found)
    lost: list[Failure] = []
    listed = _listed(items, lost, stages)
    if isinstance(tower, TextTower):
        results = _texts(listed, tower, passes, batch_size)
    elif pool is not None:
        results = _images(listed, tower, passes, pool)
    else:
        raise ValueError("pictures need a pool of decoders")
    for result in results:
        yield result
        while lost:
            yield from passes.for_all(lost.pop())
    for failure in lost:
        yield from passes.for_all(failure)


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


class _Passes:
    """The forward passes of one run: how large they are, how long they take, and what comes out."""

    def __init__(self, batches: Batches, stages: Stages, given: int | None, found: int | None) -> None:
        encoder, text = batches.encoder, batches.medium == "text"
        self.batches, self.stages = batches, stages
        self.where = encoder.where
        bounds = (TOKENS if text else PICTURES)[self.where]
        start = found if text or given is None else given
        # what an endpoint makes of other sizes is not tried out at its owner's cost
        elsewhere = not encoder.device.startswith(("cpu", "cuda"))
        self.measuring = given is None and not elsewhere
        self.tuner = Tuner(bounds, start, settled=found is not None or not self.measuring)
        stages.setup = Setup(
            batches.medium, encoder.device, encoder.space.dtype, cores=machine.cores(),
            half=machine.fast_half(encoder.device), runtimes=others(encoder, batches.medium), given=given,
            side=0 if encoder.image is None else encoder.image.transform.short_side,
        )  # fmt: skip
        self._note()

    def _note(self) -> None:
        self.stages.batch_size = self.tuner.best
        self.stages.measured = self.tuner.settled and self.measuring

    def for_all(self, failure: Failure) -> Iterator[Found]:
        """Yield the failure of an item that no encoder can be given."""
        return ((n, failure) for n in range(len(self.batches.encoders)))

    def encode(self, batch: Sequence[Prepared], size: int, *, cost: int, tokens: int | None = None) -> Iterator[Found]:
        """Encode one batch of what was to be `size`: `cost` of it, and of that `tokens` without their padding."""
        started = time.perf_counter()
        found = self.batches.encode_all(batch)
        seconds = time.perf_counter() - started
        self.stages.encode += seconds
        if self.batches.share < 1:
            self.tuner.cap(int(cost * self.batches.share))
        elif 2 * cost >= size and self.batches.encoded == len(batch):
            self.tuner.saw(size, tokens or cost, seconds)
        self._note()
        yield from ((n, result) for n, results in enumerate(found) for result in results)


def _images(items: Iterator[Item], tower: ImageTower, passes: _Passes, pool: DecodePool) -> Iterator[Found]:
    ahead = max(64, 4 * passes.tuner.best)
    with Moving(passes.batches.encoders) as moving:
        for found in _gathered(pool.map(items, tower.transform, ahead=ahead), passes):
            if isinstance(found, Failure):
                yield from passes.for_all(found)
            elif moved := moving.swap(found):
                yield from passes.encode(moved.batch, moved.size, cost=len(moved.batch))
        if moved := moving.swap(None):
            yield from passes.encode(moved.batch, moved.size, cost=len(moved.batch))


def _gathered(found: Iterator[Decoded | Failure], passes: _Passes) -> Iterator[Gathered | Failure]:
    """Yield pictures in batches of the size that is wanted when they begin."""
    stages, size, batch = passes.stages, passes.tuner.next(), list[Prepared]()
    for one in _awaited(found, stages):
        if isinstance(one, Failure):
            yield one
            continue
        stages.read += one.read_ms / 1000
        stages.decode += one.decode_ms / 1000
        batch.append((one, one.value))
        if len(batch) >= size:
            yield Gathered(batch, size)
            size, batch = passes.tuner.next(), []
    if batch:
        yield Gathered(batch, size)


def _awaited(source: Iterator[Decoded | Failure], stages: Stages) -> Iterator[Decoded | Failure]:
    while True:
        started = time.perf_counter()
        found = next(source, None)
        stages.wait += time.perf_counter() - started
        if found is None:
            return
        yield found


def _texts(items: Iterator[Item], tower: TextTower, passes: _Passes, batch_size: int | None) -> Iterator[Found]:
    with Readying(tower) as readying:
        for window in _windows(items, readying, passes, WINDOW_CHARS // (8 if tower.split else 1)):
            for failure in window.failures:
                yield from passes.for_all(failure)
            yield from _window(window, passes, batch_size)


def _windows(items: Iterator[Item], readying: Readying, passes: _Passes, most_chars: int) -> Iterator[Window]:
    """Yield the windows one after another; the next is made ready while one is in use."""
    size, stages = WINDOW if passes.where == "cpu" else WINDOW_ON_GPU, passes.stages
    coming: Future[Window] | None = None
    while True:
        started = time.perf_counter()
        listed = taken(items, size, most_chars)
        after = readying.begin(listed) if listed else None
        window = coming.result() if coming else None
        stages.wait += time.perf_counter() - started
        if window is not None:
            stages.read += window.read
            stages.decode += window.decode
            yield window
        elif after is None:
            return
        coming = after


def _window(window: Window, passes: _Passes, batch_size: int | None) -> Iterator[Found]:
    others = passes.batches.encoders[1:]
    wholes = [window.whole, *(window.whole.twin() for _ in others)] if window.whole else []
    plans: dict[int, NDArray[np.int64]] = {}
    start, lengths = 0, window.lengths
    while start < len(lengths):
        budget = passes.tuner.next()
        if budget not in plans:
            plans[budget] = cuts(lengths, budget, batch_size or len(lengths), PASS_COST[passes.where])
        stop = int(plans[budget][start])
        cost = lengths[start] * (stop - start)
        for n, found in passes.encode(window.ready[start:stop], budget, cost=cost, tokens=sum(lengths[start:stop])):
            yield from ((n, result) for result in (wholes[n].gather([found]) if wholes else [found]))
        start = stop
