"""timm models as encoders: built, filled with checked weights, and described."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

import timm
import torch
from timm.data import resolve_model_data_config
from torch import nn

from embedder.encoder import Encoder, ImageTower
from embedder.encoders import _files
from embedder.encoders._common import Settings, describe, settings, versions
from embedder.encoders._declared import timm_transform
from embedder.encoders._timm_layers import cut, join
from embedder.encoders._torch import device_of, frozen, grey, image_forward, joined, own_rng, width_of
from embedder.errors import EncoderError
from embedder.naming import EncoderName

if TYPE_CHECKING:
    from embedder.encoders.timm import Source

WRAPPERS = ("state_dict_ema", "model_ema", "state_dict", "model")
STATED = ("num_classes", "in_chans", "global_pool", "img_size", "pretrained_model_args", "cache_dir")


def load(names: Sequence[EncoderName], chosen: Settings, source: Source, device: str) -> list[Encoder]:
    """Build the model that `source` describes once, and wrap it for each name; their inputs and weights are equal."""
    name = names[0]
    where = device_of(device)
    side = name.integer("image_size", None, low=1, high=4096)
    arguments = {"img_size": side} if side and source.fixed_input_size else {}
    model = build(source, chosen, arguments)
    provenance: dict[str, Any] = {
        "revision": source.revision, "licence": source.licence, "files": [], "source": source.spec,
    }  # fmt: skip
    weights: dict[str, Any] = {"random": chosen.seed}
    if source.file is not None:
        weights = {"sha256": _files.sha256_file(source.file)}
        provenance["files"] = _files.listed([source.file])
    return wrap_all(names, chosen, model, weights, provenance, where)


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
    tensors = next((tensors[key] for key in WRAPPERS if key in tensors), tensors)
    found = tensors.get(f"{source.classifier}.weight")
    return [0, None] if found is None else [int(found.shape[0])]


def _refusal(source: Source, arguments: dict[str, Any], error: Exception) -> EncoderError:
    if source.file is not None:
        return _files.damaged(source.file, error)
    reason = " ".join(str(error).split())[:300]
    extra = f" with {arguments}" if arguments else ""
    return EncoderError(f"timm cannot build {source.spec}{extra}: {reason}", hint="choose another model or image_size")


def wrap_all(
    names: Sequence[EncoderName],
    chosen: Settings,
    model: nn.Module,
    weights: dict[str, Any],
    provenance: dict[str, Any],
    where: torch.device,
) -> list[Encoder]:
    """Wrap a model for each name; where they are several, one pass is enough for all."""
    found = [
        wrap(name, replace(chosen, normalize=settings(name).normalize), model, weights, provenance, where)
        for name in names
    ]
    return joined(found, join) if len(found) > 1 else found


def wrap(
    name: EncoderName,
    chosen: Settings,
    model: nn.Module,
    weights: dict[str, Any],
    provenance: dict[str, Any],
    where: torch.device,
) -> Encoder:
    """Freeze a timm model, cut it at the layer asked for, and describe it."""
    transform = timm_transform(resolve_model_data_config(model), name)
    frozen(model, where, chosen.dtype)
    features, layer, pooling = cut(
        name, model, lambda tried: image_forward(tried, transform, where, chosen.dtype)([grey(transform)])
    )
    forward = image_forward(features, transform, where, chosen.dtype)
    facts: dict[str, Any] = dict(vars(model))
    space = describe(
        name, chosen, dim=width_of(forward, grey(transform), str(name)),
        architecture=f"timm/{facts['pretrained_cfg']['architecture']}", weights=weights, layer=layer, pooling=pooling,
        image=transform, more=_shape(model),
        provenance={**provenance, "tag": facts["pretrained_cfg"].get("tag"), "versions": versions("timm", "torch")},
    )  # fmt: skip
    return Encoder(name, space, str(where), ImageTower(transform, forward), module=model)


def _shape(model: nn.Module) -> dict[str, Any]:
    """Return what else decides the vectors: how the head pools, and arguments from a config.json.

    Arguments that the Space states elsewhere (the size of the input), or that shape only the classifier, are left out.
    """
    facts: dict[str, Any] = dict(vars(model))
    arguments = {k: v for k, v in facts.get("_model_args", {}).items() if k not in STATED}
    pools = [getattr(part, "global_pool", None) for part in (model, getattr(model, "head", None))]
    kinds = [
        pool if isinstance(pool, str) else str(getattr(pool, "pool_type", "")) for pool in pools if pool is not None
    ]
    return {"arguments": {k: list(v) if isinstance(v, tuple) else v for k, v in arguments.items()}, "head_pool": kinds}
