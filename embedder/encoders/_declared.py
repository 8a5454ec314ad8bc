"""From the preprocessing that weights declare to an `ImageTransform`; what is not declared is never filled in."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from embedder.errors import EncoderError, MissingFact
from embedder.naming import EncoderName
from embedder.transform import ImageTransform


def require(facts: Mapping[str, Any], keys: Iterable[str], where: str) -> None:
    """Refuse a configuration that leaves preprocessing open.

    Raises:
        MissingFact: a key is absent or null; all of them are named.
    """
    lacking = [key for key in keys if facts.get(key) is None]
    if lacking:
        raise MissingFact(
            f"the weights do not say how their pictures are made: no {', '.join(lacking)}",
            where=where, hint="add what they were trained with to the configuration; it is not guessed",
        )  # fmt: skip


def timm_transform(facts: Mapping[str, Any], name: EncoderName) -> ImageTransform:
    """Return what `timm.data.create_transform(..., is_training=False)` does with a resolved data configuration.

    Args:
        facts: `input_size`, `crop_pct`, `crop_mode`, `interpolation`, `mean`, `std`.
        name: its `fit`, `image_size` and `background` are applied; the ratio of resize to crop is kept, rounded down
            as timm does.

    Raises:
        EncoderError: the model does not read three channels.
        MissingFact: a geometry that is not reproduced here, unless the name chooses another.
    """
    channels, height, width = facts["input_size"]
    if channels != 3:
        raise EncoderError(f"{name} reads {channels} channels, and pictures here have three: red, green, blue")
    side = name.integer("image_size", None, low=1, high=4096)
    height, width = (side, side) if side else (height, width)
    short = math.floor(min(height, width) / facts["crop_pct"])
    fit = {"center": "crop", "squash": "squash"}.get(facts["crop_mode"], "")
    odd = height != width or not fit or (fit == "squash" and short != height)
    return _build(name, odd, height, width, short, fit, facts, f"{facts['crop_mode']} crop of {facts['input_size']}")


def open_clip_transform(facts: Mapping[str, Any], size: tuple[int, int], name: EncoderName) -> ImageTransform:
    """Return what `open_clip.transform.image_transform_v2(..., is_train=False)` does with a preprocess configuration.

    Args:
        facts: `resize_mode`, `interpolation`, `mean`, `std`.
        size: height and width, in pixels, as the model has them.
        name: its `fit` and `background` are applied.

    Raises:
        MissingFact: a geometry that is not reproduced here, unless the name chooses another.
    """
    height, width = size
    fit = {"shortest": "crop", "squash": "squash"}.get(facts["resize_mode"], "")
    odd = not fit or (fit == "crop" and height != width)
    exact = {**facts, "interpolation": "bilinear" if facts["interpolation"] == "bilinear" else "bicubic"}
    return _build(
        name, odd, height, width, min(height, width), fit, exact, f"resize {facts['resize_mode']!r} to {size}"
    )


def _build(
    name: EncoderName, odd: bool, height: int, width: int, short: int, fit: str, facts: Mapping[str, Any], what: str
) -> ImageTransform:
    if odd and name.options.get("fit", "declared") not in ("squash", "pad"):
        raise MissingFact(
            f"the weights declare a {what}, which is not reproduced here exactly",
            where=str(name), hint="say which fit to use instead: add fit=pad or fit=squash to the name",
        )  # fmt: skip
    mean, std = (_three(facts[key]) for key in ("mean", "std"))
    plain = ImageTransform(height, width, short, mean, std, facts["interpolation"], fit or "squash")
    return plain.with_options(name)


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(v) for v in (values if isinstance(values, (list, tuple)) else [values])]
    if len(numbers) not in (1, 3):
        raise MissingFact(f"mean and std need three numbers, not {numbers}")
    r, g, b = numbers * (3 // len(numbers))
    return r, g, b
