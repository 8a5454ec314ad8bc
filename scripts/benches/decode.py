"""From the bytes of JPEG to the pixels that an encoder reads, against what torchvision's transform does with Pillow.

The photographs are those of the extraction bench; the large ones are scaled up, with noise, so that they have the
entropy of a camera's. All but the worker process run in this one, on one thread: read their CPU seconds.
"""

from __future__ import annotations

import io
from argparse import Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import simplejpeg
from benches.frame import Contender
from benches.inputs import photographs
from PIL import Image
from torchvision import transforms

from embedder.decode.image import decode
from embedder.pool import DecodePool
from embedder.records import Item
from embedder.transform import ImageTransform

UNIT = "pictures"
HALF = (0.5, 0.5, 0.5)
OURS = ImageTransform(224, 224, 256, HALF, HALF, "bicubic", "crop")


def contenders(work: Path, options: Namespace) -> list[Contender]:
    """Make the pictures and return what decodes them."""
    folder = photographs(work / "photographs", 16 if options.quick else 240)
    small = [path.read_bytes() for path in sorted(folder.iterdir())]
    large = [enlarged(data, seed) for seed, data in enumerate(small[: 2 if options.quick else 24])]
    return kind("500 x 375", small) + kind("2000 x 1500", large)


def kind(name: str, files: list[bytes]) -> list[Contender]:
    """Return the contenders for files of one size."""
    peer = transforms.Compose(
        [transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224)]
    )
    items = [Item(str(n), "image", "", data=data) for n, data in enumerate(files)]

    def each(one: Callable[[bytes], Any]) -> Callable[[], int]:
        return lambda: sum(one(data) is not None for data in files)

    def worker() -> int:
        with DecodePool(1) as pool:
            return sum(1 for _ in pool.map(items, OURS))

    scope = f"{len(files)} JPEG of {name}, bicubic to 256, centre crop of 224"
    return [
        Contender("limit", "libjpeg-turbo alone (simplejpeg)", each(simplejpeg.decode_jpeg), scope),
        Contender("peer", "Pillow, torchvision's transform", each(lambda data: np.asarray(peer(opened(data)))), scope),
        Contender("us", "decode and resize, in this process", each(lambda d: OURS.pixels(decode(d, (0, 0, 0)))), scope),
        Contender("us", "one worker process, with its start", worker, scope),
    ]


def opened(data: bytes) -> Image.Image:
    """Return the picture as Pillow decodes it."""
    return Image.open(io.BytesIO(data)).convert("RGB")


def enlarged(data: bytes, seed: int) -> bytes:
    """Return the picture at 2000 x 1500, with noise."""
    pixels = np.asarray(opened(data).resize((2000, 1500), Image.Resampling.BICUBIC)).astype(np.float32)
    noisy = pixels + np.random.default_rng(seed).normal(0, 4, pixels.shape[:2])[..., None]
    out = io.BytesIO()
    Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(out, "JPEG", quality=90)
    return out.getvalue()
