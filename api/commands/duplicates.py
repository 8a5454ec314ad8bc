"""`permafrost duplicates C`: items that are the same, or nearly so."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option

SHOWN, NAMED = 20, 20


def run(
    call: Call,
    collection: options.Name,
    threshold: Annotated[float, option("Least cosine of near-duplicates.", metavar="COSINE", show_default=True)] = 0.97,
    space: options.Space = None,
    where: options.Where = None,
    exact: Annotated[bool, option("Compare every pair, whatever index there is.", "--exact")] = False,
) -> Result:
    """Find copies and near-duplicates. Nothing is deleted.

    Items of one content come first, then those whose vectors are near. Of each group the first that was stored is kept.
    """
    with call.service() as service:
        found = service.duplicates(collection, threshold=threshold, space=space, where=where, exact=exact)
    return Result(found, lines(found), note(found))


def lines(found: Mapping[str, Any]) -> str:
    """Return the largest groups: the item to keep, and under it the others with their scores."""
    room, rows = show.columns(), []
    for group in found["groups"][:SHOWN]:
        rows.append(f"{show.safe(group['keep'])}")
        scored = zip(group["scores"], group["same_content"], group["extra"], strict=True)
        table = [[f"  {'same' if same else f'{score:.4f}'}", show.safe(id)] for score, same, id in scored]
        rows += show.aligned(table[:SHOWN])
        if len(table) > SHOWN:
            rows.append(f"  and {len(table) - SHOWN:,} more")
    return "\n".join(show.cut(line, room) for line in rows)


def note(found: Mapping[str, Any]) -> str:
    """Return what was compared, and how the extra items would be deleted."""
    groups, extra = found["groups"], [id for group in found["groups"] for id in group["extra"]]
    how = "every pair compared" if found["exact"] else f"pairs proposed by {found['index']}"
    compared = f"{show.count(found['compared'], 'item')}, {how}, cosine at least {found['threshold']:g}"
    if not groups:
        return f"no duplicates among {compared}"
    head = f"{show.count(len(groups), 'group')} with {show.count(len(extra), 'extra item')} among {compared}"
    if len(groups) > SHOWN:
        head += f"; the {SHOWN} largest are shown, all with --json"
    name = shlex.quote(str(found["collection"]))
    if len(extra) <= NAMED:
        command = f"permafrost delete {name} {' '.join(f'--id {shlex.quote(id)}' for id in extra)}"
    else:
        listed = f"permafrost duplicates {name} --threshold {found['threshold']:g} --json"
        command = f"{listed} | jq -r '.groups[].extra[] | \"--id=\" + @sh' | xargs permafrost delete {name}"
    return f"{head}\nto keep the first of each: {command}"
