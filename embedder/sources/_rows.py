"""What the readers of tables share: a row, a bad row, the limit of both, and the refusal of what is not UTF-8."""

from __future__ import annotations

import codecs
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.errors import UsageError

LIMIT = 16 << 20


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read: a short reason and what was seen."""

    reason: str
    message: str


Row = dict[str, Any] | BadRow


def require_utf8(path: Path) -> None:
    """Look at the first bytes of a file of text.

    Raises:
        UsageError: it is UTF-16 or UTF-32.
    """
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) or b"\0" in head:
        raise UsageError(
            f"{path.name} is not UTF-8 but looks like UTF-16 or UTF-32", where=str(path),
            hint="convert it first: iconv -f UTF-16 -t UTF-8 OLD > NEW",
        )  # fmt: skip
