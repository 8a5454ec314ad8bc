"""Options and arguments that several verbs share, each described once."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from embedder.errors import UsageError


def option(help: str, *names: str, **more: Any) -> Any:
    """Describe an option; its default is shown only where it says something."""
    return typer.Option(*names, help=help, **{"show_default": False, **more})


def argument(metavar: str, help: str) -> Any:
    """Describe an argument."""
    return typer.Argument(metavar=metavar, help=help, show_default=False)


Name = Annotated[str, argument("C", "The collection.")]
Space = Annotated[str | None, option("The Space: an alias, a fingerprint, or an encoder's name.", metavar="S")]
Where = Annotated[
    str | None, option("Only items that pass, such as \"year >= 2020 AND label = 'cat'\".", metavar="SQL")
]
Split = Annotated[str | None, option("A column that says train or test.", metavar="X")]
Group = Annotated[
    str | None, option("A column of what must not be parted, such as a patient. Default: group.", metavar="X")
]
SmallestClass = Annotated[int, option("Leave out classes that have fewer.", metavar="N", min=2, show_default=True)]
Device = Annotated[str | None, option("auto, cpu, cuda or cuda:N.", metavar="D")]
Runtime = Annotated[str | None, option("What runs the networks: torch, openvino, onnx or auto.", metavar="R")]
Ids = Annotated[list[str] | None, option("A stored item; may be repeated.", metavar="ID")]

FailureRate = Annotated[
    float, option("The share of failed items that passes.", metavar="R", min=0, max=1, show_default=True)
]

Store = Annotated[
    str | None,
    option("The store's folder. Default: $PERMAFROST_STORE, then ./permafrost.store.", "--store", metavar="URI"),
]
Json = Annotated[bool, option("Print one JSON document on stdout and nothing else.", "--json")]
Debug = Annotated[bool, option("Show logs, and the traceback of an error.", "--debug")]
Version = Annotated[bool, option("Print the version.", "--version")]


def head_name(value: str, where: str) -> tuple[str, str]:
    """Return the collection and the head of `C/HEAD[@VERSION]`. Raises `UsageError` where it is not that."""
    collection, slash, name = value.partition("/")
    if not slash or not collection or not name:
        raise UsageError(f"{value!r} is not a head", where=where, hint="write C/HEAD or C/HEAD@VERSION")
    return collection, name
