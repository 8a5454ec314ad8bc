"""`permafrost keys`: the keys of the HTTP service."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from api import keys, show
from api.calls import Call, Result
from api.options import argument, option


def run(
    call: Call,
    file: Annotated[str, argument("FILE", "Where the keys are kept; made where it is not there.")],
    name: Annotated[str | None, option("Make a key of this name.", metavar="N")] = None,
    scope: Annotated[str, option("read, write or admin.", metavar="SCOPE", show_default=True)] = "read",
    remove: Annotated[str | None, option("Take out the key of this name.", metavar="N")] = None,
) -> Result:
    """Make, list or remove keys for serve --api-key-file.

    A new key is shown once; only its hash is kept. A running service reads the file again when it changes.
    """
    path = Path(file).expanduser()
    token = None
    if remove is not None:
        keys.remove(path, remove)
    if name is not None:
        token, _ = keys.make(path, name, scope)
    kept = [{n: v for n, v in vars(key).items() if n != "sha256"} for key in keys.read(path)]
    rows = [
        ["name", "scope", "starts with", "created"],
        *([k["name"], k["scope"], k["prefix"], k["created"]] for k in kept),
    ]
    text = token if token is not None else "\n".join(show.aligned(rows))
    note = "this key is not shown again" if token is not None else ""
    return Result({"file": str(path), "keys": kept, "key": token}, text, note)
