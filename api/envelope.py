"""Around every request: an id, a limit on the body, a check of the host, and one shape for whatever goes wrong."""

from __future__ import annotations

import logging
import re
import secrets
from collections.abc import Collection, MutableMapping
from typing import Any

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.documents import dumps
from api.failure import Failure, explain

log = logging.getLogger("permafrost.http")
REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
UNEXPECTED = "something unexpected went wrong; it is in the log under this request's id"
MOST_BODY_BYTES = 16 << 20
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]*)")


def without_paths(text: str) -> str:
    """Return a text in which absolute paths of this machine are cut to their last part."""
    return ABSOLUTE_PATH.sub(r"\1", text)


TEI = {
    "invalid_request": "validation", "not_found": "validation", "undecodable": "tokenizer", "overloaded": "overloaded",
    "deadline_exceeded": "backend", "encoder_unavailable": "unhealthy", "not_ready": "unhealthy", "too_large": "batch_size",
}  # fmt: skip
TEI_PATHS = frozenset({"/embed", "/predict", "/similarity", "/info"})


def error_body(failure: Failure, scope: Scope, *, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """Return the one shape of errors, without paths of this machine; the routes of TEI's clients have theirs."""
    where = "" if failure.unexpected or failure.where.startswith("/") else failure.where
    message = UNEXPECTED if failure.unexpected else failure.what
    body = {
        "type": failure.type, "message": without_paths(f"{message} ({where})" if where else message),
        "hint": "" if failure.unexpected else without_paths(failure.hint), "param": param, "code": code or failure.type,
        "request_id": scope["state"]["request_id"],
    }  # fmt: skip
    if scope["path"] in TEI_PATHS:
        hint = f" ({body['hint']})" if body["hint"] else ""
        return {"error": f"{body['message']}{hint}", "error_type": TEI.get(failure.type, "backend")}
    return {"error": body}


def error_reply(failure: Failure, scope: Scope, *, param: str | None = None, code: str | None = None) -> Document:
    """Return an error as a reply with its status."""
    reply = Document(error_body(failure, scope, param=param, code=code), status_code=failure.status)
    if failure.retry_after is not None:
        reply.headers["retry-after"] = str(failure.retry_after)
    return reply


class Document(Response):
    """A JSON reply of plain, finite values."""

    media_type = "application/json"

    def render(self, content: Any) -> bytes:
        """Return the bytes of the document."""
        return dumps(content).encode("ascii")


class Envelope:
    """The outermost layer. `hosts` are the names that requests may come to; None lets every name pass.

    A page from elsewhere can make a browser call a local service under a name of its own: the host is checked for that.
    """

    def __init__(
        self, app: ASGIApp, *, hosts: Collection[str] | None = LOOPBACK, most_bytes: int = MOST_BODY_BYTES
    ) -> None:
        self.app, self.hosts, self.most_bytes = app, hosts, most_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        request_id = _request_id(headers)
        scope.setdefault("state", {})["request_id"] = request_id
        started = False

        async def reply(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode("ascii"))]
            await send(message)

        try:
            refusal = self._refused(headers)
            body = None if refusal else await self._body(headers, receive)
            if refusal or body is None:
                await error_reply(refusal or self._too_large(), scope)(scope, receive, reply)
                return
            await self.app(scope, _replay(body, receive), reply)
        except Exception as error:
            log.exception("request %s failed", request_id)
            if started:
                raise
            await error_reply(explain(error), scope)(scope, receive, reply)

    def _refused(self, headers: MutableMapping[bytes, bytes]) -> Failure | None:
        host = re.sub(r":\d+$", "", headers.get(b"host", b"").decode("latin-1")).lower()
        if self.hosts is None or host in self.hosts:
            return None
        hint = f"use one of: {', '.join(sorted(self.hosts))}"
        return Failure("invalid_host", "this service does not answer under that host name", hint=hint, status=400)

    def _too_large(self) -> Failure:
        what = f"the body is larger than {self.most_bytes >> 20} MiB"
        return Failure("too_large", what, hint="send a smaller picture or fewer inputs at once", status=413)

    async def _body(self, headers: MutableMapping[bytes, bytes], receive: Receive) -> bytes | None:
        """Read the whole body, or return None as soon as it is too large, whatever its length was said to be."""
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said) > self.most_bytes:
            return None
        chunks, size = [], 0
        while True:
            message = await receive()
            if message["type"] != "http.request":
                break
            chunks.append(message.get("body", b""))
            size += len(chunks[-1])
            if size > self.most_bytes:
                return None
            if not message.get("more_body", False):
                break
        return b"".join(chunks)


def _request_id(headers: MutableMapping[bytes, bytes]) -> str:
    given = headers.get(b"x-request-id", b"")
    return given.decode("ascii") if REQUEST_ID.fullmatch(given) else secrets.token_hex(8)


def _replay(body: bytes, receive: Receive) -> Receive:
    sent = False

    async def again() -> Message:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again
