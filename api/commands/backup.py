"""`permafrost backup C DEST`: a store of its own with the checksum of every file; `--check` compares one."""

from __future__ import annotations

from typing import Annotated

from api import show
from api.calls import Call, Result
from api.options import argument, option
from embedder.errors import UsageError


def run(
    call: Call,
    places: Annotated[list[str], argument("[C]… DEST", "The collections, then a new folder to write.")],
    all: Annotated[bool, option("Every collection of the store.", "--all")] = False,
    check: Annotated[bool, option("Compare the backup DEST with its checksums; write nothing.", "--check")] = False,
) -> Result:
    """Back collections up into a new folder, or check a backup.

    A backup is itself a store that can be opened; permafrost restore C --from DEST takes a collection out of it.
    """
    *names, dest = places
    if check and (names or all):
        raise UsageError("--check takes the folder of a backup alone", where="permafrost backup")
    if not check and all == bool(names):
        raise UsageError("name collections, or --all, in front of the folder", where="permafrost backup")
    with call.service() as service:
        done = service.check_backup(dest) if check else service.backup(names, dest)
    rows = [[c["collection"], show.count(c["items"], "item"), c["at"], c["root"][:16]] for c in done["collections"]]
    return Result(done, "\n".join([*show.aligned(rows), f"{dest}: {'sound' if check else 'written'}"]))
