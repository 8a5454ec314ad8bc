"""Antialiased resizing of 8-bit pictures, of which only the part that is kept is computed.

For `bilinear`, `bicubic` and `lanczos` this is Pillow's convolution (the filter is widened by the reduction; one axis
after the other, each rounded to 8 bits) by a kernel with vector instructions, 5 to 8 times as fast. Its weights have 16
bits where Pillow's have 22: fewer than 1 % of the values of a photograph differ, nearly all by 1 of 255 and none by
more than 2. The others are Pillow's own: `nearest` chooses pixels, and `box` is all ties at whole reductions, which the
two round differently.
"""

from __future__ import annotations

import math

import numpy as np
from cykooz_resizer import CropBox, FilterType, ImageData, PixelType, ResizeAlg, ResizeOptions, Resizer
from PIL import Image

from embedder.records import Pixels

Box = tuple[int, int, int, int]
"""Left, top, right and bottom, in pixels of the resized picture."""

INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# the kernel, and how far it reaches to each side at no reduction
KERNELS = {
    "bilinear": (ResizeAlg.convolution(FilterType.bilinear), 1),
    "bicubic": (ResizeAlg.convolution(FilterType.catmull_rom), 2),
    "lanczos": (ResizeAlg.convolution(FilterType.lanczos3), 3),
}


def resize(pixels: Pixels, size: tuple[int, int], box: Box, interpolation: str) -> Pixels:
    """Return the `box` of the picture resized to `size` (width, height), without computing the rest of it."""
    left, top, right, bottom = box
    height, width = pixels.shape[:2]
    if interpolation not in KERNELS:
        picture = Image.fromarray(pixels)
        whole = picture if picture.size == size else picture.resize(size, INTERPOLATIONS[interpolation])
        return np.array(whole.crop(box))
    algorithm, reach = KERNELS[interpolation]
    columns, rows = _Span(width, size[0], left, right, reach), _Span(height, size[1], top, bottom, reach)
    found = pixels[rows.first : rows.last, columns.first : columns.last]
    passes = [(1, columns), (0, rows)]
    # the order of Pillow 13; both orders round and clip in between, so that they differ
    if height - size[1] > 2 * max(0, width - size[0]):
        passes.reverse()
    for axis, span in passes:
        if pixels.shape[axis] != size[1 - axis]:
            found = _convolved(found, axis, span, algorithm)
    return np.array(found)


class _Span:
    """Of one axis: the pixels `first` to `last` that the `kept` ones are made of, and the interval within these."""

    def __init__(self, old: int, new: int, low: int, high: int, reach: int) -> None:
        scale = old / new
        self.kept = high - low
        around = reach * max(scale, 1.0) if old != new else 0.0
        self.first = max(0, math.floor((low + 0.5) * scale - around))
        self.last = min(old, math.ceil((high - 0.5) * scale + around))
        self.start = low * scale - self.first
        # the kernel refuses an interval that leaves the picture by the last bit of a float
        self.length = min(self.kept * scale, self.last - self.first - self.start)


def _convolved(pixels: Pixels, axis: int, span: _Span, algorithm: ResizeAlg) -> Pixels:
    """Resize the interval of `span` on one axis; what lies around it counts near its borders."""
    height, width = pixels.shape[:2]
    if axis:
        crop, size = CropBox(span.start, 0, span.length, height), (span.kept, height)
    else:
        crop, size = CropBox(0, span.start, width, span.length), (width, span.kept)
    target = ImageData(*size, PixelType.U8x3)
    source = ImageData(width, height, PixelType.U8x3, pixels.tobytes())
    Resizer().resize(source, target, ResizeOptions(resize_alg=algorithm, crop_box=crop))
    return np.frombuffer(target.get_buffer(), dtype=np.uint8).reshape(size[1], size[0], 3)
