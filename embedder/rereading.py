"""Items opened again, and kept prepared for an encoder that reads them many times: pixels on the disk, tokens here."""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.errors import OutOfResource
from embedder.fetching import fetched
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, Item, Medium, Pixels
from embedder.texts import AT_ONCE, Window, prepare


@dataclass(frozen=True)
class Reread:
    """Prepared inputs of n items; `hashes` are sha256 of their contents, None with what is among the `failures`.

    Pictures lie in a file without a name, which ends with the process that made it.
    """

    values: Sequence[Any] | Pixels
    hashes: list[str | None]
    failures: list[Failure]

    def take(self, rows: Sequence[int]) -> list[Any]:
        """Return the prepared inputs of some items, in the order given."""
        return [self.values[row] for row in rows]


def reread(
    entries: Sequence[Item | Failure], encoder: Encoder, medium: Medium, *, workers: int, scratch: Path
) -> Reread:
    """Read, decode and prepare items, in their order.

    Args:
        entries: items, or why one cannot be opened.
        workers: processes that decode pictures.
        scratch: a folder on the disk that takes the pixels.

    Raises:
        OutOfResource: they do not fit there.
    """
    failures = [one for one in entries if isinstance(one, Failure)]
    items = [(at, one) for at, one in enumerate(entries) if isinstance(one, Item)]
    hashes: list[str | None] = [None] * len(entries)
    if medium == "text":
        tower = cast(TextTower, encoder.tower("text"))
        return Reread(_texts(items, tower, hashes, failures), hashes, failures)
    tower_of_pictures = cast(ImageTower, encoder.tower("image"))
    return Reread(_pictures(items, tower_of_pictures, hashes, failures, workers, scratch), hashes, failures)


def _texts(
    items: Sequence[tuple[int, Item]], tower: TextTower, hashes: list[str | None], failures: list[Failure]
) -> list[Any]:
    values: list[Any] = [None] * len(hashes)
    at = {item.id: place for place, item in items}
    listed = _opened([item for _, item in items], failures)
    while part := list(islice(listed, AT_ONCE)):
        window = Window()
        prepare(part, tower, window)
        failures += window.failures
        for decoded, tokens in window.ready:
            place = at[decoded.item.id]
            values[place], hashes[place] = tokens, decoded.content_hash
    return values


def _opened(items: Sequence[Item], failures: list[Failure]) -> Iterator[Item]:
    for found in fetched(items):
        if isinstance(found, Failure):
            failures.append(found)
        else:
            yield found


def _pictures(
    items: Sequence[tuple[int, Item]], tower: ImageTower, hashes: list[str | None], failures: list[Failure],
    workers: int, scratch: Path,
) -> Pixels:  # fmt: skip
    shape = (max(1, len(hashes)), tower.transform.height, tower.transform.width, 3)
    size = math.prod(shape)
    with tempfile.TemporaryFile(dir=scratch) as file:
        try:
            # a page of a mapped file that finds no room when it is written would end the process
            os.posix_fallocate(file.fileno(), 0, size)
        except OSError as error:
            raise OutOfResource(
                f"{size / 1e9:.1f} GB of pixels do not fit on the disk: {error.strerror}", where=str(scratch),
                hint="free some, or tune on fewer items: --limit",
            ) from error  # fmt: skip
        values = np.memmap(file, dtype=np.uint8, mode="r+", shape=shape)
    at = {item.id: place for place, item in items}
    with DecodePool(workers) as pool:
        for found in pool.map(_opened([item for _, item in items], failures), tower.transform):
            if isinstance(found, Decoded):
                place = at[found.item.id]
                values[place], hashes[place] = found.value, found.content_hash
            else:
                failures.append(found)
    return values
