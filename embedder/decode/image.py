"""Pictures: bytes to an upright RGB picture over the declared background, by Pillow; plain JPEG by `jpeg`.

The rules, each because something else was seen to give wrong pixels silently:

- The first frame of an animation counts; no other is ever looked for.
- Orientation (EXIF, TIFF, XMP) is applied; EXIF that cannot be read leaves the picture as stored.
- Transparent pixels, of an alpha channel, a palette or a colour key, lie over `background`.
- 16-bit grey is divided by 257, rounded to the nearest (Pillow's own conversion clips it to white).
- 32-bit and float pictures are refused: nothing says which value is white.
- Colour profiles are ignored, as in the pipelines that the encoders were trained with.
"""

from __future__ import annotations

import io
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    JpegImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from embedder.decode import jpeg, png, sniff
from embedder.errors import Undecodable, UsageError
from embedder.records import Pixels

# Pillow finds WebP, TIFF and AVIF by file extension only, and bytes have none: importing a plugin registers it
PLUGINS = {
    "JPEG": JpegImagePlugin, "PNG": PngImagePlugin, "WEBP": WebPImagePlugin, "GIF": GifImagePlugin,
    "TIFF": TiffImagePlugin, "BMP": BmpImagePlugin, "AVIF": AvifImagePlugin,
}  # fmt: skip
FORMATS = tuple(PLUGINS)
MAX_PIXELS = 50_000_000
MODES = frozenset({"1", "L", "P", "RGB", "LA", "La", "PA", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr", "HSV"})
KEYED = frozenset({"1", "L", "P", "RGB"})
ORIENTATION = 0x0112
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
BROKEN_EXIF = (
    ArithmeticError, AttributeError, EOFError, LookupError, OSError, SyntaxError, TypeError, ValueError, Warning,
    struct.error,
)  # fmt: skip

_filters = threading.Lock()


def decode(data: bytes, background: tuple[int, int, int]) -> Pixels:
    """Decode the bytes of a picture file into the pixels of an upright RGB picture.

    Raises:
        Undecodable: stage `decode`; reason `empty`, `not_an_image`, `unsupported_format`, `truncated`, `damaged`,
            `too_many_pixels` (more than 50 million, told from the header) or `unsupported_mode`.
        UsageError: this process lets Pillow fill in the missing part of cut files.
        MemoryError: not enough memory for this picture.
    """
    if ImageFile.LOAD_TRUNCATED_IMAGES:
        raise UsageError(
            "Pillow is set to accept cut files, which would become grey areas in vectors",
            hint="set PIL.ImageFile.LOAD_TRUNCATED_IMAGES back to False",
        )
    if not data:
        raise _bad("the file is empty", "empty")
    with _quiet(), _named():
        try:
            picture = Image.open(io.BytesIO(data), formats=FORMATS)
        except UnidentifiedImageError as error:
            raise _unidentified(data) from error
        _require_size(picture)
        if (plain := jpeg.pixels(data, picture)) is not None:
            return jpeg.turned(plain, _orientation(picture))
        flat = to_rgb(picture, background)
        if picture.format == "PNG":
            png.require_whole(data, picture)
        return np.asarray(flat)


def to_rgb(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    """Return an upright RGB picture, with transparent pixels over `background` (RGB, 0 to 255).

    The result may be `picture` itself where nothing had to be done.

    Raises:
        Undecodable: as `decode`, for what is left of it when a picture is already open.
        MemoryError: not enough memory for this picture.
    """
    _require_size(picture)
    with _named():
        picture.load()
        # asked after load: TIFF turns itself and PNG may carry EXIF behind its pixels
        turn = TURNS.get(_orientation(picture))
        flat = _flat(_eight_bit(picture), background)
        return flat if turn is None else flat.transpose(turn)


def _require_size(picture: Image.Image) -> None:
    width, height = picture.size
    if not width or not height:
        raise _bad(f"the picture is {width} x {height} pixels", "empty")
    if width * height > MAX_PIXELS:
        what = f"the picture has {width} x {height} pixels; the limit is {MAX_PIXELS:,}"
        raise _bad(what, "too_many_pixels", "scale it down")


def _flat(picture: Image.Image, background: tuple[int, int, int]) -> Image.Image:
    mode = picture.mode
    if mode not in MODES:
        what = f"pixels of mode {mode} have no declared black and white"
        raise _bad(what, "unsupported_mode", "convert it to 8 bits a channel")
    if mode in KEYED and not picture.has_transparency_data:
        return picture if mode == "RGB" else picture.convert("RGB")
    if not picture.has_transparency_data:
        return picture.convert("RGB")
    clear = picture.convert("LA") if mode == "La" else picture
    canvas = Image.new("RGBA", picture.size, (*background, 255))
    return Image.alpha_composite(canvas, clear.convert("RGBA")).convert("RGB")


def _eight_bit(picture: Image.Image) -> Image.Image:
    """Return 16-bit grey as 8-bit grey, with its colour key as alpha; anything else as it is."""
    if not picture.mode.startswith("I;16"):
        return picture
    values = np.asarray(picture).astype(np.uint32)
    white, inverted = _tiff_scale(picture)
    grey = np.minimum((values * 255 + white // 2) // white, 255).astype(np.uint8)
    small = Image.fromarray(255 - grey if inverted else grey)
    key = picture.info.get("transparency")
    if isinstance(key, int):
        small.putalpha(Image.fromarray(np.where(values == key, 0, 255).astype(np.uint8)))
    return small


def _tiff_scale(picture: Image.Image) -> tuple[int, bool]:
    """Return the value of white, and whether 0 is white: Pillow leaves both to the reader for more than 8 bits."""
    tags = getattr(picture, "tag_v2", {})
    bits = tags.get(TiffImagePlugin.BITSPERSAMPLE, (16,))[0]
    return (1 << bits) - 1, tags.get(TiffImagePlugin.PHOTOMETRIC_INTERPRETATION) == 0


def _orientation(picture: Image.Image) -> int:
    """Return the EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    try:
        return int(picture.getexif().get(ORIENTATION, 1))
    except BROKEN_EXIF:
        return 1


def _unidentified(data: bytes) -> Undecodable:
    seen = sniff.look(data)
    if seen is None:
        return _bad("these bytes are not a picture", "not_an_image")
    if seen.readable:
        return _bad(f"it begins like {seen.name}, but cannot be read: cut short or damaged", "damaged")
    reason = "not_an_image" if seen.name in ("text", "HTML", "XML", "Git LFS pointer") else "unsupported_format"
    return _bad(f"it is {seen.name}, not one of {', '.join(FORMATS)}", reason, seen.hint)


def _bad(what: str, reason: str, hint: str = "") -> Undecodable:
    return Undecodable(what, stage="decode", reason=reason, hint=hint)


@contextmanager
def _named() -> Iterator[None]:
    """Give what Pillow raises on hostile bytes, which is almost anything, one of our reasons."""
    try:
        yield
    except (MemoryError, Undecodable):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise _bad(str(error), "too_many_pixels", "scale it down") from error
    except Exception as error:
        cut = isinstance(error, EOFError) or any(word in str(error).lower() for word in ("truncated", "end of file"))
        raise _bad(f"{type(error).__name__}: {error}", "truncated" if cut else "damaged") from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence Pillow's warnings, but make its warning of a decompression bomb an error.

    Warning filters belong to the process and not to a thread, hence the lock: threads decode one after the other here.
    """
    with _filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
