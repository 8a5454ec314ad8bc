"""One request to a Permafrost service: sent, tried again where that can help, and its errors raised as our own."""

from __future__ import annotations

import re
import time
import weakref
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, urlsplit

import httpx2

from embedder.errors import PermafrostError, Undecodable, UnknownName, UsageError

CONNECT_S, ANSWER_S = 5.0, 300.0
PATIENCE_S = 60.0
LONGEST_PAUSE_S = 10.0
BROKEN_TRIES = 2
# an encoder with its dimensions, in parentheses too, names a Space and is no place
WHERE = re.compile(r"(?P<what>.+) \((?P<where>(?![^()]*\d-d\))[^()]+)\)", re.DOTALL)
UNREACHABLE = "is it running there (permafrost serve), and is the address right?"


class Transport:
    """Sends requests to one service; safe to share between threads.

    A 429, and a 503 of a service that is still loading, is waited out for up to `patience_s`, as long as Retry-After
    says or longer each time. A connection that breaks is tried again only where asking twice changes nothing.
    """

    def __init__(
        self, url: str, *, api_key: str | None = None, timeout_s: float = ANSWER_S, patience_s: float = PATIENCE_S
    ) -> None:
        self.url, self.patience_s = _address(url), patience_s
        headers = {"authorization": f"Bearer {_key(api_key)}"} if api_key else {}
        timeout = httpx2.Timeout(timeout_s, connect=min(CONNECT_S, timeout_s))
        self._http = httpx2.Client(timeout=timeout, headers=headers, follow_redirects=False)
        self.close = weakref.finalize(self, self._http.close)

    def json(self, method: str, *parts: str, body: Any = None, safe: bool | None = None, **params: Any) -> Any:
        """Send a request to the path of `parts`, each of them encoded, and return what the answer says.

        Args:
            body: what is sent as JSON.
            safe: whether it may be sent twice; None: all but POST may.

        Raises:
            PermafrostError: the class that the service raised, with its words; or it cannot be reached.
        """
        reply = self.send(method, *parts, body=body, safe=safe, **params)
        try:
            return reply.json()
        except ValueError as error:
            raise self._stranger(reply) from error

    def send(
        self, method: str, *parts: str, body: Any = None, safe: bool | None = None, **params: Any
    ) -> httpx2.Response:
        """Send a request and return its answer; raises as `json`."""
        url = "/".join([self.url, *(_part(part) for part in parts)])
        asked = {name: value for name, value in params.items() if value is not None}
        may_repeat, broken, start = method != "POST" if safe is None else safe, 0, time.monotonic()
        for pause in _pauses():
            try:
                reply = self._http.request(method, url, json=body, params=asked or None)
            except httpx2.TransportError as error:
                broken += 1
                timed_out = isinstance(error, (httpx2.ConnectError, httpx2.TimeoutException))
                if timed_out or not may_repeat or broken > BROKEN_TRIES:
                    raise self._broken(error) from error
                time.sleep(pause)
                continue
            if reply.is_success:
                return reply
            wait = max(pause, _retry_after(reply))
            if not _passes(reply) or time.monotonic() + wait - start > self.patience_s:
                raise self._refusal(reply)
            time.sleep(wait)
        raise AssertionError("unreachable")

    def _broken(self, error: httpx2.TransportError) -> PermafrostError:
        said = f"{type(error).__name__}: {error}".rstrip(": ")
        if isinstance(error, httpx2.TimeoutException) and not isinstance(error, httpx2.ConnectTimeout):
            return PermafrostError(
                f"the service did not answer in time ({said})", where=self.url, hint="give open a larger timeout_s"
            )
        return PermafrostError(f"the service cannot be reached ({said})", where=self.url, hint=UNREACHABLE)

    def _stranger(self, reply: httpx2.Response) -> PermafrostError:
        what = f"what answers there is no Permafrost service: status {reply.status_code} without its documents"
        return PermafrostError(what, where=self.url, hint=UNREACHABLE)

    def _refusal(self, reply: httpx2.Response) -> PermafrostError:
        try:
            told = reply.json()["error"]
            message, hint, kind, code = (str(told.get(name) or "") for name in ("message", "hint", "type", "code"))
        except (ValueError, KeyError, TypeError, AttributeError):
            return self._stranger(reply)
        parted = WHERE.fullmatch(message)
        what, where = (parted["what"], parted["where"]) if parted else (message, "")
        if kind == "method_not_allowed":
            return UsageError("the service is of a version that does not offer this", where=self.url, hint=hint)
        if reply.status_code in (401, 403):
            return UsageError(what, where=self.url, hint=hint or "give open an api_key")
        if not where and reply.status_code >= 500:
            where = f"{self.url}, request {told.get('request_id')}"
        word = "not_found" if code == "unknown_column" else kind
        return raised(word, what, where, hint, code=code, status=reply.status_code)


def raised(kind: str, what: str, where: str, hint: str, *, code: str = "", status: int = 500) -> PermafrostError:
    """Return the error that a service calls `kind`, in its own class; a word that is not known here is its `type`."""
    found = next((one for one in _classes(PermafrostError) if one.type == kind), None)
    if found is None:
        found = type("ServiceError", (PermafrostError,), {"type": kind, "status": status})
    if issubclass(found, Undecodable):
        return found(what, stage="decode", reason=code, where=where, hint=hint)
    return found(what, where=where, hint=hint)


def _classes(root: type[PermafrostError]) -> Iterator[type[PermafrostError]]:
    yield root
    for one in root.__subclasses__():
        yield from _classes(one)


def _passes(reply: httpx2.Response) -> bool:
    """Say whether asking again later can help: overload, or a service that is still loading."""
    return reply.status_code == 429 or (reply.status_code == 503 and '"not_ready"' in reply.text)


def _retry_after(reply: httpx2.Response) -> float:
    said = reply.headers.get("retry-after", "")
    return float(said) if said.isdigit() else 0.0


def _pauses() -> Iterator[float]:
    pause = 0.1
    while True:
        yield pause
        pause = min(LONGEST_PAUSE_S, 2 * pause)


def _part(text: str) -> str:
    # a part of only dots would be taken for a step up
    return quote(text, safe="@") if text.strip(".") else text.replace(".", "%2E")


def _address(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise UsageError(f"{url!r} is not the address of a service", hint="such as http://127.0.0.1:8765")
    if parts.username or parts.password:
        raise UsageError("an address holds no key", hint="give it as open(address, api_key=…)")
    return url.rstrip("/")


def _key(given: str) -> str:
    if not given.isascii() or not given.isprintable() or given != given.strip():
        raise UsageError("the API key holds characters that no key has", hint="copy it again, without line ends")
    return given


def named(kind: str, name: str, rows: Mapping[str, Any], where: str) -> Any:
    """Return one of `rows` by its name. Raises `UnknownName` with the nearest ones."""
    if name not in rows:
        raise UnknownName.of(kind, name, rows, where=where)
    return rows[name]
