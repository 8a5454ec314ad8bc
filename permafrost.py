"""Permafrost: frozen encoders, living indexes.

    import permafrost as pf

    photos = pf.open("my.store").collection("photos")
    photos.embed("photos/", encoder="open_clip:ViT-B-32/laion2b_s34b_b79k")
    hits = photos.search(text="a red boat", where="year >= 2020", k=10)

The only name that users import; `embedder`, `index`, `heads` and `api` are rooms inside the house.
"""

from __future__ import annotations

from importlib.util import find_spec
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any


def _check_rooms() -> None:
    """Refuse a user's own `index.py` or `api/` in place of a room; our errors live in one, so it is an ImportError."""
    home = Path(__file__).resolve().parent
    for room in ("embedder", "index", "heads", "api"):
        spec = find_spec(room)
        found = Path(spec.origin).resolve() if spec and spec.origin else None
        if found != home / room / "__init__.py":
            do = f"rename {found or room}, or run from another folder"
            raise ImportError(f"'import {room}' finds {found}, which is not Permafrost's\nwhere: {home}\ndo:    {do}")


_check_rooms()

from embedder.errors import (  # noqa: E402, I001
    Damaged, DeadlineExceeded, EncoderError, Locked, MissingFact, NothingToDo, OutOfResource, Overloaded,
    PermafrostError, Refused, SpaceMismatch, TooManyFailures, Undecodable, UnknownName, UsageError,
)  # fmt: skip

if TYPE_CHECKING:
    from api.client import Encoder, Store

__all__ = [
    "Damaged", "DeadlineExceeded", "Encoder", "EncoderError", "Locked", "MissingFact", "NothingToDo",
    "OutOfResource", "Overloaded", "PermafrostError", "Refused", "SpaceMismatch", "TooManyFailures", "Undecodable",
    "UnknownName", "UsageError", "open",
]  # fmt: skip


def open(path: str | PathLike[str], **settings: Any) -> Store:
    """Open the store in a folder (the first `embed` makes it; settings: `device`, `runtime`, `workers`), or the one
    behind a service, such as `http://host:8765` (`api_key`, `timeout_s`)."""
    from api.client import open_store

    return open_store(path, **settings)


def __getattr__(name: str) -> Any:
    if name != "Encoder":
        raise AttributeError(f"module 'permafrost' has no attribute {name!r}")
    from api.client import Encoder

    return Encoder
