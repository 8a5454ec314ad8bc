"""Which column of a table is the content, of which medium, and what one of its cells holds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from embedder.decode.sniff import look
from embedder.errors import UsageError
from embedder.records import Medium
from embedder.sources._types import as_text
from embedder.sourcing import IMAGE_SUFFIXES

TEXT_NAMES = ("text", "content", "caption", "sentence", "document", "body", "description", "title")
IMAGE_NAMES = ("image", "path", "file", "filename", "file_name", "filepath", "image_path")


def find(
    samples: Mapping[str, Any], types: Mapping[str, str], wanted: str | None, media: Medium | None, where: str
) -> tuple[str, Medium]:
    """Return the content column and its medium.

    Args:
        samples: the first value of each column that is not null.
        types: the type of each column.
        wanted: the column that the user named, if any; `media`: the medium, if any.

    Raises:
        UsageError: none is plainly the content, or one of texts and one of pictures both are.
    """
    if wanted:
        return wanted, media or ("image" if _is_picture(samples.get(wanted)) else "text")
    text = _named(types, TEXT_NAMES) if media != "image" else None
    image = _picture_column(samples, types, media) if media != "text" else None
    if text and image:
        raise UsageError(
            f"the content may be the pictures in {image!r} or the texts in {text!r}", where=where,
            hint="say which: --media image or --media text",
        )  # fmt: skip
    if text:
        return text, "text"
    if image:
        return image, "image"
    raise UsageError(
        "no column is plainly the content", where=f"{where}, columns: {', '.join(types)}",
        hint="name it: --content-column NAME (and --media image where it holds paths of pictures)",
    )  # fmt: skip


def value(cell: Any, medium: Medium) -> str | bytes | None:
    """Return a cell's text, path or bytes; None where it holds nothing. Pictures may be {"bytes", "path"}."""
    if medium == "image" and isinstance(cell, Mapping):
        cell = cell.get("bytes") or cell.get("path")
    if cell is None or cell in ("", b""):
        return None
    return cell if isinstance(cell, bytes) else as_text(cell)


def _named(types: Mapping[str, str], names: tuple[str, ...]) -> str | None:
    spelled = {name.lower(): name for name in reversed(list(types))}
    return next((spelled[name] for name in names if name in spelled), None)


def _picture_column(samples: Mapping[str, Any], types: Mapping[str, str], media: Medium | None) -> str | None:
    """Return the column of pictures: by name and value, else the only one by value, else, where asked, by name."""
    plain = [name for name in types if _is_picture(samples.get(name), unknown=False)]
    named = _named({name: types[name] for name in types if _is_picture(samples.get(name))}, IMAGE_NAMES)
    alone = plain[0] if len(plain) == 1 else None
    return named or alone or (_named(types, IMAGE_NAMES) if media == "image" else None)


def _is_picture(sample: Any, *, unknown: bool = True) -> bool:
    """Say whether a cell holds or names a picture; `unknown` is the answer for bytes that look like nothing known."""
    if isinstance(sample, Mapping):
        return "bytes" in sample or "path" in sample
    if isinstance(sample, bytes):
        found = look(sample)
        return unknown if found is None else found.name != "text"
    return os.path.splitext(str(sample))[1].lower() in IMAGE_SUFFIXES
