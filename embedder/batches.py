"""One batch to vectors: equal contents are encoded once, and a forward pass that fails costs only what is at fault."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import Encoder
from embedder.errors import Undecodable
from embedder.records import Decoded, Failure, Medium, Vectors
from embedder.shared import Shared

RECENT_BYTES = 64 << 20
ITEM_ERRORS = (ArithmeticError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, Undecodable)
NO_MEMORY = ("out of memory", "allocate memory", "alloc_failed", "not enough memory")
NO_DIRECTION = Undecodable("the vector is not finite or has zero norm", stage="encode", reason="non_finite")

Vector = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why an input has no vector. Not the exception itself, whose traceback would hold on to what a pass allocated."""

    reason: str
    exception: str
    message: str

    @classmethod
    def of(cls, error: Exception) -> Fault:
        """Name an error of the forward pass or of a tokenizer."""
        if isinstance(error, Undecodable):
            return cls(error.reason, type(error.__cause__ or error).__name__, error.what)
        reason = "out_of_memory" if is_memory(error) else "encode_failed"
        return cls(reason, type(error).__name__, str(error))

    def failure(self, decoded: Decoded) -> Failure:
        """Return the failure of one item."""
        item = decoded.item
        return Failure(item.id, item.source, "encode", self.reason, self.exception, self.message, bytes=decoded.size)


Outcome = tuple[Vector | Fault, ...]
"""What became of one input, for each encoder."""


class Batches:
    """The forward passes of one run, for one encoder or several with the same inputs.

    `share` is the part of the last batch that fits into memory: 1, or less where a pass did not fit; `encoded` how many
    of its inputs were new. The latest vectors, `recent_bytes` of them (64 MiB), are kept by content hash, so that a
    copy met soon after is not encoded again.
    """

    def __init__(
        self, encoder: Encoder, medium: Medium, others: Sequence[Encoder] = (), *, recent_bytes: int | None = None
    ) -> None:
        self.encoder, self.medium = encoder, medium
        self.encoders = (encoder, *others)
        self.share = 1.0
        self.encoded = 0
        self._recent: OrderedDict[str, Outcome] = OrderedDict()
        bytes = RECENT_BYTES if recent_bytes is None else recent_bytes
        self._most = max(1, bytes // (4 * sum(e.space.dim for e in self.encoders)))

    def encode(self, batch: Sequence[tuple[Decoded, Any]]) -> list[Vectors | Failure]:
        """Encode decoded items, each with the input prepared from it.

        Returns:
            a `Failure` for each item without a usable vector, then the `Vectors` of all others: the first encoder's.
        """
        return self.encode_all(batch)[0]

    def encode_all(self, batch: Sequence[tuple[Decoded, Any]]) -> list[list[Vectors | Failure]]:
        """Encode as `encode` does, with every encoder; an item that fails in one keeps its vectors of the others."""
        found: dict[str, Outcome] = {}
        new: dict[str, Any] = {}
        for decoded, prepared in batch:
            if decoded.content_hash in self._recent:
                found[decoded.content_hash] = self._recent[decoded.content_hash]
            else:
                new[decoded.content_hash] = prepared
        self.share, self.encoded = 1.0, len(new)
        if new:
            made = self._forward(new)
            self._remember(made)
            found |= made
        items = [decoded for decoded, _ in batch]
        return [
            self._answers(items, {key: outcome[n] for key, outcome in found.items()}) for n in range(len(self.encoders))
        ]

    def _answers(self, batch: Sequence[Decoded], found: Mapping[str, Vector | Fault]) -> list[Vectors | Failure]:
        answers: list[Vectors | Failure] = []
        kept: list[Decoded] = []
        rows: list[Vector] = []
        for decoded in batch:
            outcome = found[decoded.content_hash]
            if isinstance(outcome, Fault):
                answers.append(outcome.failure(decoded))
            else:
                kept.append(decoded if self.medium == "text" else replace(decoded, value=None))
                rows.append(outcome)
        return [*answers, Vectors(tuple(kept), np.stack(rows))] if kept else answers

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Outcome]:
        """Return what became of each input, by content hash; a batch that fails, or cannot fit, is split."""
        keys = list(inputs)
        fitting = max(1, round(self.encoded * self.share))
        if len(keys) > fitting:
            return self._parts(inputs, fitting)
        found = self._pass(list(inputs.values()))
        if isinstance(found, list):
            return dict(zip(keys, found, strict=True))
        half = (len(keys) + 1) // 2
        if found.reason == "out_of_memory":
            self.share = min(self.share, half / self.encoded)
        return self._parts(inputs, half)

    def _pass(self, prepared: list[Any]) -> list[Outcome] | Fault:
        """Return what became of each input, or the fault of the first encoder that failed for a batch of several."""
        batch = prepared if len(self.encoders) == 1 else Shared(prepared)
        rows: list[list[Vector | Fault]] = []
        for encoder in self.encoders:
            try:
                vectors, good = encoder.forward(self.medium, batch)
                usable = zip(vectors, good, strict=True)
                rows.append([vector if fine else Fault.of(NO_DIRECTION) for vector, fine in usable])
            except ITEM_ERRORS as error:
                fault = Fault.of(error)
                if len(batch) > 1:
                    return fault
                rows.append([fault])
        return list(zip(*rows, strict=True))

    def _parts(self, inputs: dict[str, Any], size: int) -> dict[str, Outcome]:
        keys = list(inputs)
        found: dict[str, Outcome] = {}
        for start in range(0, len(keys), size):
            found |= self._forward({key: inputs[key] for key in keys[start : start + size]})
        return found

    def _remember(self, made: Mapping[str, Outcome]) -> None:
        for key, outcome in made.items():
            rows = [row.copy() for row in outcome if not isinstance(row, Fault)]
            if len(rows) == len(outcome):
                self._recent[key] = tuple(rows)
        while len(self._recent) > self._most:
            self._recent.popitem(last=False)


def is_memory(error: Exception) -> bool:
    """Say whether an error means that memory ran out."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY)
