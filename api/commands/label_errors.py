"""`permafrost label-errors C/HEAD`: the items whose label a head doubts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import show
from api.calls import Call, Result
from api.options import argument, head_name, option


def run(
    call: Call,
    head: Annotated[str, argument("C/HEAD[@VERSION]", "The collection and the head.")],
    limit: Annotated[int, option("How many at most.", "--limit", metavar="N", min=1, show_default=True)] = 20,
) -> Result:
    """List the items whose label a head doubts.

    Each is hard or mislabelled; beside it stand the nearest items of the class that it looks like.
    """
    collection, name = head_name(head, "permafrost label-errors")
    with call.service() as service:
        found = service.label_errors(collection, name, limit=limit)
    return Result(found, text(found), note(found))


def text(found: Mapping[str, Any]) -> str:
    """Return one line an item: its label, what it looks like, both probabilities and the nearest items."""
    rows = [["item", "label", "looks like", "p label", "p other", "nearest of those"]]
    for one in found["errors"]:
        like = ", ".join(f"{show.safe(near['id'])} {near['score']:.2f}" for near in one["like"])
        chances = [f"{one['given_probability']:.3f}", f"{one['suggested_probability']:.3f}"]
        rows.append([*(show.safe(one[name]) for name in ("id", "given", "suggested")), *chances, like])
    room = show.columns()
    return "\n".join(show.cut(line, room) for line in show.aligned(rows)) if found["errors"] else "no label is doubted"


def note(found: Mapping[str, Any]) -> str:
    """Return how many there are, what that means, and how a label is set."""
    shown, settled = len(found["errors"]), found["settled"]
    head = f"{found['collection']}/{found['head']}@{found['version']}"
    lines = [f"{head}: {shown} of {found['found']} doubted labels shown, {show.count(found['looked_at'])} looked at"]
    if settled:
        lines.append(f"{settled} more were relabelled, changed or deleted since")
    if found["errors"]:
        lines.append(found["saying"])
        lines.append(f"to set one: permafrost label {found['collection']} --id ID --set {found['label']}=VALUE")
    if found["stale"]:
        lines.append(f"stale: {show.safe(found['stale'])}")
    return "\n".join(lines)
