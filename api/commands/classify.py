"""`permafrost classify C/HEAD ITEM…`: predictions of a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import argument, option
from embedder.errors import UsageError

RUNNERS_UP = 2


def run(
    call: Call,
    head: Annotated[str, argument("C/HEAD[@VERSION]", "The collection and the head.")],
    items: Annotated[list[str] | None, argument("ITEM...", "Paths of pictures or text files, or texts.")] = None,
    id: options.Ids = None,
    k: Annotated[
        int | None, option("Only the k most probable classes of each.", "-k", "--top", metavar="N", min=1)
    ] = None,
    space: options.Space = None,
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Predict labels with a head.

    Items are paths of pictures or text files, or texts; --id takes stored items, which are not encoded again.
    """
    collection, slash, name = head.partition("/")
    if not slash or not collection or not name:
        raise UsageError(f"{head!r} is not a head", where="permafrost classify", hint="write C/HEAD or C/HEAD@VERSION")
    with call.service(device=device, runtime=runtime) as service:
        inputs = [*service.inputs(collection, name, items or ()), *({"id": one} for one in id or ())]
        found = service.classify(collection, name, inputs, top_k=k, space=space)
    return Result(found, text(found), note(found))


def text(found: Mapping[str, Any]) -> str:
    """Return one line an input: its label, the probability, and the runners-up."""
    rows = []
    for one in found["results"]:
        ranked = sorted(one["probabilities"].items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{show.safe(name)} {p:.3f}" for name, p in ranked[1 : 1 + RUNNERS_UP])
        sure = f"{ranked[0][1]:.3f}" + (f"  ({others})" if others else "")
        rows.append([show.safe(one["input"]), show.safe(one["label"]), sure])
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows))


def note(found: Mapping[str, Any]) -> str:
    """Return which head answered, and whether it is out of date."""
    stale = f"\nstale: {show.safe(found['stale'])}" if found["stale"] else ""
    return f"{found['collection']}/{found['head']}@{found['version']}, space {found['space'][:12]}{stale}"
