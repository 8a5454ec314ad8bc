"""JPEG by libjpeg-turbo without Pillow's detour through its own storage: the same pixels in less time.

Pillow has read the header, and so has said what the file is and whether it is too large. Whatever the decoder warns of
(a cut file, a damaged segment, bytes too many) is left to Pillow, which then refuses or accepts it as it always does.
"""

from __future__ import annotations

import numpy as np
import simplejpeg
from PIL import Image

from embedder.records import Pixels

# MPO is a JPEG with more pictures behind it, as phones write; the first one counts
FORMATS = ("JPEG", "MPO")


def pixels(data: bytes, picture: Image.Image) -> Pixels | None:
    """Return the RGB pixels of `data` as they are stored; `picture` is what Pillow opened it as, not loaded.

    None where it is no JPEG of grey or three channels, or where anything about it is odd.

    Raises:
        MemoryError: not enough memory for this picture.
    """
    if picture.format not in FORMATS or picture.mode not in ("RGB", "L"):
        return None
    try:
        found: Pixels = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError:
        return None
    return found if found.shape[:2] == (picture.height, picture.width) else None


def turned(found: Pixels, orientation: int) -> Pixels:
    """Return pixels upright that are stored under an EXIF orientation, 1 to 8."""
    if orientation not in range(2, 9):
        return found
    whole = found.view("V3")[..., 0]  # a pixel is moved as one value and not as three
    if orientation >= 5:
        whole = whole.T
    # stored rows run from the bottom in 3, 4, 7 and 8 of the upright picture; columns from the right in 2, 3, 6 and 7
    if orientation in (3, 4, 7, 8):
        whole = whole[::-1]
    if orientation in (2, 3, 6, 7):
        whole = whole[:, ::-1]
    return np.ascontiguousarray(whole).view(np.uint8).reshape(*whole.shape, 3)
