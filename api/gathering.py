"""Questions that may be answered together, gathered: what comes while some are answered goes with the next.

A search for many queries costs little more than one for one, while many searches at once fight for the processors and
the interpreter: 8 clients of a scan on 2 cores got fewer answers a second than one client.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from threading import Lock
from typing import Any, TypeVar

from embedder.errors import PermafrostError

MOST_TOGETHER = 256
Q = TypeVar("Q")
A = TypeVar("A")


@dataclass(eq=False)
class _Asked:
    questions: Sequence[Any]
    answer: Callable[[Sequence[Any]], Sequence[Any]]
    future: Future[Any] = field(default_factory=Future)


class Gathering:
    """Answers questions in `threads` threads. Safe to share between threads; `close` ends it."""

    def __init__(self, threads: int) -> None:
        self._lock = Lock()
        self._waiting: dict[Hashable, deque[_Asked]] = {}
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="gathered")

    def close(self) -> None:
        """Refuse what has not begun."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def submit(
        self, key: Hashable, questions: Sequence[Q], answer: Callable[[Sequence[Q]], Sequence[A]]
    ) -> Future[Sequence[A]]:
        """Begin to answer; what waits under one `key` is given to one call of `answer`, which answers in order.

        An error is that of the questions of one `submit`: they are asked alone where others were with them. A future
        that was cancelled is not asked.
        """
        asked = _Asked(questions, answer)
        with self._lock:
            first = key not in self._waiting
            self._waiting.setdefault(key, deque()).append(asked)
        if first:
            self._threads.submit(self._next, key)
        return asked.future

    def _next(self, key: Hashable) -> None:
        """Answer what waits under a key; what comes meanwhile does so after the other keys."""
        try:
            _settle(self._taken(key))
        finally:
            with self._lock:
                more = bool(self._waiting[key])
                if not more:
                    del self._waiting[key]
            if more:
                self._threads.submit(self._next, key)

    def _taken(self, key: Hashable) -> list[_Asked]:
        taken: list[_Asked] = []
        with self._lock:
            waiting, count = self._waiting[key], 0
            while waiting and (not taken or count + len(waiting[0].questions) <= MOST_TOGETHER):
                asked = waiting.popleft()
                if asked.future.set_running_or_notify_cancel():
                    count += len(asked.questions)
                    taken.append(asked)
        return taken


def _settle(taken: Sequence[_Asked]) -> None:
    """Answer questions together; alone where that fails, so that each error is its own."""
    if not taken:
        return
    try:
        found = taken[0].answer([one for asked in taken for one in asked.questions])
    except PermafrostError as error:
        if len(taken) == 1:
            taken[0].future.set_exception(error)
        else:
            for asked in taken:
                _settle([asked])
        return
    except BaseException as error:
        for asked in taken:
            asked.future.set_exception(error)
        raise
    start = 0
    for asked in taken:
        asked.future.set_result(found[start : start + len(asked.questions)])
        start += len(asked.questions)
