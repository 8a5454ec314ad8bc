"""What the tests of sources share: small pictures, and the two halves of what a source yields."""

from __future__ import annotations

import os
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image

from embedder.records import Failure, Item
from embedder.sourcing import Source, SourceOptions, open_source
from tests.embedder.corpus import encoded

NOBODY = 65534


def png(word: str) -> bytes:
    """A small picture of one colour, another for each word."""
    return encoded(Image.new("RGB", (8, 8), tuple(zlib.crc32(word.encode()).to_bytes(4, "big")[:3])), "PNG")


def opened(path: Path, **options: Any) -> Source:
    return open_source(str(path), SourceOptions(**options))


def items(source: Source) -> list[Item]:
    return [one for one in source if isinstance(one, Item)]


def failures(source: Source) -> list[Failure]:
    return [one for one in source if isinstance(one, Failure)]


def one_failure(source: Source) -> Failure:
    (found,) = failures(source)
    return found


@contextmanager
def not_root() -> Iterator[Path]:
    """A folder, and no power over what its modes forbid: root reads everything."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o777)
        if root:
            os.seteuid(NOBODY)
        try:
            yield Path(name)
        finally:
            if root:
                os.seteuid(0)
