"""Waiting in the event loop: for a future until its deadline, or until nobody is there to read the answer."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, TypeVar

from anyio import CapacityLimiter, to_thread
from fastapi import Request

from api.attending import Attending, attended
from api.batching import DEADLINE_S, LATE, SMALLER
from embedder.errors import DeadlineExceeded

T = TypeVar("T")
LOADERS, ATTENDED = 8, 64


class Waiting:
    """Threads for what may load a model, and for what waits for batches, apart from those of the other routes.

    Made in the event loop.
    """

    def __init__(self) -> None:
        self._limiter: CapacityLimiter | None = None
        self._attended: CapacityLimiter | None = None

    async def aside(self, act: Callable[[], T]) -> T:
        """Run something that may take seconds without holding up the event loop or the threads of other routes."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(LOADERS)
        return await to_thread.run_sync(act, limiter=self._limiter)

    async def attended(self, request: Request, act: Callable[[], T]) -> T:
        """Run what waits for batches: the more wait, the more go together. It is left once the client has gone.

        Raises:
            DeadlineExceeded: it was not done within 30 s.
        """
        if self._attended is None:
            self._attended = CapacityLimiter(ATTENDED)
        here = Attending()
        attended.set(here)
        running = asyncio.ensure_future(to_thread.run_sync(act, limiter=self._attended, abandon_on_cancel=True))
        try:
            return await _while_there(request, running)
        finally:
            here.leave()


async def awaited(request: Request, future: Future[T]) -> T:
    """Return what a future gives; cancel it where the client has gone, or after 30 s.

    Raises:
        DeadlineExceeded: it was not done in time.
    """
    return future.result() if future.done() else await _while_there(request, asyncio.wrap_future(future))


async def _while_there(request: Request, result: asyncio.Future[T]) -> T:
    gone: asyncio.Future[None] = asyncio.ensure_future(_gone(request))
    both: set[asyncio.Future[Any]] = {result, gone}
    try:
        await asyncio.wait(both, timeout=DEADLINE_S, return_when=asyncio.FIRST_COMPLETED)
        if result.done():
            return result.result()
        raise DeadlineExceeded(LATE, hint=SMALLER)
    finally:
        gone.cancel()
        result.cancel()


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
