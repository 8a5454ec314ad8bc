"""`permafrost serve`: the HTTP service."""

from __future__ import annotations

import sys
from typing import Annotated

from api import options
from api.calls import Call, Result
from api.options import option


def run(
    call: Call,
    host: Annotated[str, option("A loopback address.", metavar="HOST", show_default=True)] = "127.0.0.1",
    port: Annotated[
        int, option("The port; 0 takes a free one.", metavar="PORT", min=0, max=65_535, show_default=True)
    ] = 8765,
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Serve the store over HTTP.

    Until Ctrl-C or SIGTERM; requests under way are finished. There are no keys yet, so only this machine is served.
    """
    from api.server import check_host, serve

    check_host(host)
    with call.service(device=device, runtime=runtime) as service:
        service.store()
        code = serve(service, host, port, ready=lambda url: print(f"ready {url}", file=sys.stderr, flush=True))  # noqa: T201
    return Result({"stopped": True}, note="stopped", exit_code=code)
