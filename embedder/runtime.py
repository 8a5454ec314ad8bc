"""Running an encoder's networks by another library than torch, and only where it makes the same vectors.

A kind (a file in `embedder/runtimes/`) declares `MODULES` and `DEVICES` and offers `compile`. No encoder kind knows of
them: a forward pass in two steps (`Steps`) is enough. A runtime is no part of a Space, so its vectors of the golden
inputs are compared with torch's at every load.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import Any, Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from embedder import golden, kinds
from embedder.encoder import Encoder, Forward
from embedder.errors import EncoderError, SpaceMismatch, UnknownName, UsageError
from embedder.records import Medium

log = logging.getLogger("permafrost.runtime")

FOLDER = "embedder.runtimes"
TORCH, AUTO = "torch", "auto"
LEAST_LENGTH = 0.99
"""The shorter vector's length over the longer one's: all that a cosine does not see where a Space keeps lengths."""
LONG = 512
"""Tokens of the longest text that is compared."""
WORTH = 0.95
"""`auto` leaves torch for what takes less than this share of its time."""

Network = Callable[..., NDArray[np.floating[Any]]]


class Inputs(Protocol):
    """Prepared inputs to tensors. `varying` are the axes whose size differs between batches, of every tensor."""

    @property
    def varying(self) -> tuple[int, ...]:
        """The axes, 0 (the batch) among them."""

    def __call__(self, prepared: Sequence[Any]) -> tuple[Any, ...]:
        """Return tensors with the batch as their first axis."""


@runtime_checkable
class Steps(Protocol):
    """A forward pass of torch in two steps; a runtime can take over the second."""

    @property
    def inputs(self) -> Inputs:
        """The first step, which holds no weights."""

    def network(self, *inputs: Any) -> Any:
        """Return features (n, dim) of the tensors, as a tensor."""


class RuntimeKind(Protocol):
    """What a file in `embedder/runtimes/` offers. `MODULES` are imported by it, `DEVICES` are where it runs."""

    MODULES: tuple[str, ...]
    DEVICES: tuple[str, ...]

    def compile(
        self, network: Callable[..., Any], example: tuple[Any, ...], varying: tuple[int, ...], dtype: str, threads: int
    ) -> Network:
        """Return a function from the tensors of a batch to features (n, dim) float32; safe to call in any thread.

        Args:
            example: the tensors of one batch; sizes along the axes `varying` stand for any size.
            dtype: the precision of the Space: `float32`, `bfloat16` or `float16`.
            threads: how many to compute with.

        May raise whatever the library raises for a network that it cannot read.
        """


@dataclass(frozen=True, eq=False)
class Replaced:
    """A forward pass whose network is run by another library."""

    inputs: Inputs
    run: Network

    def __call__(self, prepared: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Return (n, dim)."""
        return self.run(*self.inputs(prepared))


def require(runtime: str) -> None:
    """Refuse a runtime that is not known or not installed.

    Raises:
        UnknownName: no such runtime; the nearest are in the hint.
        UsageError: its package is missing; the extra that has it is named.
    """
    known = [AUTO, TORCH, *kinds.names(FOLDER)]
    if runtime not in known:
        raise UnknownName.of("runtime", runtime, known, where="--runtime", hint=f"known: {', '.join(known)}")
    if runtime not in (AUTO, TORCH) and not _installed(runtime):
        raise UsageError(
            f"{' and '.join(_kind(runtime).MODULES)}, which the runtime {runtime} needs, is not installed",
            where="--runtime", hint=f"pip install 'permafrost[{runtime}]', or leave the runtime at torch",
        )  # fmt: skip


def others(encoder: Encoder, medium: Medium) -> tuple[str, ...]:
    """Return the installed runtimes that `auto` would try for an encoder that torch runs; none for any other."""
    if encoder.runtime != TORCH or encoder.device != "cpu" or not isinstance(encoder.tower(medium).forward, Steps):
        return ()
    return tuple(kind for kind in kinds.names(FOLDER) if _installed(kind) and "cpu" in _kind(kind).DEVICES)


def run_by(runtime: str, encoder: Encoder) -> Encoder:
    """Return the encoder with its networks run by `runtime`; one without a network (`hashing`, `openai`) as it is.

    Args:
        runtime: `torch`, a kind, or `auto`: the fastest here of torch and every runtime that is installed and makes the
            same vectors; on a GPU always torch.

    Raises:
        UnknownName, UsageError: as `require`; or the runtime does not run on the encoder's device.
        EncoderError: the runtime cannot run this network.
        SpaceMismatch: the vectors differ from torch's; the cosine is named.
    """
    require(runtime)
    if runtime == TORCH or not _networks(encoder):
        return encoder
    if runtime == AUTO:
        return _fastest(encoder)
    return _run_by(runtime, encoder)


def _kind(runtime: str) -> RuntimeKind:
    return cast(RuntimeKind, kinds.load(FOLDER, runtime, "runtime"))


def _installed(runtime: str) -> bool:
    return all(find_spec(module) is not None for module in _kind(runtime).MODULES)


def _networks(encoder: Encoder) -> dict[Medium, Steps]:
    forwards: dict[Medium, Any] = {medium: encoder.tower(medium).forward for medium in encoder.space.media}
    return {medium: forward for medium, forward in forwards.items() if isinstance(forward, Steps)}


def _run_by(runtime: str, encoder: Encoder) -> Encoder:
    kind, found = _kind(runtime), replace(encoder, runtime=runtime)
    if encoder.device.partition(":")[0] not in kind.DEVICES:
        raise UsageError(
            f"the runtime {runtime} runs on {' and '.join(kind.DEVICES)} only, and {encoder.name} is on "
            f"{encoder.device}", hint="add --device cpu, or use --runtime torch",
        )  # fmt: skip
    try:
        for medium, steps in _networks(encoder).items():
            found = _replaced(found, medium, _compiled(kind, encoder, medium, steps))
        _require_equal(encoder, found)
    except SpaceMismatch:
        raise
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"{runtime} cannot run {encoder.name}: {reason}", where="--runtime",
            hint="use --runtime torch, or auto, which falls back to it",
        ) from error  # fmt: skip
    return found


def _replaced(encoder: Encoder, medium: Medium, forward: Forward) -> Encoder:
    if medium == "image":
        return replace(encoder, image=replace(cast(Any, encoder.image), forward=forward))
    return replace(encoder, text=replace(cast(Any, encoder.text), forward=forward))


def _compiled(kind: RuntimeKind, encoder: Encoder, medium: Medium, steps: Steps) -> Replaced:
    import torch

    with torch.no_grad():
        example = steps.inputs(_golden(encoder, medium)[:2])
        varying, threads = steps.inputs.varying, torch.get_num_threads()
        return Replaced(steps.inputs, kind.compile(steps.network, example, varying, encoder.space.dtype, threads))


def _golden(encoder: Encoder, medium: Medium) -> list[Any]:
    values: Sequence[Any] = golden.pictures() if medium == "image" else golden.TEXTS
    return [encoder.prepare(value)[1] for value in values]


def _batches(encoder: Encoder, medium: Medium) -> list[list[Any]]:
    """Return batches of other sizes than what is traced: a size that became a constant would show in one of them."""
    prepared = _golden(encoder, medium)
    if medium == "image":
        return [prepared[:1], [*prepared, *prepared]]
    long = encoder.prepare(" ".join(golden.TEXTS * (LONG // sum(len(text.split()) for text in golden.TEXTS))))[1]
    return [prepared, *([one] for one in prepared), [long, prepared[0]]]


def _require_equal(plain: Encoder, other: Encoder) -> None:
    least = golden.LEAST_COSINE[plain.space.dtype]
    found = {medium: _likeness(plain, other, medium) for medium in _networks(plain)}
    if not all(cosine >= least and length >= LEAST_LENGTH for cosine, length in found.values()):
        told = ", ".join(
            f"{medium} cosine {cosine:.6f}, length {length:.4f}" for medium, (cosine, length) in found.items()
        )
        raise SpaceMismatch(
            f"{other.runtime} does not make the vectors of {plain.name} that torch makes: golden {told}",
            where=f"Space {plain.space}, device {plain.device}",
            hint=f"use --runtime torch; at least {least} (length {LEAST_LENGTH}) is asked of {plain.space.dtype}",
        )


def _likeness(plain: Encoder, other: Encoder, medium: Medium) -> tuple[float, float]:
    """Return the least cosine between the vectors of both, and the least ratio of their lengths; NaN never passes."""
    cosines, lengths = [], []
    for batch in _batches(plain, medium):
        a, b = (np.asarray(encoder.forward(medium, batch)[0], dtype=np.float64) for encoder in (plain, other))
        long = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
        cosines.append(np.sum(a * b, axis=1) / (long[0] * long[1]))
        lengths.append(np.minimum(*long) / np.maximum(*long))
    return float(np.min(np.concatenate(cosines))), float(np.min(np.concatenate(lengths)))


def _fastest(encoder: Encoder) -> Encoder:
    if encoder.device.startswith("cuda"):
        return encoder
    plain = _seconds(encoder)
    best, least = encoder, WORTH * plain
    for runtime in [name for name in kinds.names(FOLDER) if _installed(name)]:
        try:
            found = _run_by(runtime, encoder)
        except (EncoderError, SpaceMismatch, UsageError) as error:
            log.info("%s is not run by %s: %s", encoder.name, runtime, error)
            continue
        seconds = _seconds(found)
        log.info("%s takes %.1f ms by %s, %.1f ms by torch", encoder.name, 1e3 * seconds, runtime, 1e3 * plain)
        if seconds < least:
            best, least = found, seconds
    log.info("%s is run by %s", encoder.name, best.runtime)
    return best


def _seconds(encoder: Encoder) -> float:
    """Return the seconds of a small batch through every tower, the best of three after one to warm up."""
    batches = {medium: 4 * _golden(encoder, medium) for medium in encoder.space.media}
    found = []
    for _ in range(4):
        started = time.perf_counter()
        for medium, batch in batches.items():
            encoder.forward(medium, batch)
        found.append(time.perf_counter() - started)
    return min(found[1:])
