"""`permafrost serve`: the HTTP service."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from api.calls import Call, Result


def run(
    call: Call,
    host: Annotated[str, typer.Option(metavar="HOST", help="A loopback address.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(metavar="PORT", min=0, max=65_535, help="The port; 0 takes a free one.")] = 8765,
    device: Annotated[str | None, typer.Option(metavar="D", help="auto, cpu, cuda or cuda:N.")] = None,
) -> Result:
    """Serve the store over HTTP until Ctrl-C or SIGTERM; requests under way are finished."""
    from api.server import check_host, serve

    check_host(host)
    with call.service(device=device) as service:
        service.store()
        code = serve(service, host, port, ready=lambda url: print(f"ready {url}", file=sys.stderr, flush=True))  # noqa: T201
    return Result({"stopped": True}, note="stopped", exit_code=code)
