"""Options of the form NAME=VALUE."""

from __future__ import annotations

from collections.abc import Sequence

from embedder.errors import UsageError


def pairs(values: Sequence[str] | None, example: str) -> dict[str, str]:
    """Read repeated `a=b` options. Raises `UsageError` where one has no `=`, no name, or a name given before."""
    found: dict[str, str] = {}
    for value in values or ():
        name, equals, text = value.partition("=")
        if not equals or not name:
            raise UsageError(f"{value!r} is not a pair", where=example.split()[0], hint=f"write {example}")
        if name in found:
            raise UsageError(f"{name!r} is given twice", where=example.split()[0])
        found[name] = text
    return found
