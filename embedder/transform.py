"""How a picture becomes the pixels that an encoder reads: plain data.

The geometry runs beside the decoder (in a worker process, without torch); scaling to floats and subtracting the mean
run in batches beside the forward pass. Both together equal the reference library's own transform, to the tolerance of
`embedder.decode.resize`: its pixels differ in fewer than 1 % of the values, by at most 2 of 255.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from embedder.decode.resize import INTERPOLATIONS, resize
from embedder.errors import MissingFact, Undecodable, UsageError
from embedder.naming import EncoderName
from embedder.records import Pixels

FITS = ("crop", "crop_floor", "squash", "pad")
MAX_ASPECT = 200
MAX_PADDED = 200_000_000


@dataclass(frozen=True)
class ImageTransform:
    """Preprocessing as data; all of it is part of the Space.

    `height`, `width`: what the model reads, in pixels. `short_side`: for `fit="crop"`, the length to which the shorter
    side is resized before the centre crop. `fit`: `crop` (resize, then centre crop as torchvision rounds it),
    `crop_floor` (as transformers rounds it: an odd pixel is always cut at the right and the bottom), `squash` (both
    sides, ignoring the aspect) or `pad` (to a square with `background`, then resize). `mean`, `std`: per channel, on a
    0 to 1 scale. `background`: RGB, 0 to 255, under transparent pixels and in the padding.
    """

    height: int
    width: int
    short_side: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    interpolation: str
    fit: str
    background: tuple[int, int, int] = (255, 255, 255)

    def __post_init__(self) -> None:
        if self.interpolation not in INTERPOLATIONS:
            raise MissingFact(
                f"unknown interpolation {self.interpolation!r}", hint=f"known: {', '.join(INTERPOLATIONS)}"
            )
        if self.fit not in FITS:
            raise MissingFact(f"unknown fit {self.fit!r}", hint=f"known: {', '.join(FITS)}")
        if min(self.height, self.width, self.short_side) < 1 or min(self.std) <= 0:
            raise MissingFact(f"impossible preprocessing: {self}")

    def as_json(self) -> dict[str, Any]:
        """Return the fields as plain JSON values."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> ImageTransform:
        """Rebuild from `as_json`."""
        fields: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in record.items()}
        return cls(**fields)

    def with_options(self, name: EncoderName) -> ImageTransform:
        """Apply the `fit`, `image_size` and `background` of an encoder name.

        `image_size` keeps the declared ratio of resize to crop. Raises `UsageError` for a value that cannot be used.
        """
        fit = name.choice("fit", "declared", ("declared", "crop", "squash", "pad"))
        side = name.integer("image_size", None, low=1, high=4096)
        changed = self if fit in ("declared", self.fit.removesuffix("_floor")) else replace(self, fit=fit)
        if side:
            ratio = self.short_side / min(self.height, self.width)
            changed = replace(changed, height=side, width=side, short_side=max(side, round(side * ratio)))
        if "background" in name.options:
            changed = replace(changed, background=colour(name.options["background"]))
        return changed

    def pixels(self, picture: Image.Image | Pixels) -> Pixels:
        """Return the (height, width, 3) uint8 pixels of an RGB picture.

        Raises:
            Undecodable: reason `bad_aspect`: the picture is more than 200 times as long as it is wide, or the reverse;
                or, for `fit="pad"`, the square around it would have more than 200 million pixels.
        """
        pixels = np.asarray(picture)
        self._require_shape(pixels.shape[1], pixels.shape[0])
        if self.fit == "pad":
            pixels = _padded(pixels, max(pixels.shape), max(pixels.shape), self.background)
        if self.fit in ("pad", "squash"):
            return resize(pixels, (self.width, self.height), (0, 0, self.width, self.height), self.interpolation)
        width, height = self._shorter((pixels.shape[1], pixels.shape[0]))
        left, right = self._kept(width, self.width)
        top, bottom = self._kept(height, self.height)
        cropped = resize(pixels, (width, height), (left, top, right, bottom), self.interpolation)
        # torchvision's centre crop pads what is too small with black before it crops
        return _padded(cropped, self.width, self.height, (0, 0, 0))

    def _require_shape(self, width: int, height: int) -> None:
        if max(width, height) > MAX_ASPECT * min(width, height):
            raise _bad_aspect(f"the sides are {width} and {height}: more than {MAX_ASPECT} to 1")
        if self.fit == "pad" and max(width, height) ** 2 > MAX_PADDED:
            raise _bad_aspect(f"a square around {width} x {height} pixels is too large")

    def _shorter(self, size: tuple[int, int]) -> tuple[int, int]:
        width, height = size
        if width <= height:
            return self.short_side, int(self.short_side * height / width)
        return int(self.short_side * width / height), self.short_side

    def _kept(self, resized: int, kept: int) -> tuple[int, int]:
        """Return where the centre crop begins and ends on one axis."""
        half = math.floor if self.fit == "crop_floor" else round
        start = half(max(0, resized - kept) / 2)
        return start, min(resized, start + kept)


def _padded(pixels: Pixels, width: int, height: int, colour: tuple[int, int, int]) -> Pixels:
    """Return the picture in the middle of a canvas, which is larger or of the same size."""
    if pixels.shape[:2] == (height, width):
        return pixels
    canvas = np.full((height, width, 3), colour, dtype=np.uint8)
    left, top = (width - pixels.shape[1]) // 2, (height - pixels.shape[0]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels
    return canvas


def _bad_aspect(what: str) -> Undecodable:
    return Undecodable(what, stage="decode", reason="bad_aspect", hint="cut it into pieces, or scale it down")


def colour(text: str) -> tuple[int, int, int]:
    """Read `white`, `black`, `grey` or `R,G,B` (0 to 255 each). Raises `UsageError` for anything else."""
    named = {"white": (255, 255, 255), "black": (0, 0, 0), "grey": (128, 128, 128), "gray": (128, 128, 128)}
    if text in named:
        return named[text]
    parts = text.split(",")
    if len(parts) == 3 and all(p.isdigit() and int(p) <= 255 for p in parts):
        return int(parts[0]), int(parts[1]), int(parts[2])
    raise UsageError(f"background must be white, black, grey or R,G,B, not {text!r}")
