"""Golden inputs: a fixed picture and fixed texts that every encoder embeds when it is loaded.

Their vectors are stored with the first vectors of a Space and compared at every later load, so that another machine,
device, batch size or library version that changes vectors is noticed and named before anything mixes.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping

import numpy as np
from PIL import Image

from embedder.encoder import Encoder
from embedder.errors import Damaged, SpaceMismatch
from embedder.records import FloatMatrix, Medium

TEXTS = ("Permafrost keeps what was frozen.", "a photograph of two dogs in the snow", "42")
LEAST_COSINE = {"float32": 0.9999, "bfloat16": 0.999, "float16": 0.999}


def pictures() -> list[Image.Image]:
    """Return two pictures made of integers only, the same on every machine: (240, 320, 3) and (300, 200, 3)."""
    y, x = np.mgrid[0:240, 0:320]
    waves = np.stack([(x * 255) // 319, (y * 255) // 239, ((x // 20 + y // 20) % 2) * 200], axis=-1)
    y, x = np.mgrid[0:300, 0:200]
    ring = (((x - 100) ** 2 + (y - 150) ** 2) // 400) % 2
    rings = np.stack([255 - ring * 220, 40 + ring * 120, (x + 2 * y) % 256], axis=-1)
    return [Image.fromarray(p.astype(np.uint8)) for p in (waves, rings)]


def vectors(encoder: Encoder) -> dict[Medium, FloatMatrix]:
    """Embed the golden inputs, for each medium that the encoder reads."""
    found: dict[Medium, FloatMatrix] = {}
    if encoder.image is not None:
        found["image"] = encoder.encode(pictures())
    if encoder.text is not None:
        found["text"] = encoder.encode(TEXTS)
    return found


def pack(golden: Mapping[Medium, FloatMatrix]) -> dict[str, str]:
    """Return the vectors as JSON strings: base64 of little-endian float32."""
    return {medium: base64.b64encode(array.astype("<f4").tobytes()).decode("ascii") for medium, array in golden.items()}


def check(encoder: Encoder, stored: Mapping[str, str]) -> None:
    """Embed the golden inputs and compare them with those stored when the Space was first used.

    A Space whose vectors were imported without golden ones has nothing to compare; its fingerprint answers for it.

    Raises:
        SpaceMismatch: a cosine is below 0.9999 (float32) or 0.999 (half precision).
        Damaged: the stored vectors cannot be read.
    """
    if not stored:
        return
    for medium, now in vectors(encoder).items():
        try:
            then = np.frombuffer(base64.b64decode(stored[medium], validate=True), dtype="<f4").reshape(now.shape)
        except (KeyError, ValueError) as error:
            raise Damaged(f"the golden {medium} vectors of {encoder.space} cannot be read: {error}") from error
        norms = np.linalg.norm(now, axis=1) * np.linalg.norm(then, axis=1)
        worst = float(np.min(np.sum(now * then, axis=1) / norms))
        if not worst >= LEAST_COSINE[encoder.space.dtype]:
            raise SpaceMismatch(
                f"{encoder.name} no longer makes the vectors that it made when this collection was embedded: "
                f"golden {medium} cosine {worst:.6f}",
                where=f"Space {encoder.space}, device {encoder.device}, runtime {encoder.runtime}",
                hint="go back to the library versions in the Space's provenance (permafrost info), "
                "or embed the collection again",
            )
