"""`permafrost doctor`: is everything here as it must be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api import show
from api.calls import Call, Result


def run(call: Call) -> Result:
    """Check the installation, the machine and the store.

    The exit code is 1 where something is wrong.
    """
    with call.service() as service:
        found = service.doctor()
    return Result(found, text(found), exit_code=0 if found["ok"] else 1)


def text(found: Mapping[str, Any]) -> str:
    """Return one line a check, and under a failed one what to do."""
    rows = [["ok" if c["ok"] else "WRONG", c["name"], show.safe(c["detail"])] for c in found["checks"]]
    lines, room = [], show.columns()
    for line, check in zip(show.aligned(rows), found["checks"], strict=True):
        lines.append(show.cut(line, room))
        if not check["ok"]:
            lines.append(f"       do: {show.safe(check['do'])}")
    return "\n".join(lines)
