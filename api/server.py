"""The HTTP service as a process: one address, listening at once, ended by a signal after what is under way."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import FrameType
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api.envelope import Counts, Envelope
from api.failure import TERMINATED
from api.front import Front
from api.gate import RECEIVE_S, Gate
from api.keys import Keys
from api.readiness import Readiness
from embedder.errors import PermafrostError, Refused

DRAIN_S, NOTICE_S = 25, 2.0
BACKLOG, MOST_CONNECTIONS = 512, 1024
MOST_HEADER_BYTES = 32 << 10
TOO_LONG = "The request line and headers are too long."


def is_loopback(host: str) -> bool:
    """Say whether only this machine reaches an address."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_host(host: str, keys: Keys | None = None) -> None:
    """Refuse an address that other machines reach, unless keys keep them out. Raises `Refused`."""
    if keys is None and not is_loopback(host):
        raise Refused(
            f"{host or 'every address'} can be reached from other machines, and no keys keep them out",
            where=f"--host {host}", hint="make keys and give --api-key-file, or serve on 127.0.0.1",
        )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises `PermafrostError` where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        bound = socket.create_server((host, port), family=family, backlog=BACKLOG)
        # connections inherit it; asyncio does not set it where the socket's protocol is left at 0, as here. Without it
        # the body of an answer waits 40 ms for the acknowledgement of its headers
        bound.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return bound
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PermafrostError(
                f"port {port} is taken by another process", where=f"{host}:{port}", hint="--port 0 takes a free one"
            ) from error
        raise PermafrostError(
            f"cannot listen: {error.strerror}", where=f"{host}:{port}", hint="choose another --host or --port"
        ) from error


@dataclass(frozen=True)
class Building:
    """How the application is made: `build` is given the readiness to tell of, `meter` counts, `close` ends it."""

    build: Callable[[Readiness], ASGIApp]
    close: Callable[[], None]
    meter: Counts | None = None


def serve(building: Building, host: str, port: int, *, keys: Keys | None = None, ready: Callable[[str], None]) -> int:
    """Listen at once, and serve until a signal comes; then finish what is under way.

    `ready` is told the address once everything answers; until then the probes do.

    Returns:
        130 after Ctrl-C, 143 after SIGTERM.

    Raises:
        PermafrostError: whatever kept the application from being built.
    """
    readiness, public = Readiness(), not is_loopback(host)
    gate = Gate(hosts=None, keys=keys) if public else Gate(keys=keys)
    with listen(host, port) as bound:
        shown = f"[{host}]" if ":" in host else host
        front = Front(lambda: building.build(readiness), readiness, lambda error: server.fail(error))
        config = uvicorn.Config(
            Envelope(front, gate=gate, meter=building.meter), http=_Protocol, ws="none", loop="asyncio",
            log_config=None, access_log=False, server_header=False, proxy_headers=False,
            timeout_graceful_shutdown=DRAIN_S, lifespan="off",
        )  # fmt: skip
        server = _Server(config, readiness, NOTICE_S if public else 0.0)
        url = f"http://{shown}:{bound.getsockname()[1]}"
        server.listening = lambda: front.begin(lambda: ready(url))
        try:
            server.run(sockets=[bound])
        except KeyboardInterrupt:
            return 130
        except SystemExit:
            return TERMINATED
        finally:
            building.close()
    if server.error is not None:
        raise server.error
    return 0


class _Server(uvicorn.Server):
    """Says when it listens; asked to end, it first says so to `/readyz` for `notice_s` seconds."""

    def __init__(self, config: uvicorn.Config, readiness: Readiness, notice_s: float) -> None:
        super().__init__(config)
        self.listening: Callable[[], None] = lambda: None
        self.error: Exception | None = None
        self._readiness, self._notice_s = readiness, notice_s

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self.listening()

    def fail(self, error: Exception) -> None:
        """End, because there is nothing to serve."""
        self.error, self.should_exit = error, True

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        again, self._readiness.draining = self._readiness.draining, True
        if again or not self._notice_s:
            super().handle_exit(sig, frame)
            return
        self._captured_signals.append(sig)
        asyncio.get_running_loop().call_later(self._notice_s, self._end)

    def _end(self) -> None:
        self.should_exit = True


class _Protocol(HttpToolsProtocol):
    """Closes a connection whose request line and headers are late or too long, and one that is over the cap."""

    _late: asyncio.TimerHandle | None = None
    _head = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        if len(self.connections) > MOST_CONNECTIONS:
            transport.abort()
            return
        self._expect()

    def data_received(self, data: bytes) -> None:
        before = self.cycle
        if self._late is None and (before is None or before.response_complete):
            self._expect()
        super().data_received(data)
        if self.cycle is not before:
            self._arrived()
        elif self._late is not None:
            # the parser keeps a header that goes on and on, and tells of it once it ends
            self._head += len(data)
            if self._head > MOST_HEADER_BYTES:
                self.send_400_response(TOO_LONG)

    def on_message_begin(self) -> None:
        self._head = 0
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(len(name) + len(value))
        super().on_header(name, value)

    def _count(self, size: int) -> None:
        self._head += size
        if self._head > MOST_HEADER_BYTES:
            # the parser answers 400 to what its callbacks raise
            raise ValueError(TOO_LONG)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arrived()
        super().connection_lost(exc)

    def _expect(self) -> None:
        self._late = self.loop.call_later(RECEIVE_S, self._close_late)

    def _arrived(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _close_late(self) -> None:
        self._late = None
        self.transport.close()
