"""Where a timm model is cut, and how what comes out there becomes one vector."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import Tensor

from embedder.encoders._common import index
from embedder.encoders._torch import Cut, Features
from embedder.errors import UsageError
from embedder.naming import EncoderName

POOLINGS = ("head", "mean", "max", "gem", "cls")
SMALLEST = 1e-6
FINAL = "final"


@dataclass(frozen=True)
class Trunk:
    """One pass through a timm model: the layers asked for, by position, and with `final` what goes into the head.

    With `prefix` a layer is a pair: its maps, and its prefix tokens.
    """

    model: Any
    layers: tuple[int, ...] = ()
    final: bool = False
    prefix: bool = False

    def __call__(self, x: Tensor) -> dict[int | str, Any]:
        """Run the model once."""
        if not self.layers:
            return {FINAL: self.model.forward_features(x)}
        wanted: dict[str, Any] = {"indices": list(self.layers), "norm": True, "output_fmt": "NCHW"}
        if self.prefix:
            wanted["return_prefix_tokens"] = True
        found = self.model.forward_intermediates(x, intermediates_only=not self.final, **wanted)
        final, maps = found if self.final else (None, found)
        return {FINAL: final, **dict(zip(self.layers, maps, strict=True))}


def join(trunks: Sequence[Trunk]) -> Trunk:
    """Return one pass that gives what each of these gives; all are of one model."""
    layers = sorted({layer for trunk in trunks for layer in trunk.layers})
    final, prefix = any(trunk.final for trunk in trunks), any(trunk.prefix for trunk in trunks)
    return Trunk(trunks[0].model, tuple(layers), final, prefix)


def cut(name: EncoderName, model: Any, run: Callable[[Features], object]) -> tuple[Features, str | int, str]:
    """Return the features asked for by `layer` and `pooling`, with both as they count in the Space.

    By default: what timm's own head pools, before the classifier. `pooling` alone pools the features that go into that
    head. A `layer` is a position among the blocks or stages of `forward_intermediates`, after the final norm where
    the model has one, pooled by `mean` unless said otherwise. `gem` is the generalised mean of power 3 (Radenović et
    al. 2018) of the positive part; `cls` is the first prefix token.

    Args:
        run: sends a picture through the features given, to count the layers.

    Raises:
        UsageError: a layer that does not exist, or a pooling that it does not have.
    """
    deep = "layer" in name.options
    pooling = name.choice("pooling", "mean" if deep else "head", POOLINGS)
    if pooling == "cls" and not getattr(model, "num_prefix_tokens", 0):
        raise UsageError("pooling=cls needs a model with a class token", where=str(name), hint="use pooling=mean")
    if deep and (pooling == "head" or not hasattr(model, "forward_intermediates")):
        what = "pooling=head reads the last layer" if pooling == "head" else "this model gives its last layer only"
        raise UsageError(what, where=str(name), hint="leave out layer=")
    final = Trunk(model, final=True)
    if deep:
        layer = index(name, _count(model, run))
        return _intermediate(model, cast(int, layer), pooling), cast(int, layer), pooling
    if pooling == "head":
        return Cut(final, lambda found: model.forward_head(found[FINAL], pre_logits=True)), "head", pooling
    return Cut(final, lambda found: _pool(*_split(model, found[FINAL]), pooling)), "features", pooling


def _count(model: Any, run: Callable[[Features], object]) -> int:
    found: list[Tensor] = []

    def features(x: Tensor) -> Tensor:
        found.extend(model.forward_intermediates(x, intermediates_only=True))
        return x

    run(features)
    return len(found)


def _intermediate(model: Any, layer: int, pooling: str) -> Features:
    def read(found: dict[int | str, Any]) -> Tensor:
        maps, prefix = found[layer] if isinstance(found[layer], tuple) else (found[layer], None)
        return _pool(maps.flatten(2), prefix, pooling)

    return Cut(Trunk(model, (layer,), prefix=pooling == "cls"), read)


def _split(model: Any, features: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return (n, channels, positions), and the prefix tokens (n, tokens, channels) where there are any."""
    if features.ndim == 4:
        last = getattr(model, "output_fmt", "NCHW") == "NHWC"
        return (features.permute(0, 3, 1, 2) if last else features).flatten(2), None
    prefix = int(getattr(model, "num_prefix_tokens", 0))
    return features[:, prefix:].transpose(1, 2), features[:, :prefix]


def _pool(maps: Tensor, prefix: Tensor | None, pooling: str) -> Tensor:
    if pooling == "cls":
        return cast(Tensor, prefix)[:, 0]
    if pooling == "gem":
        return maps.clamp(min=SMALLEST).pow(3).mean(2).pow(1 / 3)
    return maps.amax(2) if pooling == "max" else maps.mean(2)
