"""Around every request: an id, a limit on the body, a check of the host, and one shape for whatever goes wrong."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import time
from collections.abc import MutableMapping
from typing import Any, Protocol

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api.documents import dumps, plain
from api.failure import Failure, explain
from api.gate import MOST_BYTES_AT_ONCE, Gate
from api.keys import Key

log = logging.getLogger("permafrost.http")
access = logging.getLogger("permafrost.access")
REQUEST_ID = re.compile(rb"[A-Za-z0-9-]{1,64}")
UNEXPECTED = "something unexpected went wrong; it is in the log under this request's id"
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/])/(?:[^\s/'\",;:]+/)+([^\s/'\",;:]*)")


class Counts(Protocol):
    """What counts answers: see `api.metering.Meter`."""

    def request(self, method: str, status: int, seconds: float) -> None:
        """Count an answer."""


def without_paths(text: str) -> str:
    """Return a text in which absolute paths of this machine are cut to their last part."""
    return ABSOLUTE_PATH.sub(r"\1", text)


TEI = {
    "invalid_request": "validation", "not_found": "validation", "undecodable": "tokenizer", "overloaded": "overloaded",
    "deadline_exceeded": "backend", "encoder_unavailable": "unhealthy", "not_ready": "unhealthy",
    "too_large": "batch_size",
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
    if scope["path"] in TEI_PATHS or (scope["path"] == "/" and scope["method"] == "POST"):
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
        try:
            return orjson.dumps(content, default=plain, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            # a whole number of more than 64 bits, or half of a character
            return dumps(content).encode("ascii")


class Envelope:
    """The outermost layer. `gate` says who comes in; `meter`, where there is one, counts what was answered."""

    def __init__(self, app: ASGIApp, *, gate: Gate | None = None, meter: Counts | None = None) -> None:
        self.app, self.gate, self.meter = app, gate or Gate(), meter

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer it here."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = dict(scope["headers"])
        state = scope.setdefault("state", {})
        state["request_id"] = _request_id(headers)
        seen = _Seen(state["request_id"], send)
        began = time.perf_counter()
        self.gate.at_once += 1
        held = 0
        try:
            admitted = self.gate.refused(scope["method"], scope["path"], headers, len(scope["headers"]))
            state["key"] = admitted if isinstance(admitted, Key) else None
            body: bytes | Failure
            body = admitted if isinstance(admitted, Failure) else await self._body(scope["path"], headers, receive)
            if isinstance(body, Failure):
                await self._refuse(body, scope, receive, seen)
                return
            held = len(body)
            self.gate.bytes_at_once += held
            await self.app(scope, _replay(body, receive), seen)
        except Exception as error:
            log.exception("request %s failed", state["request_id"])
            if seen.status:
                raise
            await error_reply(explain(error), scope)(scope, receive, seen)
        finally:
            self.gate.at_once -= 1
            self.gate.bytes_at_once -= held
            self._told(scope, seen, time.perf_counter() - began, held)

    async def _refuse(self, failure: Failure, scope: Scope, receive: Receive, send: Send) -> None:
        reply = error_reply(failure, scope)
        if failure.status == 401:
            reply.headers["www-authenticate"] = "Bearer"
        if failure.status in (408, 413, 429):
            # what is left of the body is not read
            reply.headers["connection"] = "close"
        await reply(scope, receive, send)

    def _told(self, scope: Scope, seen: _Seen, seconds: float, size: int) -> None:
        """Count and log an answer: sizes and times, never what was sent."""
        if self.meter is not None:
            self.meter.request(scope["method"], seen.status or 499, seconds)
        if not access.isEnabledFor(logging.INFO):
            return
        key = scope["state"].get("key")
        access.info(
            "request",
            extra={
                "request_id": scope["state"]["request_id"], "method": scope["method"], "path": _path(scope),
                "status": seen.status or 499, "ms": round(1000 * seconds, 2), "bytes_in": size, "bytes_out": seen.size,
                "key": key.name if key else None,
            },
        )  # fmt: skip

    async def _body(self, path: str, headers: MutableMapping[bytes, bytes], receive: Receive) -> bytes | Failure:
        """Read the whole body, or say why not as soon as that is known, whatever its length was said to be."""
        most, chunks, size = self.gate.most_bytes(path), list[bytes](), 0
        said = headers.get(b"content-length", b"0")
        if said.isdigit() and int(said) > most:
            return _too_large(most)
        if self.gate.bytes_at_once > MOST_BYTES_AT_ONCE:
            return self.gate.overloaded("the bodies of other requests fill the memory that is set aside for them")
        try:
            async with asyncio.timeout(self.gate.receive_s):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        break
                    chunks.append(message.get("body", b""))
                    size += len(chunks[-1])
                    if size > most:
                        return _too_large(most)
                    if not message.get("more_body", False):
                        break
        except TimeoutError:
            what = f"the request did not arrive within {self.gate.receive_s:.0f} s"
            return Failure("slow_client", what, hint="send it faster, or in smaller parts", status=408)
        return b"".join(chunks)


class _Seen:
    """Sends on, with the request's id; remembers the status and how much was sent."""

    def __init__(self, request_id: str, send: Send) -> None:
        self._id, self._send = request_id.encode("ascii"), send
        self.status = self.size = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message["headers"] = [*message["headers"], (b"x-request-id", self._id)]
        else:
            self.size += len(message.get("body", b""))
        await self._send(message)


def _too_large(most: int) -> Failure:
    what = f"the body is larger than {most >> 20} MiB"
    return Failure("too_large", what, hint="send a smaller picture or fewer inputs at once", status=413)


def _path(scope: Scope) -> str:
    """Return the path as its route writes it: ids of items are left out."""
    route = scope.get("route")
    return str(getattr(route, "path", None) or "other")


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
