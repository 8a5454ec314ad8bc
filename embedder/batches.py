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
        reason = "out_of_memory" if _is_memory(error) else "encode_failed"
        return cls(reason, type(error).__name__, str(error))

    def failure(self, decoded: Decoded) -> Failure:
        """Return the failure of one item."""
        item = decoded.item
        return Failure(item.id, item.source, "encode", self.reason, self.exception, self.message, bytes=decoded.size)


class Batches:
    """The forward passes of one run.

    `share` is the part of a full batch that fits into memory: 1, and less from the first pass on that did not fit. The
    latest vectors, 64 MiB of them, are kept by content hash, so that a copy met soon after is not encoded again.
    """

    def __init__(self, encoder: Encoder, medium: Medium) -> None:
        self.encoder, self.medium = encoder, medium
        self.share = 1.0
        self._full = 0.0
        self._recent: OrderedDict[str, Vector] = OrderedDict()
        self._most = max(1, RECENT_BYTES // (4 * encoder.space.dim))

    def encode(self, batch: Sequence[tuple[Decoded, Any]]) -> list[Vectors | Failure]:
        """Encode decoded items, each with the input prepared from it.

        Returns:
            a `Failure` for each item without a usable vector, then the `Vectors` of all others.
        """
        found: dict[str, Vector | Fault] = {}
        new: dict[str, Any] = {}
        for decoded, prepared in batch:
            if decoded.content_hash in self._recent:
                found[decoded.content_hash] = self._recent[decoded.content_hash]
            else:
                new[decoded.content_hash] = prepared
        if new:
            self._full = len(new) / self.share
            made = self._forward(new)
            self._remember(made)
            found |= made
        return self._answers([decoded for decoded, _ in batch], found)

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

    def _forward(self, inputs: dict[str, Any]) -> dict[str, Vector | Fault]:
        """Return a vector or a fault for each input, by content hash; a batch that fails, or cannot fit, is split."""
        keys = list(inputs)
        fitting = max(1, round(self._full * self.share))
        if len(keys) > fitting:
            return self._parts(inputs, fitting)
        try:
            vectors, good = self.encoder.forward(self.medium, list(inputs.values()))
            return {
                key: vector if usable else Fault.of(NO_DIRECTION)
                for key, vector, usable in zip(keys, vectors, good, strict=True)
            }
        except ITEM_ERRORS as error:
            fault = Fault.of(error)
        if len(keys) == 1:
            return {keys[0]: fault}
        half = (len(keys) + 1) // 2
        if fault.reason == "out_of_memory":
            self.share = min(self.share, half / self._full)
        return self._parts(inputs, half)

    def _parts(self, inputs: dict[str, Any], size: int) -> dict[str, Vector | Fault]:
        keys = list(inputs)
        found: dict[str, Vector | Fault] = {}
        for start in range(0, len(keys), size):
            found |= self._forward({key: inputs[key] for key in keys[start : start + size]})
        return found

    def _remember(self, made: Mapping[str, Vector | Fault]) -> None:
        self._recent |= {key: outcome.copy() for key, outcome in made.items() if not isinstance(outcome, Fault)}
        while len(self._recent) > self._most:
            self._recent.popitem(last=False)


def _is_memory(error: Exception) -> bool:
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY)
