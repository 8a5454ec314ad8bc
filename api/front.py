"""What answers first: the probes, while everything that takes seconds is imported and loaded behind it."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from api.envelope import Document, error_body, error_reply
from api.failure import Failure, explain
from api.readiness import Readiness

log = logging.getLogger("permafrost.http")


class Front:
    """An application that stands in for another until it is built. `build` runs in a thread of its own.

    `failed` is called with what `build` raised: the service then has nothing to serve.
    """

    def __init__(self, build: Callable[[], ASGIApp], readiness: Readiness, failed: Callable[[Exception], None]) -> None:
        self._build, self._readiness, self._failed = build, readiness, failed
        self._app: ASGIApp | None = None

    def begin(self, ready: Callable[[], None]) -> None:
        """Start building; `ready` is called once it is done."""
        threading.Thread(target=self._made, args=(ready,), name="build", daemon=True).start()

    def _made(self, ready: Callable[[], None]) -> None:
        try:
            self._app = self._build()
            ready()
        except Exception as error:  # noqa: BLE001  nobody waits for this thread: the server ends with it
            self._readiness.phase = f"failed: {explain(error).what}"
            self._failed(error)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a probe; pass everything else on, or say that it is too early."""
        if scope["path"] == "/livez" and scope["method"] == "GET":
            await Document({"status": "alive"})(scope, receive, send)
        elif self._app is not None:
            await self._app(scope, receive, send)
        elif scope["path"] == "/readyz" and scope["method"] == "GET":
            await not_ready(self._readiness, scope)(scope, receive, send)
        else:
            what = f"not ready: {self._readiness.phase}"
            failure = Failure("not_ready", what, hint="ask again in a moment", status=503, retry_after=1)
            await error_reply(failure, scope)(scope, receive, send)


def not_ready(readiness: Readiness, scope: Scope) -> Document:
    """Return the reply of `/readyz` while it is no: 503, with the phase and how far it is."""
    facts = readiness.as_json()
    failure = Failure("not_ready", f"not ready: {facts['phase']}", hint="ask again in a moment", status=503)
    return Document({**facts, **error_body(failure, scope)}, status_code=503)
