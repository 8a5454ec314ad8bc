"""Pictures on their way to a GPU: the next batch is copied while this one is computed."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Any, Protocol, Self, cast, runtime_checkable

from embedder.batches import ITEM_ERRORS
from embedder.encoder import Encoder, ImageTower
from embedder.parts import Prepared


@runtime_checkable
class Staging(Protocol):
    """A forward pass that reads pictures which are on its device already."""

    def stage(self, images: Sequence[Any]) -> list[Any]:
        """Return the pictures, each on the device; may run beside a forward pass, in another thread."""


@dataclass(frozen=True)
class Gathered:
    """A batch of pictures that was to have `size` of them."""

    batch: list[Prepared]
    size: int


class Moving:
    """Holds one batch back while it is copied to the GPU; on a CPU it hands every batch on. A context manager.

    A batch that cannot be copied ahead, for want of memory, is left for the forward pass to copy.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        staging: list[Staging] = []
        for encoder in encoders:
            forward: object = cast(ImageTower, encoder.image).forward
            if encoder.device.startswith("cuda") and isinstance(forward, Staging):
                staging.append(forward)
        self._stage = staging[0].stage if len(staging) == len(encoders) else None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="copy")
        self._held: Future[Gathered] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.shutdown(cancel_futures=True)

    def swap(self, after: Gathered | None) -> Gathered | None:
        """Begin to copy a batch, and return the one before it; None stands for no batch."""
        if self._stage is None:
            return after
        before, self._held = self._held, self._thread.submit(self._moved, after) if after else None
        return before.result() if before else None

    def _moved(self, gathered: Gathered) -> Gathered:
        assert self._stage is not None
        try:
            images = self._stage([image for _, image in gathered.batch])
        except ITEM_ERRORS:
            return gathered
        batch = [(decoded, image) for (decoded, _), image in zip(gathered.batch, images, strict=True)]
        return replace(gathered, batch=batch)
