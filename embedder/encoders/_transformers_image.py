"""Vision models as image encoders: the class token, or the pooled patches, of any layer."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from torch import Tensor

from embedder.encoder import Encoder, Forward, ImageTower
from embedder.encoders._common import Settings, describe, index, settings
from embedder.encoders._torch import Cut, grey, image_forward, joined, width_of
from embedder.encoders._transformers_model import Built
from embedder.encoders._transformers_processor import image_transform
from embedder.errors import EncoderError, UsageError
from embedder.naming import EncoderName
from embedder.transform import ImageTransform

POOLINGS = ("cls", "mean", "max")


@dataclass(frozen=True)
class Trunk:
    """The model over pixels; with `deep` every hidden state, else the output alone."""

    model: Any
    resized: bool
    deep: bool = True

    def __call__(self, pixels: Tensor) -> tuple[Tensor, ...]:
        """Return the hidden states, and the output, after the final norm, in place of the last of them."""
        more = {"interpolate_pos_encoding": True} if self.resized else {}
        found = self.model(pixel_values=pixels, output_hidden_states=self.deep, return_dict=True, **more)
        return (*(found.hidden_states or (None,))[:-1], found.last_hidden_state)


@dataclass(frozen=True)
class Reader:
    """What is read out of the states. `layer` is None for the model's output, after its final norm.

    `prefix` counts the tokens before the patches (class, distillation and register tokens), which `mean` and `max`
    leave out. Feature maps (n, dim, height, width) are read as patches.
    """

    layer: int | None = None
    prefix: int = 0
    pooling: str = "mean"

    def __call__(self, found: tuple[Tensor, ...]) -> Tensor:
        """Return (n, dim)."""
        states = found[-1 if self.layer is None else self.layer].float()
        if states.ndim == 4:
            states = states.flatten(2).transpose(1, 2)
        if self.pooling == "cls":
            return states[:, 0]
        patches = states[:, self.prefix :]
        return patches.amax(1) if self.pooling == "max" else patches.mean(1)


def wrap_all(names: Sequence[EncoderName], built: Built) -> list[Encoder]:
    """Wrap a model for each name; where they are several, one pass is enough for all."""
    found = [wrap(name, settings(name), built) for name in names]
    return joined(found, lambda trunks: replace(trunks[0], deep=True)) if len(found) > 1 else found


def wrap(name: EncoderName, chosen: Settings, built: Built) -> Encoder:
    """Wrap a model with the image processor in its folder."""
    transform = image_transform(built.folder, name)
    accepts = "interpolate_pos_encoding" in inspect.signature(built.model.forward).parameters
    trunk = Trunk(built.model, "image_size" in name.options and accepts)
    shapes = _shapes(name, trunk, transform, chosen, built)
    tokens = shapes[-1][1] if len(shapes[-1]) == 3 else 0
    patches = _patches(built.model.config, transform)
    prefix = max(tokens - patches, 0) if tokens and patches else 0
    pooling = name.choice("pooling", "cls" if prefix else "mean", POOLINGS)
    layer = index(name, len(shapes))
    if pooling == "cls" and not prefix:
        raise UsageError("pooling=cls needs a model with a class token", where=str(name), hint="use pooling=mean")
    last = layer is None or layer == len(shapes) - 1
    cut = Cut(replace(trunk, deep=not last), Reader(None if last else layer, prefix, pooling))
    forward = image_forward(cut, transform, built.where, chosen.dtype)
    _require_repeatable(name, forward, transform)
    space = describe(
        name, chosen, dim=width_of(forward, grey(transform), str(name)), architecture=built.architecture,
        weights=built.weights, layer=len(shapes) - 1 if last else layer or 0, pooling=pooling, image=transform,
        more={**built.more, "prefix": prefix}, provenance=built.provenance,
    )  # fmt: skip
    return Encoder(name, space, str(built.where), ImageTower(transform, forward), module=built.model)


def _shapes(
    name: EncoderName, trunk: Trunk, transform: ImageTransform, chosen: Settings, built: Built
) -> list[tuple[int, ...]]:
    """Return the shape of every layer's states for one picture."""
    found: list[tuple[int, ...]] = []

    def features(pixels: Tensor) -> Tensor:
        states = trunk(pixels)
        found.extend(tuple(state.shape) for state in states)
        return states[-1].flatten(1)

    width_of(image_forward(features, transform, built.where, chosen.dtype), grey(transform), str(name))
    return found


def _patches(config: Any, transform: ImageTransform) -> int:
    size = getattr(config, "patch_size", None)
    if not isinstance(size, (int, list, tuple)):
        return 0
    height, width = (size, size) if isinstance(size, int) else size
    return (transform.height // int(height)) * (transform.width // int(width))


def _require_repeatable(name: EncoderName, forward: Forward, transform: ImageTransform) -> None:
    one, two = (forward([grey(transform)]) for _ in range(2))
    if not np.allclose(one, two, rtol=1e-3, atol=1e-5):
        raise EncoderError(
            "the model gives another vector each time: it draws random numbers, as masked autoencoders do",
            where=str(name), hint="choose a model that reads the whole picture",
        )  # fmt: skip
