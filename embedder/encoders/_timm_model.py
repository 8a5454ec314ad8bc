"""timm models as encoders: built, filled with checked weights, and cut at a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import Tensor, nn

from embedder.encoder import Encoder, ImageTower
from embedder.encoders import _files
from embedder.encoders._common import Settings, describe, index, versions
from embedder.encoders._declared import timm_transform
from embedder.encoders._torch import Features, device_of, frozen, grey, image_forward, own_rng, width_of
from embedder.errors import EncoderError, UsageError
from embedder.naming import EncoderName
from embedder.transform import ImageTransform

if TYPE_CHECKING:
    from embedder.encoders.timm import Source

POOLINGS = ("head", "mean", "max", "gem", "cls")


def load(name: EncoderName, chosen: Settings, source: Source, device: str) -> Encoder:
    """Build the model that `source` describes and wrap it."""
    where = device_of(device)
    side = name.integer("image_size", None, low=1, high=4096)
    arguments = {"img_size": side} if side and source.fixed_input_size else {}
    model = build(source, chosen, arguments)
    provenance = {"revision": source.revision, "licence": source.licence, "files": [], "source": source.spec}
    weights: dict[str, Any] = {"random": chosen.seed}
    if source.file is not None:
        weights = {"sha256": _files.sha256_file(source.file)}
        provenance["files"] = _files.listed([source.file])
    return wrap(name, chosen, model, weights, provenance, where)


def build(source: Source, chosen: Settings, arguments: dict[str, Any]) -> nn.Module:
    """Return the model with its weights, every one of them loaded.

    Raises:
        EncoderError: the file is damaged or does not fit the architecture.
    """
    attempts: list[int | None] = [None]
    if source.file is not None:
        attempts = _classes(source)
    for count in attempts:
        try:
            with own_rng(chosen.seed):
                return _create(source, count, arguments)
        except Exception as error:
            if count == attempts[-1]:
                raise _refusal(source, arguments, error) from error
    raise AssertionError("unreachable")


def _create(source: Source, count: int | None, arguments: dict[str, Any]) -> nn.Module:
    overlay: dict[str, Any] = {}
    if source.file is not None:
        overlay = {"file": str(source.file), "source": None}
    if count is not None:
        overlay |= {"num_classes": count, "label_offset": None}
    return cast(
        nn.Module,
        timm.create_model(source.spec, pretrained=source.file is not None, pretrained_cfg_overlay=overlay, **arguments),
    )


def _classes(source: Source) -> list[int | None]:
    """Return the sizes of classifier to try, so that all else can be loaded strictly; None is the declared one."""
    if source.file is None or source.classifier is None:
        return [None]
    tensors = _files.read_tensors(source.file)
    tensors = next((tensors[k] for k in ("state_dict_ema", "model_ema", "state_dict", "model") if k in tensors), tensors)
    found = tensors.get(f"{source.classifier}.weight")
    return [0, None] if found is None else [int(found.shape[0])]


def _refusal(source: Source, arguments: dict[str, Any], error: Exception) -> EncoderError:
    if source.file is not None:
        return _files.damaged(source.file, error)
    reason = " ".join(str(error).split())[:300]
    extra = f" with {arguments}" if arguments else ""
    return EncoderError(f"timm cannot build {source.spec}{extra}: {reason}", hint="choose another model or image_size")


def wrap(
    name: EncoderName, chosen: Settings, model: nn.Module, weights: dict[str, Any], provenance: dict[str, Any], where: torch.device
) -> Encoder:
    """Freeze a timm model, cut it at the layer asked for, and describe it."""
    transform = timm_transform(resolve_model_data_config(model), name)
    frozen(model, where, chosen.dtype)
    features, layer, pooling = cut(name, model, transform, where, chosen.dtype)
    forward = image_forward(features, transform, where, chosen.dtype)
    facts: dict[str, Any] = dict(vars(model))
    space = describe(
        name, chosen, dim=width_of(forward, grey(transform), str(name)),
        architecture=f"timm/{facts['pretrained_cfg']['architecture']}", weights=weights, layer=layer, pooling=pooling,
        image=transform, more={"arguments": _plain(facts.get("_model_args", {}))},
        provenance={**provenance, "tag": facts["pretrained_cfg"].get("tag"), "versions": versions("timm", "torch")},
    )  # fmt: skip
    return Encoder(name, space, str(where), ImageTower(transform, forward))


def _plain(arguments: dict[str, Any]) -> dict[str, Any]:
    """Return model arguments from a config.json as JSON values; those that only shape the classifier are left out."""
    kept = {k: v for k, v in arguments.items() if k not in ("num_classes", "pretrained_model_args", "cache_dir")}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in kept.items()}


def cut(
    name: EncoderName, model: nn.Module, transform: ImageTransform, where: torch.device, dtype: str
) -> tuple[Features, str | int, str]:
    """Return the features asked for by `layer` and `pooling`, with both as they count in the Space.

    By default: what timm's own head pools, before the classifier. A `layer` is a position among the blocks or stages
    that `forward_intermediates` gives, after the final norm where the model has one; `cls` is its first prefix token.

    Raises:
        UsageError: a layer that does not exist, or a pooling that it does not have.
    """
    pooling = name.choice("pooling", "mean" if "layer" in name.options else "head", POOLINGS)
    if pooling == "head":
        if "layer" in name.options:
            raise UsageError("pooling=head reads the last layer only", where=str(name), hint="leave out layer=")
        return lambda x: model.forward_head(model.forward_features(x), pre_logits=True), "head", "head"  # type: ignore[operator]
    if not hasattr(model, "forward_intermediates"):
        raise UsageError("this timm model gives no layers but its head", where=str(name), hint="leave out layer and pooling")
    maps: list[list[int]] = []
    image_forward(_listing(model, maps), transform, where, dtype)([grey(transform)])
    layer = index(name, len(maps))
    layer = len(maps) - 1 if layer is None else layer
    if pooling == "cls":
        if not getattr(model, "num_prefix_tokens", 0):
            raise UsageError("pooling=cls needs a model with a class token", where=str(name), hint="use pooling=mean")
        return _class_token(model, layer), layer, pooling
    return _pooled(model, layer, pooling), layer, pooling


def _listing(model: nn.Module, maps: list[list[int]]) -> Features:
    def features(x: Tensor) -> Tensor:
        maps.extend(list(m.shape) for m in model.forward_intermediates(x, intermediates_only=True))  # type: ignore[operator]
        return x

    return features


def _class_token(model: nn.Module, layer: int) -> Features:
    def features(x: Tensor) -> Tensor:
        found = model.forward_intermediates(  # type: ignore[operator]
            x, indices=[layer], norm=True, intermediates_only=True, return_prefix_tokens=True
        )
        return cast(Tensor, found[0][1][:, 0])

    return features


def _pooled(model: nn.Module, layer: int, pooling: str) -> Features:
    def features(x: Tensor) -> Tensor:
        maps = model.forward_intermediates(x, indices=[layer], norm=True, intermediates_only=True)[0]  # type: ignore[operator]
        if pooling == "gem":
            return cast(Tensor, maps.clamp(min=1e-6).pow(3).mean((2, 3)).pow(1 / 3))
        return cast(Tensor, maps.amax((2, 3)) if pooling == "max" else maps.mean((2, 3)))

    return features
