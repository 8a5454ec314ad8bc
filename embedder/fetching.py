"""Remote files, fetched a few at a time while what came before them is decoded; everything else passes through."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from time import perf_counter

from embedder.errors import Undecodable
from embedder.records import Failure, Item

AT_ONCE, AHEAD = 8, 16

Slot = Item | Future[Item | Failure]


def fetched(items: Iterable[Item]) -> Iterator[Item | Failure]:
    """Yield the items in their order, the remote ones with their bytes; a file that is not given is a `Failure`."""
    waiting: deque[Slot] = deque()
    pool: ThreadPoolExecutor | None = None
    try:
        for item in items:
            if item.remote is None and not waiting:
                yield item
                continue
            if item.remote is not None and pool is None:
                pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="fetch")
            waiting.append(item if item.remote is None or pool is None else pool.submit(_fetch, item))
            if len(waiting) >= AHEAD:
                yield _ready(waiting.popleft())
        while waiting:
            yield _ready(waiting.popleft())
    finally:
        if pool is not None:
            pool.shutdown(wait=False, cancel_futures=True)


def _ready(slot: Slot) -> Item | Failure:
    return slot.result() if isinstance(slot, Future) else slot


def _fetch(item: Item) -> Item | Failure:
    started = perf_counter()
    try:
        if item.remote is None:
            raise ValueError("this item is not remote")
        data = item.remote()
    except Undecodable as error:
        return Failure.of(item, error, size=item.size, ms=1e3 * (perf_counter() - started))
    return replace(item, data=data, size=len(data), remote=None)
