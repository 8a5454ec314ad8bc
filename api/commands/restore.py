"""`permafrost restore C TAG`: a collection as it was at a tag or version, or out of a backup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import argument, option
from embedder.errors import UsageError


def run(
    call: Call,
    collection: options.Name,
    tag: Annotated[str | None, argument("[TAG]", "A tag of the collection.")] = None,
    version: Annotated[int | None, option("A version that is still there, as info shows it.", metavar="N")] = None,
    source: Annotated[str | None, option("Take it out of a backup instead.", "--from", metavar="BACKUP")] = None,
    into: Annotated[str | None, option("With --from: under another name.", "--as", metavar="NAME")] = None,
) -> Result:
    """Make a collection what it was, or bring back a backup.

    Nothing is lost: what was there before is tagged, and the tag is named.
    """
    with call.service() as service:
        if source is None:
            if into is not None:
                raise UsageError("--as NAME is for --from BACKUP", where="permafrost restore")
            done = service.restore(collection, tag, version=version)
            return Result(done, text(done))
        if tag is not None or version is not None:
            raise UsageError("a backup holds one moment: leave out the tag and --version", where="permafrost restore")
        done = service.restore_backup(collection, source, into=into)
    counted = f"{show.count(done['items'], 'item')}, as of {done['at']}"
    return Result(done, f"{done['collection']}: {counted}, root hash {done['root'][:16]} as in the backup")


def text(done: Mapping[str, Any]) -> str:
    """Return what changed, and how to go back."""
    name = done["collection"]
    lines = [
        f"{name} is as at {done['source']}: {show.count(done['items'], 'item')}, {show.count(done['changed'])} changed"
        + (f", {show.count(done['vectors'], 'vector')} brought back" if done["vectors"] else ""),
        f"to undo this: permafrost restore {name} {done['undo']}",
    ]
    lines += [f"head {h['head']}@{h['version']} is stale: {show.safe(h['why'])}" for h in done["stale_heads"]]
    return "\n".join(lines)
