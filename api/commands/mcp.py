"""`permafrost mcp`: tools for agents over stdin and stdout."""

from __future__ import annotations

import sys
from contextlib import redirect_stdout
from typing import Annotated

from api import options
from api.calls import Call, Result
from api.options import option
from embedder.errors import UsageError


def run(
    call: Call,
    allow_writes: Annotated[bool, option("Offer the tool that sets columns of items too.", "--allow-writes")] = False,
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Serve the store to an agent over the Model Context Protocol.

    The agent's program starts this and speaks over stdin and stdout, until it closes them. The tools only read, unless
    writing is allowed.
    """
    try:
        from api.mcp import create_server
    except ModuleNotFoundError as error:
        raise UsageError(
            "the Python package mcp is not installed", where="permafrost mcp", hint="pip install 'permafrost[mcp]'"
        ) from error
    with call.service(device=device, runtime=runtime) as service:
        service.store()
        # the protocol is spoken on the real stdout; the library itself keeps stray prints away from it
        with redirect_stdout(sys.__stdout__):
            create_server(service, allow_writes=allow_writes).run("stdio")
    return Result({"stopped": True})
