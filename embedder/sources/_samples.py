"""A webdataset's samples: the members of an archive that follow each other under one key, and what they hold."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from embedder.sources import _jsonl
from embedder.sources._rows import BadRow
from embedder.sources._tar import Incomplete, Member, members
from embedder.sources._types import INTEGER
from embedder.sourcing import IMAGE_SUFFIXES

FACTS = ("json", "cls", "txt", "caption")
COLUMNS = {"cls": "label", "txt": "caption", "caption": "caption"}
NAME = re.compile(r"(?:\./)*((?:.*/)?([^/.][^/.]*))\.([^/]+)", re.DOTALL)


@dataclass
class Sample:
    """`members` by extension: what follows the first dot of the base name, in lower case."""

    key: str
    offset: int
    members: dict[str, Member] = field(default_factory=dict)
    wrong: tuple[str, str] | None = None

    def picture(self, wanted: str | None) -> Member | None:
        """Return the member with the extension `wanted`, or the first that is called like a picture."""
        if wanted is not None:
            return self.members.get(wanted)
        return next((m for name, m in self.members.items() if is_picture(name)), None)

    def facts(self, *, text_is_content: bool) -> dict[str, Any] | BadRow:
        """Return the columns: the fields of `.json`, `.cls` as `label`, and `.txt` as `caption` beside a picture."""
        found: dict[str, Any] = {}
        if "json" in self.members:
            row = _jsonl.row(self.members["json"].data or b"")
            if isinstance(row, BadRow):
                return row
            # img2dataset repeats the key, which is the item's id, in a field that would need renaming
            found |= {name: value for name, value in row.items() if (name, value) != ("key", self.key)}
        for extension, column in COLUMNS.items():
            if extension in self.members and not (text_is_content and extension == "txt"):
                try:
                    text = (self.members[extension].data or b"").decode("utf-8-sig").strip()
                except UnicodeDecodeError as error:
                    return BadRow("bad_unicode", f".{extension}: byte {error.start} is not UTF-8")
                found[column] = int(text) if extension == "cls" and INTEGER.fullmatch(text) else text or None
        return found


def is_picture(extension: str) -> bool:
    """Say whether a member's extension is that of a picture: its last suffix counts."""
    return "." + extension.rsplit(".", 1)[-1] in IMAGE_SUFFIXES


def samples(file: BinaryIO, *, packed: bool, wanted: tuple[str, ...] | None) -> Iterator[Sample | Incomplete]:
    """Yield the samples of one archive, and last, where it cannot be read to its end, the reason.

    A key that comes again after another one is `wrong`, and so is a sample with two members of one extension: members
    of one key must stand together.

    Args:
        wanted: suffixes of the members whose data is read; None reads all.
    """
    seen: set[str] = set()
    now: Sample | None = None
    try:
        for member in members(file, packed=packed, wanted=wanted):
            found = NAME.fullmatch(member.name)
            if found is None or found[2].startswith("__"):
                continue
            key, extension = found[1], found[3].lower()
            if now is None or key != now.key:
                if now is not None:
                    yield now
                now = Sample(key, member.offset)
                if key in seen:
                    now.wrong = ("duplicate_key", f"the key {key!r} comes again: its members must stand together")
                seen.add(key)
            if extension in now.members:
                now.wrong = ("duplicate_key", f"the key {key!r} has two members .{extension}")
            now.members[extension] = member
    except Incomplete as error:
        if now is not None:
            yield now
        yield error
        return
    if now is not None:
        yield now
