"""Spaces of vectors that came ready: declared by name, because no encoder is at hand that made them."""

from __future__ import annotations

from collections.abc import Sequence

from embedder.errors import UsageError
from embedder.records import Medium
from embedder.space import Space

PREFIX = "declared:"


def declare(name: str, dim: int, media: Sequence[Medium], *, normalize: bool = False) -> Space:
    """Return the Space of vectors whose maker is known by a name alone; another name is another Space.

    Args:
        name: what made them, in the words of whoever brings them.
        normalize: all of them have unit length.

    Raises:
        UsageError: an empty name, or a dimension below 1.
    """
    if not name.strip() or dim < 1:
        raise UsageError(f"a declared Space needs a name and a dimension of at least 1, not {name!r} and {dim}")
    identity = {"declared": name.strip(), "normalize": normalize, "dtype": "float32"}
    return Space(PREFIX + name.strip(), dim, tuple(media), identity)


def refuse(encoder: str) -> None:
    """Refuse to load what is no encoder. Raises `UsageError` for the name of a declared Space."""
    if encoder.startswith(PREFIX):
        raise UsageError(
            f"{encoder} was declared: its vectors came ready, and no encoder here makes more of them",
            hint="search with --vector or --id; permafrost reembed C --encoder E makes vectors of an encoder",
        )
