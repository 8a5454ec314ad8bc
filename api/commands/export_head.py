"""`permafrost export-head C/HEAD --to F.onnx`: a head as a file that other programs read."""

from __future__ import annotations

from typing import Annotated

from api import show
from api.calls import Call, Result
from api.options import argument, option
from embedder.errors import UsageError


def run(
    call: Call,
    head: Annotated[str, argument("C/HEAD[@VERSION]", "The collection and the head.")],
    to: Annotated[str, option("The file: F.onnx, or F.npz for numpy and scikit-learn.", metavar="F")],
) -> Result:
    """Write a head as a file that other programs read.

    It takes vectors of the head's Space and gives probabilities. Nothing in it is pickled.
    """
    collection, slash, name = head.partition("/")
    if not slash or not collection or not name:
        raise UsageError(
            f"{head!r} is not a head", where="permafrost export-head", hint="write C/HEAD or C/HEAD@VERSION"
        )
    with call.service() as service:
        done = service.export_head(collection, name, to)
    facts = f"{len(done['classes'])} classes from {done['dim']} dimensions, {show.size(done['bytes'])}"
    return Result(done, f"{show.safe(done['path'])}: {facts}")
