"""From an image processor of transformers to an `ImageTransform`, compared with the processor's own pixels."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import AutoImageProcessor

from embedder import golden
from embedder.encoders._declared import require
from embedder.encoders._files import read_json
from embedder.encoders._transformers_model import quiet
from embedder.encoders.transformers import PROCESSOR
from embedder.errors import EncoderError, MissingFact
from embedder.naming import EncoderName
from embedder.transform import ImageTransform

RESAMPLE = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box"}
MOST = 0.6
"""Levels of 255, on average over a picture: torchvision and Pillow round differently by up to one level."""


def image_transform(folder: Path, name: EncoderName) -> ImageTransform:
    """Return what the image processor in a folder does, with the name's `fit`, `image_size` and `background`.

    The file has to say size, mean and std. What it leaves to its processor's class is read from the class, and all of
    it becomes part of the Space.

    Raises:
        MissingFact: no such file, a fact is missing, or a step that is not reproduced here, unless `fit=pad` or
            `fit=squash` replaces the geometry.
    """
    path = folder / PROCESSOR
    if not path.is_file():
        raise MissingFact(
            f"{folder} has no {PROCESSOR}, so nothing says how pictures are made for its weights",
            hint=f"copy {PROCESSOR} from where the weights come from",
        )
    declared = read_json(path)
    require(declared, ("size", *(("image_mean", "image_std") if declared.get("do_normalize", True) else ())), str(path))
    processor = _processor(folder)
    facts = processor.to_dict()
    _require_scale(facts, path)
    replaced = name.options.get("fit", "declared") in ("squash", "pad")
    odd, plain = _geometry(facts)
    if not odd and not replaced:
        odd = _unlike(plain, processor)
    if odd and not replaced:
        raise MissingFact(
            f"the image processor {odd}, which is not reproduced here exactly",
            where=str(path), hint="say which fit to use instead: add fit=pad or fit=squash to the name",
        )  # fmt: skip
    return plain.with_options(name)


def _processor(folder: Path) -> Any:
    try:
        with quiet():
            return AutoImageProcessor.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"the image processor cannot be loaded: {reason}", where=str(folder / PROCESSOR),
            hint="copy or download it again",
        ) from error  # fmt: skip


def _require_scale(facts: Mapping[str, Any], path: Path) -> None:
    factor = facts.get("rescale_factor") or 0
    if not facts.get("do_rescale") or abs(255 * factor - 1) > 1e-6:
        raise MissingFact(
            f"pixels are scaled by {factor if facts.get('do_rescale') else 1}, and here always by 1/255",
            where=str(path), hint="use a checkpoint whose processor scales to 0…1",
        )  # fmt: skip


def _geometry(facts: Mapping[str, Any]) -> tuple[str, ImageTransform]:
    """Return what cannot be followed, empty where all can, and the nearest plain transform."""
    size = {key: value for key, value in dict(facts["size"]).items() if value}
    crop = {key: value for key, value in dict(facts.get("crop_size") or {}).items() if value}
    crops = bool(facts.get("do_center_crop")) and bool(crop)
    side = size.get("shortest_edge") or size.get("longest_edge")
    whole = (size["height"], size["width"]) if {"height", "width"} <= set(size) else (side or 224, side or 224)
    height, width = (crop["height"], crop["width"]) if crops else whole
    odd = [f"sets {key}" for key in ("do_pad", "do_thumbnail", "do_reduce_labels") if facts.get(key)]
    if not facts.get("do_resize"):
        odd.append("does not resize")
    if facts.get("resample") not in RESAMPLE:
        odd.append(f"resamples by filter {facts.get('resample')}")
    if set(size) == {"shortest_edge"} and crops:
        fit = "crop_floor"
    elif set(size) == {"height", "width"} and (height, width) == whole:
        fit = "squash"
    else:
        odd.append(f"resizes to {size} and crops to {crop if crops else 'nothing'}")
        fit = "squash"
    mean, std = (facts["image_mean"], facts["image_std"]) if facts.get("do_normalize") else ((0.0,) * 3, (1.0,) * 3)
    filter_name = RESAMPLE.get(facts.get("resample", -1), "bicubic")
    short = int(side) if fit == "crop_floor" and side else min(height, width)
    return "; ".join(odd), ImageTransform(
        int(height), int(width), short, _three(mean), _three(std), filter_name, fit
    )  # fmt: skip


def _three(values: Any) -> tuple[float, float, float]:
    numbers = [float(v) for v in (values if isinstance(values, (list, tuple)) else [values] * 3)]
    if len(numbers) != 3:
        raise MissingFact(f"mean and std need three numbers, not {numbers}")
    return numbers[0], numbers[1], numbers[2]


def _unlike(plain: ImageTransform, processor: Any) -> str:
    """Compare with the processor's own pixels for the golden pictures; return what differs, empty where they agree."""
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (plain.mean, plain.std))
    for picture in golden.pictures():
        found = processor(images=picture, return_tensors="np")["pixel_values"][0]
        ours = plain.pixels(picture).transpose(2, 0, 1)
        if found.shape != ours.shape:
            return f"makes pixels of shape {found.shape}, not {ours.shape}"
        levels = float(np.abs((found * std + mean) * 255 - ours).mean())
        if levels > MOST:
            return f"makes other pixels ({levels:.1f} levels on average)"
    return ""
