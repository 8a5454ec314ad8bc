"""Pictures whose label is an exclusive or: a tint and a bright half, each too faint for frozen random features."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

FAINT = (20, 10)


def tinted(folder: Path, n: int, *, strength: tuple[int, int] = FAINT, either: bool = True, seed: int = 0) -> Path:
    """Write n pictures of 16 x 16 into the folders `odd` and `even`.

    Args:
        strength: of the tint (red or blue) and of the half (upper or lower), on noise from 60 to 159.
        either: the label is whether exactly one of the two holds; else it is the tint alone.
    """
    rng = np.random.default_rng(seed)
    for k in range(n):
        red, lower = k % 2, (k // 2) % 2
        pixels = rng.integers(60, 160, (16, 16, 3))
        pixels[..., 0 if red else 2] += strength[0]
        pixels[8 * lower : 8 * lower + 8] += strength[1]
        home = folder / ("odd" if (red ^ lower if either else red) else "even")
        home.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(home / f"{k:04d}.png")
    return folder
