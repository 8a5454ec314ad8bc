"""The HTTP service as a process: one address, ready when it listens, ended by a signal after what is under way."""

from __future__ import annotations

import errno
import ipaddress
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from api.app import create_app
from api.failure import TERMINATED
from api.service import Service
from embedder.errors import PermafrostError, Refused

DRAIN_S = 25
BACKLOG = 512


def check_host(host: str) -> None:
    """Refuse an address that other machines reach: there are no keys yet. Raises `Refused`."""
    if host == "localhost":
        return
    try:
        if ipaddress.ip_address(host).is_loopback:
            return
    except ValueError:
        pass
    raise Refused(
        f"{host or 'every address'} can be reached from other machines, and this version has no keys to keep them out",
        where=f"--host {host}", hint="serve on 127.0.0.1 and reach it through an SSH tunnel",
    )  # fmt: skip


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 takes a free one. Raises `PermafrostError` where the address is taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise PermafrostError(
                f"port {port} is taken by another process", where=f"{host}:{port}", hint="--port 0 takes a free one"
            ) from error
        raise PermafrostError(
            f"cannot listen: {error.strerror}", where=f"{host}:{port}", hint="choose another --host or --port"
        ) from error


def serve(service: Service, host: str, port: int, *, ready: Callable[[str], None]) -> int:
    """Serve until a signal comes, then finish what is under way.

    Returns:
        130 after Ctrl-C, 143 after SIGTERM.
    """
    with listen(host, port) as bound:
        shown = f"[{host}]" if ":" in host else host
        config = uvicorn.Config(
            create_app(service), http="h11", ws="none", loop="asyncio", log_config=None, access_log=False,
            server_header=False, timeout_graceful_shutdown=DRAIN_S, lifespan="on",
        )  # fmt: skip
        server = _Server(config, lambda: ready(f"http://{shown}:{bound.getsockname()[1]}"))
        try:
            server.run(sockets=[bound])
        except KeyboardInterrupt:
            return 130
        except SystemExit:
            return TERMINATED
    return 0


class _Server(uvicorn.Server):
    """Says when it listens."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[Any] | None = None) -> None:
        await super().startup(sockets=sockets)
        if not self.should_exit:
            self._ready()
