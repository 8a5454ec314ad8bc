"""What routes are given: the service, and names from the path."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from api.service import Service
from api.serving import Serving
from api.waiting import Waiting


async def _service(request: Request) -> Serving:
    # a plain function would be called in a thread of its own, at every request
    found: Serving = request.app.state.service
    return found


def waiting_of(request: Request) -> Waiting:
    """Return where what may take seconds waits."""
    found: Waiting = request.app.state.waiting
    return found


Acts = Annotated[Service, Depends(_service)]
Serves = Annotated[Serving, Depends(_service)]
CollectionName = Annotated[str, Path(description="A collection's name.", max_length=63)]
