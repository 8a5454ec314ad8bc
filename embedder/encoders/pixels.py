"""No weights: a picture's own pixels, as area means. The baseline that any encoder has to beat. `pixels:32`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import Encoder, ImageTower
from embedder.encoders._common import describe, settings
from embedder.encoders.hashing import dimension
from embedder.naming import EncoderName
from embedder.transform import ImageTransform

OPTIONS = frozenset({"normalize", "fit", "background"})
LIMITS = (1, 128)


def catalogue() -> list[str]:
    """Return one example; any side from 1 to 128 can be asked for."""
    return ["pixels:32"]


def load(name: EncoderName, device: str) -> Encoder:
    """Build the encoder; there is nothing to load, and `device` is not used.

    By default the whole picture is padded to a square with `background`, then shrunk to S x S means. A value v of 0
    to 255 becomes (v + 1) / 256, so that an all-black picture has a vector too; for a linear probe that is no change.

    Raises:
        UsageError: the name is not a side from 1 to 128, or carries a revision.
    """
    side = dimension(name, *LIMITS)
    chosen = settings(name)
    transform = ImageTransform(side, side, side, (0, 0, 0), (1, 1, 1), "box", "pad").with_options(name)
    space = describe(
        name, chosen, dim=side * side * 3, architecture="pixels/1", weights={"none": True},
        layer="pixels", pooling="none", image=transform, more={"scale": "(v+1)/256"},
    )  # fmt: skip

    def forward(prepared: Sequence[Any]) -> NDArray[np.floating[Any]]:
        return (np.stack(prepared).reshape(len(prepared), -1).astype(np.float32) + 1) / 256

    return Encoder(name, space, "cpu", ImageTower(transform, forward))
