"""`permafrost tag C NAME`: a name for a collection as it is now."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import argument, option


def run(
    call: Call,
    collection: options.Name,
    name: Annotated[str | None, argument("[NAME]", "The tag. Without one all are listed.")] = None,
    delete: Annotated[bool, option("Forget the tag; what only it held leaves the disk.", "--delete")] = False,
) -> Result:
    """Name a collection as it is now, to restore it later.

    A tag shares its files with the collection, and survives every clean-up.
    """
    with call.service() as service:
        done = service.tag(collection, name, delete=delete)
    if delete:
        return Result(done, f"tag {name} is gone")
    if name is not None:
        return Result(done, f"{_line(done['tag'])}\nto come back: permafrost restore {collection} {name}")
    return Result(done, "\n".join(map(_line, done["tags"])), note="" if done["tags"] else "no tags")


def _line(tag: Mapping[str, Any]) -> str:
    why = f", {tag['why']}" if tag["why"] else ""
    return f"{tag['name']}  {show.count(tag['items'], 'item')}, version {tag['version']}, {tag['at']}{why}"
