"""Texts cut into parts, encoded in batches of like lengths, and put together again: an item leaves with all its parts.

A part stands in the batches as an item of its own whose content hash is that of its text, so that a passage which
comes again is encoded once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import TextTower
from embedder.records import Decoded, Failure, Vectors

Prepared = tuple[Decoded, Any]


@dataclass
class _Open:
    """A text some of whose `count` parts are not encoded yet."""

    decoded: Decoded
    count: int
    rows: dict[int, NDArray[np.float32]] = field(default_factory=dict)


class Whole:
    """The texts of one window. A text of which one part has no vector is a failure as a whole."""

    def __init__(self) -> None:
        self._open: dict[int, _Open] = {}
        self._made = 0

    def twin(self) -> Whole:
        """Return another one with the same texts open, for the vectors of another encoder."""
        other = Whole()
        other._open = {owner: replace(text, rows={}) for owner, text in self._open.items()}
        return other

    def split(self, decoded: Decoded, tower: TextTower) -> list[Prepared]:
        """Cut a text; the parts are tokenised, and the text is open until all of them are gathered."""
        if tower.split is None:
            raise ValueError("this tower does not cut texts")
        text = str(decoded.value)
        pieces = [text[begin:end] for begin, end in tower.split(text)]
        tokens = tower.tokens(pieces, "document")
        owner, self._made = self._made, self._made + 1
        self._open[owner] = _Open(decoded, len(pieces))
        parts = [_part(decoded, piece, owner, n) for n, piece in enumerate(pieces)]
        return list(zip(parts, tokens, strict=True))

    def gather(self, results: Iterable[Vectors | Failure]) -> Iterator[Vectors | Failure]:
        """Take encoded parts; yield the texts that are complete now, and the failures of those that never will be."""
        done: list[_Open] = []
        for result in results:
            if isinstance(result, Failure):
                yield from self._failed(result)
                continue
            for one, row in zip(result.decoded, result.array, strict=True):
                owner, part = _address(one.item.id)
                text = self._open.get(owner)
                if text is not None:
                    text.rows[part] = row
                    if len(text.rows) == text.count:
                        done.append(self._open.pop(owner))
        if done:
            rows = [text.rows[part] for text in done for part in range(text.count)]
            yield Vectors(tuple(t.decoded for t in done), np.stack(rows), tuple(t.count for t in done))

    def _failed(self, failure: Failure) -> Iterator[Failure]:
        owner, part = _address(failure.id)
        text = self._open.pop(owner, None)
        if text is not None:
            where = f"part {part + 1} of {text.count}: " if text.count > 1 else ""
            yield replace(failure, id=text.decoded.item.id, message=where + failure.message)


def _part(decoded: Decoded, piece: str, owner: int, part: int) -> Decoded:
    item = replace(decoded.item, id=f"{owner}/{part}")
    return replace(decoded, item=item, content_hash=hashlib.sha256(piece.encode()).hexdigest(), value=None)


def _address(id: str) -> tuple[int, int]:
    owner, _, part = id.partition("/")
    return int(owner), int(part)
