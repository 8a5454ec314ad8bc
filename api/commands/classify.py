"""`permafrost classify C/HEAD ITEM…`: predictions of a head."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import argument, head_name, option

RUNNERS_UP, MOST_IN_SET = 2, 3


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

    Items are paths of pictures or text files, or texts; --id takes stored items, which are not encoded again. A label
    is followed by the set of classes that holds the true one as often as was promised, where it is not one class alone.
    """
    collection, name = head_name(head, "permafrost classify")
    with call.service(device=device, runtime=runtime) as service:
        inputs = [*service.inputs(collection, name, items or ()), *({"id": one} for one in id or ())]
        found = service.classify(collection, name, inputs, top_k=k, space=space)
    return Result(found, text(found), note(found))


def text(found: Mapping[str, Any]) -> str:
    """Return one line an input: its label, the probability, the runners-up, and whether it should be believed."""
    rows = []
    for one in found["results"]:
        ranked = sorted(one["probabilities"].items(), key=lambda pair: -pair[1])
        others = ", ".join(f"{show.safe(name)} {p:.3f}" for name, p in ranked[1 : 1 + RUNNERS_UP])
        sure = f"{ranked[0][1]:.3f}" + (f"  ({others})" if others else "")
        rows.append([show.safe(one["input"]), show.safe(one["label"]), sure + _doubt(one)])
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows))


def _doubt(one: Mapping[str, Any]) -> str:
    """Return what a reader must know before believing a label."""
    said = []
    if one["why"] == "foreign":
        said.append(f"abstained: unlike the training items (domain {one['domain']:.2f})")
    if one["why"] == "unsure":
        said.append("abstained: unsure")
    if one["prediction_set"] is not None and len(one["prediction_set"]) != 1:
        names = ", ".join(map(show.safe, one["prediction_set"][:MOST_IN_SET]))
        more = f", … {len(one['prediction_set'])}" if len(one["prediction_set"]) > MOST_IN_SET else ""
        said.append(f"set {{{names}{more}}}")
    return "".join(f"  {text}" for text in said)


def note(found: Mapping[str, Any]) -> str:
    """Return which head answered, and whether it is out of date."""
    stale = f"\nstale: {show.safe(found['stale'])}" if found["stale"] else ""
    return f"{found['collection']}/{found['head']}@{found['version']}, space {found['space'][:12]}{stale}"
