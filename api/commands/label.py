"""`permafrost label C --id I --set X=V`: a label or other column of one item, set by hand."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from api import show
from api.calls import Call, Result
from api.pairs import pairs


def run(
    call: Call,
    collection: Annotated[str, typer.Argument(metavar="C", help="The collection.")],
    id: Annotated[str, typer.Option(metavar="ID", help="The item.")],
    set: Annotated[list[str], typer.Option(metavar="X=V", help="A column and its value; may be repeated.")],
    by: Annotated[str, typer.Option(metavar="NAME", help="Who says so; kept with the edit.")] = "cli",
) -> Result:
    """Set columns of one item by hand; running embed again does not revert them."""
    with call.service() as service:
        kinds = service.columns(collection)
        values = {name: _typed(value, kinds.get(name)) for name, value in pairs(set, "--set X=V").items()}
        done = service.label(collection, id, values, by=by)
    return Result(done, f"{show.safe(id)}: {show.fields(done['set'])}")


def _typed(text: str, kind: str | None) -> Any:
    """Return a value in the column's type where it can be read so; else as it was typed, for the store to refuse."""
    if kind in (None, "string"):
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text
