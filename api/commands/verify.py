"""`permafrost verify C`: check every row and file against its checksum."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option

SHOWN = 20


def run(
    call: Call,
    collection: options.Name,
    mend: Annotated[bool, option("Remove damaged rows, so that the next embed makes them again.", "--mend")] = False,
    sample: Annotated[
        int, option("Items of each Space to embed again and compare.", metavar="N", min=0, show_default=True)
    ] = 32,
    seed: Annotated[int, option("Draws the sample.", metavar="N", min=0, show_default=True)] = 0,
) -> Result:
    """Check every row and file, and embed a sample again.

    The exit code is 1 where something is wrong.
    """
    with call.service() as service:
        found = service.verify(collection, mend=mend, sample=sample, seed=seed)
    return Result(found, text(found), exit_code=0 if found["ok"] else 1)


def text(found: Mapping[str, Any]) -> str:
    """Return what was checked, and each problem with what to do."""
    checked = ", ".join(f"{show.count(n)} {what}" for what, n in found["checked"].items())
    repaired = [f"  repaired {show.safe(line)}" for line in found["repaired"]]
    if found["ok"]:
        sound = f"{found['collection']}: {checked}, all sound"
        return "\n".join([sound, *repaired, *map(_again, found["reembedded"])])
    problems = found["problems"]
    lines = [f"{found['collection']}: {checked}, {show.count(len(problems), 'problem')}"]
    for problem in problems[:SHOWN]:
        item = f", item {show.safe(problem['id'])}" if problem["id"] is not None else ""
        lines += [
            f"  {show.safe(problem['what'])}",
            f"    where: {show.safe(problem['where'])}{item}",
            f"    do:    {show.safe(problem['do'])}",
        ]
    if len(problems) > SHOWN:
        lines.append(f"  and {show.count(len(problems) - SHOWN)} more: --json shows all")
    lines += [*repaired, *map(_again, found["reembedded"])]
    if found["mended"]:
        lines.append(f"removed {show.count(found['mended'], 'damaged row')}: permafrost embed makes them again")
    return "\n".join(lines)


def _again(space: Mapping[str, Any]) -> str:
    """Return what became of the sample of one Space."""
    name = show.safe(space["encoder"])
    if space["why"]:
        return f"  {name}: nothing was embedded again: {show.safe(space['why'])}"
    lowest = f", lowest cosine {space['lowest']:.6f}" if space["lowest"] is not None else ""
    left = "".join(f"; {show.count(n)} not: {show.safe(why)}" for why, n in space["skipped"].items())
    return f"  {name}: {show.count(space['compared'], 'item')} embedded again{lowest}{left}"
