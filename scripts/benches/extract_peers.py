"""What users would write or install instead of `permafrost embed`."""

from __future__ import annotations

import shutil
import tempfile
import warnings
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr
from importlib.metadata import PackageNotFoundError, requires, version
from io import StringIO
from pathlib import Path
from typing import Any, cast

import lancedb
import numpy as np
import torch
from lancedb.embeddings import get_registry
from packaging.requirements import Requirement
from PIL import Image
from torch.utils.data import DataLoader, Dataset

Transform = Callable[[Image.Image], torch.Tensor]
Features = Callable[[torch.Tensor], torch.Tensor]


class PlainImages(Dataset[torch.Tensor]):
    """What a user writes first: open, convert, transform."""

    def __init__(self, paths: list[str], transform: Transform) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def loader(pictures: PlainImages, model: Features, device: str, batch: int, workers: int) -> Callable[[], int]:
    """Return the script with a DataLoader: float32, batches, worker processes, pinned memory on a GPU."""

    def run() -> int:
        with warnings.catch_warnings():
            # LanceDB warns of any fork; the worker that is forked here never touches it
            warnings.filterwarnings("ignore", message="lancedb fork support")
            ready = DataLoader(pictures, batch_size=batch, num_workers=workers, pin_memory=device != "cpu")
            return sum(len(vectors(model, part.to(device, non_blocking=True))) for part in ready)

    return run


def vectors(model: Features, batch: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return the vectors of one batch, as a user's own loop would."""
    with torch.inference_mode():
        return cast(np.ndarray[Any, Any], model(batch).float().cpu().numpy())


def lance_images(work: Path, paths: Sequence[str], device: str) -> Callable[[], int]:
    """Return LanceDB's own open-clip function, random weights, from paths to a table; the model is loaded before."""
    function = get_registry().get("open-clip").create(name="ViT-B-32", pretrained="", device=device)
    return _lance(work, function, paths)


def lance_texts(work: Path, folder: str, texts: Sequence[str], device: str) -> Callable[[], int]:
    """Return LanceDB's own sentence-transformers function, from texts to a table; the model is loaded before."""
    function = get_registry().get("sentence-transformers").create(name=folder, device=device)
    return _lance(work, function, texts)


def _lance(work: Path, function: Any, values: Sequence[str]) -> Callable[[], int]:
    def run() -> int:
        home = tempfile.mkdtemp(dir=work)
        # its progress bar goes to stderr, and cannot be turned off
        with redirect_stderr(StringIO()):
            vectors = function.compute_source_embeddings(list(values))
        rows = [{"content": value, "vector": vector} for value, vector in zip(values, vectors, strict=True)]
        count = lancedb.connect(home).create_table("rows", data=rows).count_rows()
        shutil.rmtree(home)
        return int(count)

    return run


def absent(package: str, needs: Sequence[str]) -> str:
    """Return why a peer is not in the table: what it needs and is not here, or that it is not installed."""
    try:
        wanted = [Requirement(text) for text in requires(package) or []]
    except PackageNotFoundError:
        wanted = [Requirement(text) for text in needs]
    clashes = [f"{w} (here: {found})" for w in wanted if (found := _version(w.name)) and found not in w.specifier]
    if clashes:
        return f"not installable here: needs {', '.join(clashes)}"
    return "fetches its own weights: run it by hand where there is a network"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
