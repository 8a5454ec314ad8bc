"""What routes are given: the service, and names from the path."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Request

from api.service import Service


def _service(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


Acts = Annotated[Service, Depends(_service)]
CollectionName = Annotated[str, Path(description="A collection's name.", max_length=63)]
