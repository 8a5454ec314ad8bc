"""`permafrost ls`: what is in the store."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api import show
from api.calls import Call, Result


def run(call: Call) -> Result:
    """List the collections of the store."""
    with call.service() as service:
        found = service.ls()
    rows = found["collections"]
    note = "" if rows else f"{show.safe(found['store'])} holds no collections yet: permafrost embed SOURCE --into NAME"
    return Result(found, "\n".join(text(row) for row in rows), note)


def text(row: Mapping[str, Any]) -> str:
    """Return one collection as a block."""
    spaces = [(s["fingerprint"][:12], f"{s['dim']}-d  {show.safe(s['encoder'])}") for s in row["spaces"]]
    heads = [("heads", ", ".join(f"{h['head']}@{h['versions'][-1]}" for h in row["heads"]))]
    return show.block(f"{row['name']}  {show.count(row['items'], 'item')}", spaces + heads)
