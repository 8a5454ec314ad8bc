"""`permafrost alias C NAME SPACE`: a name for a Space; `default` is the one used when none is named."""

from __future__ import annotations

from typing import Annotated

from api import options, show
from api.calls import Call, Result
from api.options import argument, option


def run(
    call: Call,
    collection: options.Name,
    name: Annotated[str | None, argument("[NAME]", "The alias. Without one all are listed.")] = None,
    space: Annotated[str | None, argument("[SPACE]", "An alias, a fingerprint, or an encoder's name.")] = None,
    delete: Annotated[bool, option("Forget the alias.", "--delete")] = False,
) -> Result:
    """Point a name at a Space, in one step, or list the names.

    A search that has begun goes on in the Space that it began with.
    """
    with call.service() as service:
        done = service.alias(collection, name, space, delete=delete)
        encoders = {f: s.encoder for f, s in service.collection(collection).spaces().items()}
    if name is None:
        rows = [[alias, f[:12], show.safe(encoders.get(f, "not here"))] for alias, f in done["aliases"].items()]
        return Result(done, "\n".join(show.aligned(rows)), note="" if rows else "no aliases")
    before = f", before {done['before'][:12]}" if done["before"] else ""
    if delete:
        return Result(done, f"{name} means nothing any more{before}")
    return Result(done, f"{name} = {done['space'][:12]} {show.safe(encoders[done['space']])}{before}")
