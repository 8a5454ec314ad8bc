"""A file in a kinds folder is a kind. There is no registry, and listing imports none of them."""

from __future__ import annotations

import importlib
import pkgutil
from types import ModuleType

from embedder.errors import UnknownName


def names(package: str) -> list[str]:
    """Return the kinds in a folder such as `"embedder.encoders"`, sorted; a leading underscore hides a file."""
    folder = importlib.import_module(package).__path__
    return sorted(m.name for m in pkgutil.iter_modules(folder) if not m.name.startswith("_"))


def load(package: str, name: str, what: str = "kind") -> ModuleType:
    """Import the kind `name` from `package`.

    Raises:
        UnknownName: there is no such file; the nearest names are in the hint.
    """
    known = names(package)
    if name not in known:
        raise UnknownName.of(what, name, known, where=package, hint=f"known: {', '.join(known)}")
    return importlib.import_module(f"{package}.{name}")
