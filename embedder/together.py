"""Encoders that go through a source in one pass: what they may share, and how they are loaded so that they do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol, cast, runtime_checkable

import numpy as np

from embedder import golden, kinds, naming
from embedder.batches import ITEM_ERRORS
from embedder.encoder import Encoder, load_encoder, load_with
from embedder.errors import EncoderError
from embedder.naming import EncoderName
from embedder.records import Medium
from embedder.remote import Endpoint
from embedder.runtime import AUTO, require, run_by
from embedder.shared import Shared

READ_OUT = ("layer", "pooling", "normalize")
LEAST_COSINE = {"float32": 0.999999, "bfloat16": 0.9999, "float16": 0.9999}


@runtime_checkable
class SharingKind(Protocol):
    """An encoder kind whose encoders of one model can share it."""

    def load_together(self, names: Sequence[EncoderName], device: str) -> list[Encoder]:
        """Load one model for names that differ in `layer`, `pooling` and `normalize` only; raises as `load` does.

        Given one `Shared` list, these encoders run the model once.
        """


def stem(name: EncoderName) -> EncoderName:
    """Return the name without the options that say what is read out of the model; those left decide its inputs."""
    return replace(name, options={k: v for k, v in name.options.items() if k not in READ_OUT})


def same_inputs(one: Encoder, other: Encoder, medium: Medium) -> bool:
    """Say whether two encoders read the very same prepared inputs, in the same batches."""
    if one.device != other.device:
        return False
    if medium == "image":
        return one.image is not None and other.image is not None and one.image.transform == other.image.transform
    return str(stem(one.name)) == str(stem(other.name))


def load_encoders(
    names: Sequence[str], *, device: str = "auto", endpoint: Endpoint | None = None, runtime: str = "torch"
) -> list[Encoder]:
    """Load encoders, in the order of their names; those of one model share it. Raises as `load_encoder` does.

    Args:
        runtime: what runs their networks: see `run_by`, which also says what it raises. Encoders that share a model
            run it once in torch, so `auto` leaves them there; any other runtime runs it for each of them.
    """
    require(runtime)
    parsed = [naming.parse(name) for name in names]
    groups: dict[str, list[int]] = {}
    for place, name in enumerate(parsed):
        groups.setdefault(str(stem(name)), []).append(place)
    found: dict[int, Encoder] = {}
    for places in groups.values():
        members = [parsed[place] for place in places]
        kept = runtime == AUTO and len(members) > 1
        loaded = _group(members, device, endpoint)
        found |= zip(places, loaded if kept else [run_by(runtime, one) for one in loaded], strict=True)
    return [found[place] for place in range(len(names))]


def _group(names: Sequence[EncoderName], device: str, endpoint: Endpoint | None) -> list[Encoder]:
    kind = kinds.load("embedder.encoders", names[0].kind, "encoder kind")
    if len(names) > 1 and isinstance(kind, SharingKind):
        found = load_with(names, lambda plain: cast(SharingKind, kind).load_together(plain, device))
        if all(agree(found, medium) for medium in found[0].space.media):
            return found
    return [load_encoder(name, device=device, endpoint=endpoint) for name in names]


def agree(encoders: Sequence[Encoder], medium: Medium) -> bool:
    """Say whether these encoders give the golden inputs the same vectors together as each of them gives alone."""
    first = encoders[0]
    values = golden.pictures() if medium == "image" else golden.TEXTS
    prepared = [first.prepare(value)[1] for value in values]
    alone = [encoder.forward(medium, prepared)[0] for encoder in encoders]
    places = list(range(len(encoders)))
    # what writes into the states that it reads shows in one order or the other
    for order in (places, places[::-1]):
        shared = Shared(prepared)
        for place in order:
            try:
                together = encoders[place].forward(medium, shared)[0]
            except (*ITEM_ERRORS, AssertionError, EncoderError):
                return False
            scale = np.linalg.norm(alone[place], axis=1) * np.linalg.norm(together, axis=1)
            least = LEAST_COSINE[encoders[place].space.dtype] * scale
            if not (np.sum(alone[place] * together, axis=1) >= least).all():
                return False
    return True
