"""`permafrost delete C`: items by id or by filter, or the whole collection."""

from __future__ import annotations

import sys
from typing import Annotated

from api import options, show
from api.calls import Call, Result
from api.options import option
from embedder.errors import Refused, UsageError


def run(
    call: Call,
    collection: options.Name,
    id: options.Ids = None,
    where: options.Where = None,
    all: Annotated[bool, option("The collection itself, with its heads and indexes.", "--all")] = False,
    yes: Annotated[bool, option("Do not ask before --all.", "--yes", "-y")] = False,
) -> Result:
    """Delete items, or a whole collection.

    They leave every answer at once.
    """
    ways = [name for name, given in (("--id", id), ("--where", where), ("--all", all)) if given]
    if len(ways) != 1:
        said = " and ".join(ways) or "nothing"
        raise UsageError(f"one of --id, --where and --all is needed; {said} was given", where="permafrost delete")
    with call.service() as service:
        if all and not yes:
            _confirm(collection, service.collection(collection).count())
        done = service.delete(collection, ids=id or (), where=where, everything=all)
    whole = f", and the collection {collection} itself" if done["removed"] else f" from {collection}"
    return Result(done, f"deleted {show.count(done['deleted'], 'item')}{whole}")


def _confirm(collection: str, items: int) -> None:
    what = f"collection {collection} with {show.count(items, 'item')}, its heads and its indexes"
    if not sys.stdin.isatty():
        raise Refused(f"deleting {what} was not confirmed", hint="nobody can be asked here: add --yes")
    sys.stderr.write(f"Delete {what}? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Refused("nothing was deleted: not confirmed")
