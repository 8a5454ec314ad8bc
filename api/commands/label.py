"""`permafrost label C --id I --set X=V`: a label or other column of one item, set by hand."""

from __future__ import annotations

import json
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option
from api.pairs import pairs


def run(
    call: Call,
    collection: options.Name,
    id: Annotated[str, option("The item.", metavar="ID")],
    set: Annotated[list[str], option("A column and its value; may be repeated.", metavar="X=V")],
    by: Annotated[str, option("Who says so; kept with the edit.", metavar="NAME", show_default=True)] = "cli",
) -> Result:
    """Set a label or another column of one item by hand.

    Running embed again does not revert it.
    """
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
