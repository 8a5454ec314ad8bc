"""Who comes in: hosts, keys, and how much at once. Probes always do."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from api.failure import Failure
from api.keys import Key, Keys, Scope, needed

PROBES = frozenset({"/livez", "/readyz"})
LOOPBACK = frozenset({"127.0.0.1", "localhost", "[::1]"})
MOST_BODY_BYTES, MOST_JSON_BYTES = 16 << 20, 4 << 20
MOST_AT_ONCE, MOST_BYTES_AT_ONCE = 256, 256 << 20
RECEIVE_S = 10.0
MOST_HEADERS = 100
# the routes whose bodies may hold pictures
PICTURES = re.compile(r"/v1/(collections/[^/]+/(search|items|heads/[^/]+/predict)|embeddings|classify)")


@dataclass
class Gate:
    """What is checked before a request is read. `hosts` are the names that requests may come to; None: every name.

    A page from elsewhere can make a browser call a local service under a name of its own: the host is checked for that.
    `at_once` and `bytes_at_once` count what is under way.
    """

    hosts: Collection[str] | None = LOOPBACK
    keys: Keys | None = None
    most_at_once: int = MOST_AT_ONCE
    receive_s: float = RECEIVE_S
    at_once: int = 0
    bytes_at_once: int = 0

    def refused(self, method: str, path: str, headers: Mapping[bytes, bytes], count: int) -> Failure | Key | None:
        """Return why a request does not come in; else the key that it came with, if any."""
        host = re.sub(r":\d+$", "", headers.get(b"host", b"").decode("latin-1")).lower()
        if self.hosts is not None and host not in self.hosts:
            hint = f"use one of: {', '.join(sorted(self.hosts))}"
            return Failure("invalid_host", "this service does not answer under that host name", hint=hint, status=400)
        if count > MOST_HEADERS:
            return Failure("invalid_request", f"more than {MOST_HEADERS} headers", status=400)
        if path in PROBES:
            return None
        if self.at_once > self.most_at_once:
            return self.overloaded(f"{self.at_once - 1} requests are under way")
        scope = needed(method, path)
        return None if self.keys is None or scope is None else self._keyed(self.keys, headers, scope)

    def _keyed(self, keys: Keys, headers: Mapping[bytes, bytes], scope: Scope) -> Failure | Key:
        given = headers.get(b"authorization", b"").decode("latin-1")
        kind, _, token = given.partition(" ")
        if kind.lower() != "bearer" or not token:
            token = headers.get(b"x-api-key", b"").decode("latin-1")
        if not token:
            hint = "send it as Authorization: Bearer KEY, or as X-API-Key"
            return Failure("unauthorized", "a key is needed", hint=hint, status=401)
        key = keys.find(token.strip())
        if key is None:
            return Failure("unauthorized", "this key is not known", hint="ask for one: permafrost keys", status=401)
        if not key.may(scope):
            what = f"this key may {key.scope}, and {scope} is needed"
            return Failure("forbidden", what, hint=f"use a key with the scope {scope}", status=403)
        return key

    def most_bytes(self, path: str) -> int:
        """Return how long the body of a request may be: more where it may hold pictures."""
        return MOST_BODY_BYTES if PICTURES.fullmatch(path) else MOST_JSON_BYTES

    def overloaded(self, what: str) -> Failure:
        """Return the failure of a request for which there is no room."""
        return Failure("overloaded", what, hint="ask again in a moment", status=429, retry_after=1)
