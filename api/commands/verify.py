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
    mend: Annotated[bool, option("Remove damaged vectors, so that the next embed makes them again.", "--mend")] = False,
) -> Result:
    """Check every row and file against its checksum.

    The exit code is 1 where something is wrong.
    """
    with call.service() as service:
        found = service.verify(collection, mend=mend)
    return Result(found, text(found), exit_code=0 if found["ok"] else 1)


def text(found: Mapping[str, Any]) -> str:
    """Return what was checked, and each problem with what to do."""
    checked = ", ".join(f"{show.count(n)} {what}" for what, n in found["checked"].items())
    if found["ok"]:
        return f"{found['collection']}: {checked}, all sound"
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
    if found["mended"]:
        lines.append(f"removed {show.count(found['mended'], 'damaged vector')}: permafrost embed makes them again")
    return "\n".join(lines)
