"""`permafrost doctor`: is everything here as it must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import show
from api.calls import Call, Result
from api.options import option


def run(
    call: Call,
    mend: Annotated[bool, option("Put right in the store what can be without losing anything.", "--mend")] = False,
) -> Result:
    """Check the installation, the machine and the store.

    The exit code is 1 where something is wrong.
    """
    with call.service() as service:
        found = service.doctor(mend=mend)
    return Result(found, text(found), exit_code=0 if found["ok"] else 1)


def text(found: Mapping[str, Any]) -> str:
    """Return one line a check, and under a failed one what to do."""
    rows = [["ok" if c["ok"] else "WRONG", c["name"], show.safe(c["detail"])] for c in found["checks"]]
    lines, room = [], show.columns()
    for line, check in zip(show.aligned(rows), found["checks"], strict=True):
        lines.append(show.cut(line, room))
        if not check["ok"]:
            lines.append(f"       do: {show.safe(check['do'])}")
    lines += [f"mended {show.safe(one)}" for one in found["mended"]]
    return "\n".join(lines)
