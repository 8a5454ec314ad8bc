"""`permafrost encoders [PATTERN]`: which encoders can be asked for here."""

from __future__ import annotations

from typing import Annotated

from api import show
from api.calls import Call, Result
from api.options import argument
from embedder.errors import NothingToDo


def run(
    call: Call,
    pattern: Annotated[str, argument("PATTERN", "Only names that contain this.")] = "",
) -> Result:
    """List the encoders that can be asked for here."""
    with call.service() as service:
        names = service.catalogue(pattern)
    if not names:
        raise NothingToDo(f"no encoder's name contains {pattern!r}", hint="permafrost encoders lists all of them")
    return Result({"encoders": names}, "\n".join(map(show.safe, names)), f"{show.count(len(names), 'encoder')}")
