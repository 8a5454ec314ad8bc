"""Texts on their way to the forward pass: a window at a time, read, tokenised and sorted beside the encoder."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from threading import Event
from types import TracebackType
from typing import Self

from embedder.batches import ITEM_ERRORS, Fault
from embedder.chunking import MAX_CHARS
from embedder.decode.text import decode_text
from embedder.encoder import TextTower
from embedder.parts import Prepared, Whole
from embedder.records import Decoded, Failure, Item

AT_ONCE = 256
PATIENCE_S = 5.0


@dataclass
class Window:
    """Texts that are ready, those of most tokens first, and those that never will be.

    `lengths` are in tokens. `whole` gathers the parts of texts that are cut. `read`, `decode`: the seconds it took.
    """

    ready: list[Prepared] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)
    whole: Whole | None = None
    read: float = 0.0
    decode: float = 0.0


class Readying:
    """Prepares one window in a thread of its own while another is encoded. A context manager.

    Items are taken from their iterator by the caller's thread only: what lists them need not be safe to share. Leaving
    it, also on an interrupt, waits for at most a few hundred texts.
    """

    def __init__(self, tower: TextTower) -> None:
        self._tower = tower
        self._stop = Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="tokenise")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.shutdown(cancel_futures=True)

    def begin(self, items: list[Item]) -> Future[Window]:
        """Begin with these items."""
        return self._thread.submit(self._prepared, items)

    def _prepared(self, items: list[Item]) -> Window:
        tower, window = self._tower, Window(whole=Whole() if self._tower.split else None)
        for start in range(0, len(items), AT_ONCE):
            if self._stop.is_set():
                raise CancelledError
            began, read = time.perf_counter(), window.read
            prepare(items[start : start + AT_ONCE], tower, window)
            window.decode += time.perf_counter() - began - (window.read - read)
        window.ready.sort(key=lambda pair: tower.length(pair[1]), reverse=True)
        window.lengths = [max(1, tower.length(tokens)) for _, tokens in window.ready]
        return window


def prepare(items: Iterable[Item], tower: TextTower, window: Window) -> None:
    """Read and tokenise some items into `window`; where the tower cuts texts, their parts."""
    decoded: list[Decoded] = []
    for item in items:
        found = decode_text(item, MAX_CHARS if window.whole else tower.max_chars)
        if isinstance(found, Failure):
            window.failures.append(found)
        else:
            window.read += found.read_ms / 1000
            decoded.append(found)
    if window.whole is None:
        try:
            tokens = tower.tokens([str(one.value) for one in decoded], "document")
            window.ready += zip(decoded, tokens, strict=True)
            return
        except ITEM_ERRORS:
            # one of them is at fault: alone, each shows whether it is the one
            pass
    for one in decoded:
        try:
            window.ready += window.whole.split(one, tower) if window.whole else [_alone(one, tower)]
        except ITEM_ERRORS as error:
            window.failures.append(Fault.of(error).failure(one))


def _alone(decoded: Decoded, tower: TextTower) -> Prepared:
    return decoded, tower.tokenize(str(decoded.value), "document")


def taken(items: Iterator[Item], size: int, most_chars: int) -> list[Item]:
    """Take the next window: at most `size` items, and no more once they have `most_chars` characters.

    A source that gives them slowly makes it shorter too: what it gave is stored before long.
    """
    found: list[Item] = []
    chars, until = 0, time.monotonic() + PATIENCE_S
    for item in islice(items, size):
        found.append(item)
        chars += len(item.text or item.data or "") or item.size or 0
        if chars >= most_chars or time.monotonic() > until:
            break
    return found
