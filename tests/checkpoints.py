"""Small random checkpoints, each written in its library's own format, and one loadable example for each encoder kind.

Initial weights leave some paths of a model almost without effect (norms at 1, biases at 0), so that a wrong activation
or a lost bias could pass; `shake` fills every tensor instead.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from embedder.remote import Endpoint

TIMM = "test_efficientnet"
TIMM_FACTS = {
    "input_size": (3, 64, 64), "crop_pct": 0.9, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.25),
    "interpolation": "bilinear", "crop_mode": "center", "num_classes": 11,
}  # fmt: skip
PREPROCESS = {
    "mean": [0.48, 0.46, 0.41], "std": [0.27, 0.26, 0.28], "interpolation": "bicubic", "resize_mode": "shortest",
}  # fmt: skip
TEXT_CFG = {"context_length": 16, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
VIT_CFG = {"image_size": 48, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16}
RN_CFG = {"image_size": 64, "layers": [1, 1, 1, 1], "width": 16, "patch_size": None}


@dataclass(frozen=True)
class Example:
    """A name that loads without a network.

    `variants`: option text that changes vectors, or how they are kept, without changing their dimension; each must
    change the fingerprint, and the first must change the direction of vectors. `exempt`: options of the kind for which
    there is no such variant, with the reason. `endpoint`: where the kind's encoders answer, if they are elsewhere.
    """

    name: str
    variants: tuple[str, ...]
    exempt: Mapping[str, str] = field(default_factory=dict)
    endpoint: Endpoint | None = None


def shake(model: Any, seed: int) -> Any:
    """Fill every parameter and buffer of a model with random numbers that keep its activations alive."""
    import torch

    generator = torch.Generator().manual_seed(seed)
    for key, tensor in model.state_dict().items():
        if not tensor.is_floating_point():
            continue
        noise = torch.randn(tensor.shape, generator=generator)
        if key.endswith("running_var"):
            tensor.copy_(1 + 0.3 * noise.abs())
        elif tensor.ndim < 2:
            base = 1.0 if key.endswith("weight") else 0.0
            tensor.copy_(base + 0.3 * noise)
        else:
            tensor.copy_(noise * (1.5 / tensor[0].numel() ** 0.5))
    return model


def timm_folder(folder: Path, architecture: str = TIMM, seed: int = 0, **facts: Any) -> Path:
    """Write what `timm.models.save_for_hf` writes: `config.json` and `model.safetensors`."""
    import timm
    from timm.models import save_for_hf

    declared = {**TIMM_FACTS, **facts}
    size = {"img_size": declared["input_size"][1]} if "vit" in architecture else {}
    model = timm.create_model(architecture, pretrained=False, pretrained_cfg_overlay=declared, **size)
    save_for_hf(shake(model, seed), str(folder), safe_serialization=True)
    return folder


def open_clip_folder(
    folder: Path, vision: Mapping[str, Any] = VIT_CFG, seed: int = 0, *, quick_gelu: bool = False, **facts: Any
) -> Path:
    """Write `open_clip_config.json` and `open_clip_model.safetensors`."""
    import open_clip
    from safetensors.torch import save_file

    config: dict[str, Any] = {"embed_dim": 24, "vision_cfg": dict(vision), "text_cfg": dict(TEXT_CFG)}
    if quick_gelu:
        config["quick_gelu"] = True
    folder.mkdir(parents=True, exist_ok=True)
    record = {"model_cfg": config, "preprocess_cfg": {**PREPROCESS, **facts}}
    (folder / "open_clip_config.json").write_text(json.dumps(record))
    model = open_clip.create_model(f"local-dir:{folder}", load_weights=False)
    tensors = {key: value.contiguous() for key, value in shake(model, seed).state_dict().items()}
    save_file(tensors, folder / "open_clip_model.safetensors")
    return folder


def torchvision_file(folder: Path, model: str, seed: int = 0, **arguments: Any) -> Path:
    """Write the state dict of a torchvision model, as its own weight files are."""
    import torch
    import torchvision

    file = folder / f"{model}.pth"
    torch.save(shake(torchvision.models.get_model(model, weights=None, **arguments), seed).state_dict(), file)
    return file


COMMON = ("weights=random", "weights=random&seed=1", "normalize=false", "dtype=bfloat16")


def _bundled(folder: Path) -> Example:
    texts = dict.fromkeys(("max_length", "query_prompt", "document_prompt"), "for texts: see test_encoder_bundled")
    return Example(
        "bundled:efficientnet_lite0?image_size=96",
        (*COMMON, "pooling=max", "pooling=gem", "fit=pad", "fit=squash", "background=black"),
        {**texts, "layer": "no layer is as wide as the head", "image_size": "in the name, to be quick"},
    )


def _transformers(folder: Path) -> Example:
    from tests.tiny_transformers import text_folder

    prompts = ("query_prompt=a", "document_prompt=a photo of a ")
    pictures = dict.fromkeys(("fit", "background", "image_size"), "for pictures: see test_encoder_transformers_image")
    return Example(
        f"transformers:{text_folder(folder, 'bert')}",
        (*COMMON, "pooling=cls", "pooling=max", "pooling=last", "layer=-2", "layer=0", "max_length=9", *prompts),
        pictures,
    )


def _timm(folder: Path) -> Example:
    return Example(
        f"timm:local-dir:{timm_folder(folder)}",
        (*COMMON, "dtype=float16", "pooling=max", "fit=pad", "fit=squash", "background=1,2,3", "image_size=96"),
        {"layer": "no layer is as wide as the head"},
    )


def _open_clip(folder: Path) -> Example:
    prompts = ("query_prompt=a", "document_prompt=a photo of a ")
    return Example(
        f"open_clip:local-dir:{open_clip_folder(folder)}",
        (*COMMON, "fit=squash", "background=black", "image_size=64", *prompts),
    )


def _hashing(folder: Path) -> Example:
    return Example(
        "hashing:64", ("fit=pad", "normalize=false", "background=black", "query_prompt=a", "document_prompt=b")
    )


def _pixels(folder: Path) -> Example:
    return Example("pixels:8", ("fit=squash", "fit=crop", "normalize=false", "background=grey"))


def _torchvision(folder: Path) -> Example:
    file = torchvision_file(folder, "shufflenet_v2_x0_5")
    given = "in the name, as a file: see test_encoder_torchvision for the others"
    return Example(
        f"torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1?weights={file}&image_size=64",
        ("layer=conv5.2&pooling=max", "layer=conv5.2&pooling=mean", "layer=conv5.0", "normalize=false",
         "dtype=bfloat16", "fit=pad", "fit=squash", "background=black"),
        {"weights": given, "seed": given, "image_size": "in the name, to be quick"},
    )  # fmt: skip


def _sentence_transformers(folder: Path) -> Example:
    from tests.sentence import sentence_folder

    prompts = ("query_prompt=a", "document_prompt=two words ")
    return Example(
        f"sentence_transformers:{sentence_folder(folder / 'model')}",
        (*COMMON, "pooling=cls", "pooling=max", "pooling=last", "layer=-2", "layer=0", "max_length=9", *prompts),
        {"dimensions": "changes the dimension: see test_encoder_sentence_transformers"},
    )


def _openai(folder: Path) -> Example:
    from tests.endpoint import started

    return Example(
        "openai:tiny", ("document_prompt=two words ", "query_prompt=a", "normalize=false"),
        {"dimensions": "changes the dimension: see test_encoder_openai"}, started()[0].endpoint(),
    )  # fmt: skip


TUNED_WEIGHT = "conv_head.weight"


def tuned_folder(folder: Path) -> Path:
    """Write a small timm model, and a tuned encoder of it in which one weight differs."""
    import numpy as np

    from embedder import checkpoint
    from embedder.encoder import load_encoder

    base = load_encoder(f"timm:local-dir:{timm_folder(folder / 'base')}", device="cpu")
    weight = dict(base.module.named_parameters())[TUNED_WEIGHT].numpy()
    noise = np.random.default_rng(0).normal(size=weight.shape).astype(np.float32)
    facts = {"method": "lp_ft", "label": "kind", "collection": "c", "created": "2026-01-01T00:00:00Z"}
    rows = {"seen": ["b", "a"], "held_out": ["c"]}
    name, contents = checkpoint.pack({TUNED_WEIGHT: noise * weight.std()}, base.space, rows, facts)
    (folder / name).mkdir()
    for file, data in contents.items():
        (folder / name / file).write_bytes(data)
    return folder / name


def _tuned(folder: Path) -> Example:
    where = "no part of the Space: see test_checkpoint"
    variants = ("interpolate=0.2", "interpolate=0", "dtype=bfloat16", "normalize=false")
    return Example(f"tuned:{tuned_folder(folder)}", variants, {"home": where})


EXAMPLES: dict[str, Callable[[Path], Example]] = {
    "bundled": _bundled, "hashing": _hashing, "open_clip": _open_clip, "pixels": _pixels, "timm": _timm,
    "openai": _openai, "sentence_transformers": _sentence_transformers, "torchvision": _torchvision,
    "transformers": _transformers, "tuned": _tuned,
}  # fmt: skip
