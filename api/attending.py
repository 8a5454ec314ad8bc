"""Whether anybody still waits for an answer: once nobody does, what was begun for it and is not encoded never is.

A route runs an act in a thread and attends to the connection meanwhile. The act knows nothing of that: what it waits
for in batches is noted where the thread's context says, and cancelled from there.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from contextlib import contextmanager
from contextvars import ContextVar
from threading import Lock
from typing import Any, TypeVar

from api.batching import DEADLINE_S, LATE, SMALLER
from embedder.errors import DeadlineExceeded

T = TypeVar("T")


class Attending:
    """What one request waits for. `leave` says that nobody does any more; safe between threads."""

    def __init__(self) -> None:
        self._lock, self._left = Lock(), False
        self._waiting: set[Future[Any]] = set()

    def leave(self) -> None:
        """Cancel what is waited for, and whatever is begun from now on."""
        with self._lock:
            self._left, waiting = True, list(self._waiting)
        for future in waiting:
            future.cancel()

    @contextmanager
    def noted(self, future: Future[Any]) -> Iterator[None]:
        """Let `leave` cancel a future while the block waits for it."""
        with self._lock:
            left = self._left
            self._waiting.add(future)
        if left:
            future.cancel()
        try:
            yield
        finally:
            with self._lock:
                self._waiting.discard(future)


attended: ContextVar[Attending | None] = ContextVar("attended", default=None)


def result(future: Future[T]) -> T:
    """Wait for a future, for as long as anybody waits for the answer. Raises as the future.

    Raises:
        DeadlineExceeded: it was not made within 30 s.
        CancelledError: nobody waits any more.
    """
    with (attended.get() or Attending()).noted(future):
        try:
            return future.result(timeout=DEADLINE_S)
        except Late:
            raise DeadlineExceeded(LATE, hint=SMALLER) from None
        finally:
            future.cancel()
