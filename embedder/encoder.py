"""An encoder: one Space, and a tower for each medium that leads into it.

A kind (a file in `embedder/encoders/`) declares `OPTIONS`, `catalogue()` and `load(name, device)`, and returns an
`Encoder`. Everything that is the same for all kinds (batching, precision, normalisation, checks) is done here, so that
one item and a million take the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedder import kinds, naming
from embedder.decode.image import to_rgb
from embedder.decode.text import clean
from embedder.errors import EncoderError, Undecodable, UsageError
from embedder.naming import EncoderName
from embedder.records import FloatMatrix, Medium, Role
from embedder.space import Space
from embedder.transform import ImageTransform

Forward = Callable[[Sequence[Any]], NDArray[np.floating[Any]]]
"""Prepared inputs to raw features: (n, dim), any float dtype, not yet normalised."""


@dataclass(frozen=True)
class ImageTower:
    """`transform` says which pixels to make; `forward` takes a list of (height, width, 3) uint8 arrays."""

    transform: ImageTransform
    forward: Forward


@dataclass(frozen=True)
class TextTower:
    """`tokenize(text, role)` gives one prepared input, `length` its cost in tokens; `forward` takes a list of them.

    Texts are cut to `max_chars` characters before they are tokenised (a tokenizer reads all of a text that it cuts).
    """

    tokenize: Callable[[str, Role], Any]
    length: Callable[[Any], int]
    forward: Forward
    max_chars: int


class EncoderKind(Protocol):
    """What a file in `embedder/encoders/` offers."""

    OPTIONS: frozenset[str]

    def catalogue(self) -> list[str]:
        """Return encoder names (without options) that can be asked for here, offline ones first."""

    def load(self, name: EncoderName, device: str) -> Encoder:
        """Load weights, in eval mode, and describe them. Raises `EncoderError`."""


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder. `forward` and `encode` are deterministic for one device and batch composition."""

    name: EncoderName
    space: Space
    device: str
    image: ImageTower | None = None
    text: TextTower | None = None

    def tower(self, medium: Medium) -> ImageTower | TextTower:
        """Return the tower of a medium.

        Raises:
            UsageError: this encoder does not read it.
        """
        tower = self.image if medium == "image" else self.text
        if tower is None:
            raise UsageError(
                f"{self.name} does not read {medium}s, only {' and '.join(m + 's' for m in self.space.media)}",
                hint=f"choose an encoder with {'an' if medium == 'image' else 'a'} {medium} tower: permafrost encoders",
            )
        return tower

    def forward(self, medium: Medium, prepared: Sequence[Any]) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        """Encode one batch of prepared inputs.

        Returns:
            vectors (n, dim) float32, normalised where the Space says so; and a mask (n,) of the usable ones:
            finite, and not of zero norm.
        """
        raw = np.ascontiguousarray(self.tower(medium).forward(prepared), dtype=np.float32)
        if raw.shape != (len(prepared), self.space.dim):
            raise EncoderError(f"{self.name} gave {raw.shape}, not {(len(prepared), self.space.dim)}")
        norms = np.linalg.norm(raw, axis=1)
        good = np.isfinite(norms) & (norms > 0)
        if self.space.identity["normalize"]:
            raw = np.divide(raw, np.where(good, norms, 1.0)[:, None], dtype=np.float32)
        return raw, good

    def prepare(self, value: str | Image.Image | NDArray[np.uint8], role: Role = "document") -> tuple[Medium, Any]:
        """Turn a text, a PIL image or ready pixels into what `forward` reads, and say which medium it is."""
        if isinstance(value, str):
            tower = cast(TextTower, self.tower("text"))
            text, _ = clean(value, tower.max_chars)
            return "text", tower.tokenize(text, role)
        transform = cast(ImageTower, self.tower("image")).transform
        picture = Image.fromarray(value) if isinstance(value, np.ndarray) else value
        if not isinstance(picture, Image.Image):
            raise UsageError(f"cannot encode a {type(value).__name__}", hint="give a list of texts or of PIL images")
        return "image", transform.pixels(to_rgb(picture, transform.background))

    def encode(
        self, values: Iterable[str | Image.Image | NDArray[np.uint8]], *, role: Role = "document", batch_size: int = 32
    ) -> FloatMatrix:
        """Encode texts or PIL images (or both, for a joint encoder).

        Returns:
            (n, dim) float32, in the order given, normalised where the Space says so.

        Raises:
            UsageError: a medium that this encoder does not read.
            Undecodable: a value whose vector is not finite or has zero norm; its position is named.
        """
        if isinstance(values, (str, Image.Image)):
            raise UsageError("encode takes a list, not one value", hint="write encode([value])")
        prepared = [self.prepare(value, role) for value in values]
        out = np.empty((len(prepared), self.space.dim), dtype=np.float32)
        for medium in self.space.media:
            rows = np.array([i for i, (m, _) in enumerate(prepared) if m == medium], dtype=np.int64)
            for start in range(0, len(rows), batch_size):
                part = rows[start : start + batch_size]
                vectors, good = self.forward(medium, [prepared[i][1] for i in part])
                if not good.all():
                    bad = int(part[np.flatnonzero(~good)[0]])
                    raise Undecodable(
                        "the vector is not finite or has zero norm", stage="encode", reason="non_finite",
                        where=f"value {bad}", hint="leave this value out: it carries nothing that the encoder can see",
                    )  # fmt: skip
                out[part] = vectors
        return out


def load_encoder(name: str | EncoderName, *, device: str = "auto") -> Encoder:
    """Load an encoder by name, in eval mode.

    Args:
        name: `KIND:NAME[@REVISION][?key=value&…]`.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.

    Raises:
        UnknownName: no such kind, name or option; the nearest ones are in the hint.
        EncoderError: the weights are missing, damaged or incomplete.
        MissingFact: the weights do not say how their inputs are made.
    """
    parsed = naming.parse(name) if isinstance(name, str) else name
    kind = cast(EncoderKind, kinds.load("embedder.encoders", parsed.kind, "encoder kind"))
    parsed.allow(kind.OPTIONS)
    return kind.load(parsed, device)


def catalogue(pattern: str = "") -> list[str]:
    """Return the names of encoders that contain `pattern`, over all kinds."""
    found: list[str] = []
    for kind in kinds.names("embedder.encoders"):
        module = cast(EncoderKind, kinds.load("embedder.encoders", kind))
        found += [name for name in module.catalogue() if pattern.lower() in name.lower()]
    return found
