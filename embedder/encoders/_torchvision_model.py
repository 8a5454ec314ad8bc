"""torchvision models as encoders: built as their weights need them, filled, cut and described."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import torchvision
from torch import nn

from embedder.encoder import Encoder, ImageTower
from embedder.encoders import _files
from embedder.encoders._common import Settings, describe, settings, versions
from embedder.encoders._torch import device_of, frozen, grey, image_forward, joined, own_rng, width_of
from embedder.encoders._torchvision_layers import cut, join
from embedder.errors import EncoderError, MissingFact
from embedder.naming import EncoderName
from embedder.transform import ImageTransform

WITH_AUXILIARY = {"inception_v3": ("AuxLogits",), "googlenet": ("aux1", "aux2")}


def load(names: Sequence[EncoderName], chosen: Settings, tag: Any, file: Path | None, device: str) -> list[Encoder]:
    """Build the model of `tag` once, with the weights in `file` or untrained, and wrap it for each name."""
    name = names[0]
    where = device_of(device)
    architecture = name.name.partition("/")[0]
    transform = transform_of(tag, name)
    model = build(architecture, tag, chosen, transform, trained=file is not None)
    weights: dict[str, Any] = {"random": chosen.seed}
    if file is not None:
        fill(model, file)
        weights = {"sha256": _files.sha256_file(file)}
    frozen(model, where, chosen.dtype)
    # reading before the classifier takes the classifier away: whoever names a layer is served first
    order = sorted(range(len(names)), key=lambda n: "layer" not in names[n].options)
    made = {n: _wrap(names[n], settings(names[n]), model, transform, weights, tag, file, where) for n in order}
    found = [made[n] for n in range(len(names))]
    return joined(found, join) if len(found) > 1 else found


def _wrap(
    name: EncoderName,
    chosen: Settings,
    model: nn.Module,
    transform: ImageTransform,
    weights: dict[str, Any],
    tag: Any,
    file: Path | None,
    where: torch.device,
) -> Encoder:
    features, layer, pooling = cut(
        name, model, lambda tried: image_forward(tried, transform, where, chosen.dtype)([grey(transform)])
    )
    forward = image_forward(features, transform, where, chosen.dtype)
    space = describe(
        name, chosen, dim=width_of(forward, grey(transform), str(name)),
        architecture=f"torchvision/{name.name.partition('/')[0]}", weights=weights, layer=layer, pooling=pooling,
        image=transform,
        provenance={
            "tag": tag.name, "source": tag.url, "licence": "unknown",
            "files": _files.listed([file]) if file else [], "versions": versions("torchvision", "torch"),
        },
    )  # fmt: skip
    return Encoder(name, space, str(where), ImageTower(transform, forward), module=model)


def transform_of(tag: Any, name: EncoderName) -> ImageTransform:
    """Return what the enum's own transforms do with a PIL picture, with the options of `name` applied.

    Raises:
        MissingFact: they are not the resize, centre crop and normalisation of torchvision's classifiers.
    """
    preset = tag.transforms()
    try:
        (short,), (side,) = preset.resize_size, preset.crop_size
        plain = ImageTransform(
            side, side, short, tuple(preset.mean), tuple(preset.std), preset.interpolation.value, "crop"
        )
    except (AttributeError, TypeError, ValueError) as error:
        raise MissingFact(f"the transforms of {tag} are not reproduced here: {preset!r}") from error
    return plain.with_options(name)


def build(architecture: str, tag: Any, chosen: Settings, transform: ImageTransform, *, trained: bool) -> nn.Module:
    """Return the untrained model with the arguments that torchvision gives it for these weights.

    Raises:
        EncoderError: torchvision cannot build it so.
    """
    arguments: dict[str, Any] = {}
    if tag.meta["categories"] is not None:
        arguments["num_classes"] = len(tag.meta["categories"])
    side = tag.meta["min_size"][0] if trained else transform.height
    if architecture.startswith("vit_"):
        arguments["image_size"] = side
    if architecture == "maxvit_t":
        arguments["input_size"] = (side, side)
    if architecture in WITH_AUXILIARY:
        arguments |= {"transform_input": True, "aux_logits": True, "init_weights": not trained}
    try:
        with own_rng(chosen.seed):
            return torchvision.models.get_model(architecture, weights=None, **arguments)  # type: ignore[no-any-return]
    except (ValueError, AssertionError, RuntimeError) as error:
        raise EncoderError(
            f"torchvision cannot build {architecture} with {arguments}: {error}", hint="choose another image_size"
        ) from error


def fill(model: nn.Module, file: Path) -> None:
    """Load a state dict, every key of it.

    Raises:
        EncoderError: the file is damaged or does not fit the architecture.
    """
    tensors = _files.read_tensors(file)
    try:
        # DenseNet's files have the names of before torchvision 0.3
        model.load_state_dict(_renamed(tensors) if isinstance(model, torchvision.models.DenseNet) else tensors)
    except (RuntimeError, AttributeError, TypeError) as error:
        raise _files.damaged(file, error) from error


def _renamed(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    parts = ("norm.1", "relu.1", "conv.1", "norm.2", "relu.2", "conv.2")
    new = {}
    for key, tensor in tensors.items():
        head, dot, rest = key.partition(".denselayer")
        for part in parts if dot else ():
            rest = rest.replace(f".{part}.", f".{part.replace('.', '')}.")
        new[head + dot + rest] = tensor
    return new
