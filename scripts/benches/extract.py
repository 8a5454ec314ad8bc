"""From a folder of pictures, or a table of texts, to committed rows; against what users would write or install instead.

Pictures are JPEG of 500 x 375, texts are paragraphs. The limits are the forward pass alone, on tensors that are ready,
in batches of the same size and of the same precision, and decoding alone. On a machine with a GPU the same command
takes that, and more of everything.
"""

from __future__ import annotations

import csv
import shutil
import tempfile
from argparse import Namespace
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import open_clip
import timm
import torch
import transformers
from benches import extract_peers as peers
from benches.frame import Contender
from benches.inputs import minilm_folder, paragraphs, photographs
from sentence_transformers import SentenceTransformer
from timm.data import create_transform, resolve_model_data_config

from embedder import together
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.errors import SpaceMismatch
from embedder.machine import cores
from embedder.packing import PASS_COST, cuts
from embedder.pool import DecodePool
from embedder.records import Item
from embedder.sourcing import open_source
from embedder.tuning import PICTURES, TOKENS
from index.ingest import ingest
from index.selection import IngestOptions
from index.store import Store

UNIT = "items"
LITE, VIT, MINILM = "bundled:efficientnet_lite0", "open_clip:ViT-B-32?weights=random", "bundled:minilm"
ITEMS = {"cpu": {LITE: 192, VIT: 64, MINILM: 320}, "cuda": {LITE: 8192, VIT: 8192, MINILM: 10_000}}
CLIP_RETRIEVAL = ("numpy<2", "open-clip-torch<3")


@dataclass(frozen=True)
class Bench:
    """Where the inputs are made, and what the contenders share."""

    work: Path
    device: str
    items: int | None
    quick: bool
    only: str

    @property
    def kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]

    @property
    def workers(self) -> int:
        """Decoding processes: one beside a forward pass on two cores, and one for each core beside a GPU."""
        return max(1, cores() - 1)

    def count(self, name: str) -> int:
        """Return how many items a scope has."""
        return self.items or (24 if self.quick else ITEMS[self.kind][name])

    def variants(self, name: str) -> list[tuple[str, Encoder | SpaceMismatch]]:
        """Return the encoder as it is, in bfloat16, and by OpenVINO where that is installed; or why it was refused."""
        joint = "&" if "?" in name else "?"
        half = f"{name}{joint}dtype=bfloat16"
        found: list[tuple[str, Encoder | SpaceMismatch]] = [
            (dtype, self._load(one)) for dtype, one in (("float32", name), ("bfloat16", half))
        ]
        if self.kind == "cpu" and find_spec("openvino") is not None:
            for dtype, one in (("float32", name), ("bfloat16", half)):
                try:
                    found.append((f"{dtype}, openvino", self._load(one, runtime="openvino")))
                except SpaceMismatch as error:
                    found.append((f"{dtype}, openvino", error))
        return found

    def _load(self, name: str, **more: Any) -> Encoder:
        return together.load_encoders([name], device=self.device, **more)[0]


def contenders(work: Path, options: Namespace) -> list[Contender]:
    """Make the inputs in `work` and return what runs on them."""
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    bench = Bench(work, device, options.items, options.quick, options.only or "")
    made = {"lite0": lite, "vit": vit, "minilm": texts}
    chosen = [make for name, make in made.items() if bench.only in name] or list(made.values())
    return [contender for make in chosen for contender in make(bench)]


def lite(bench: Bench) -> list[Contender]:
    """A light convolutional network with real weights: decoding and the batch size matter."""
    model = timm.create_model("tf_efficientnet_lite0", num_classes=0).eval().to(bench.device)
    model.to(memory_format=torch.channels_last)
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    return images(bench, LITE, lambda x: model(x.to(memory_format=torch.channels_last)), transform)[0]


def vit(bench: Bench) -> list[Contender]:
    """A vision transformer with random weights: the forward pass is nearly all."""
    model, _, transform = open_clip.create_model_and_transforms("ViT-B-32", pretrained="")
    model.eval().to(bench.device)
    found, paths, scope = images(bench, VIT, model.encode_image, transform)
    lance = peers.lance_images(bench.work, paths, bench.device)
    why = peers.absent("clip-retrieval", CLIP_RETRIEVAL)
    return [
        *found,
        Contender("peer", "LanceDB's open-clip function, rows", lance, scope),
        Contender("peer", "clip-retrieval", None, scope, note=why),
    ]


def images(
    bench: Bench, name: str, model: peers.Features, transform: peers.Transform
) -> tuple[list[Contender], list[str], str]:
    """Return the contenders from pictures to rows, the pictures' paths, and the scope."""
    count, batch, workers = bench.count(name), PICTURES[bench.kind].start, bench.workers
    folder = photographs(bench.work / name.partition("?")[0].replace("/", "-"), count)
    paths = sorted(str(path) for path in folder.rglob("*.jpg"))
    scope = f"pictures to rows on {bench.device}: {count} JPEG, {name}, batch {batch}, {workers} decoding"
    plain = peers.PlainImages(paths, transform)
    found = [
        Contender(
            "peer", "DataLoader, vectors in memory", peers.loader(plain, model, bench.device, batch, workers), scope
        )
    ]
    for variant, encoder in bench.variants(name):
        if isinstance(encoder, SpaceMismatch):
            found.append(refused(variant, encoder, scope))
            continue
        tower = cast(ImageTower, encoder.image)
        found += [
            Contender("limit", f"forward pass alone, {variant}", forward(encoder, paths, batch), scope, group=variant),
            Contender("us", f"permafrost embed, {variant}", whole(bench, folder, encoder, batch), scope, group=variant),
        ]

    def decode() -> int:
        items = [Item(id=path, medium="image", source=path, path=path) for path in paths]
        with DecodePool(workers) as pool:
            return sum(1 for _ in pool.map(items, tower.transform, ahead=64))

    return [*found, Contender("limit", "decoding alone", decode, scope)], paths, scope


def refused(variant: str, error: SpaceMismatch, scope: str) -> Contender:
    """Return the row of what does not make the vectors of its Space."""
    return Contender("us", f"permafrost embed, {variant}", None, scope, note=f"refused: {error.what}")


def forward(encoder: Encoder, paths: Sequence[str], batch: int) -> Callable[[], int]:
    """Return the forward pass over pixels that were decoded before."""
    with DecodePool(1) as pool:
        items = [Item(id=path, medium="image", source=path, path=path) for path in paths[:64]]
        tower = cast(ImageTower, encoder.image)
        ready = [pool.decode(item, tower.transform).value for item in items]

    def run() -> int:
        for start in range(0, len(paths), batch):
            encoder.forward("image", [ready[k % len(ready)] for k in range(start, min(start + batch, len(paths)))])
        return len(paths)

    return run


def texts(bench: Bench) -> list[Contender]:
    """Return the contenders from texts to rows."""
    values = paragraphs(bench.count(MINILM))
    table = bench.work / "texts.csv"
    with table.open("w", encoding="utf-8", newline="") as out:
        csv.writer(out).writerows([("id", "text"), *((str(n), text) for n, text in enumerate(values))])
    scope = f"texts to rows on {bench.device}: {len(values)} paragraphs, {MINILM}"
    transformers.utils.logging.disable_progress_bar()
    peer = SentenceTransformer(minilm_folder(), device=bench.device)
    lance = peers.lance_texts(bench.work, minilm_folder(), values, bench.device)
    found = [
        Contender(
            "peer", "sentence-transformers encode()", lambda: len(peer.encode(values, show_progress_bar=False)), scope
        ),
        Contender("peer", "LanceDB's sentence-transformers function, rows", lance, scope),
    ]
    for variant, encoder in bench.variants(MINILM):
        if isinstance(encoder, SpaceMismatch):
            found.append(refused(variant, encoder, scope))
            continue
        run = packed(encoder, values, bench.kind)
        found += [
            Contender("limit", f"forward pass alone, {variant}", run, scope, group=variant),
            Contender("us", f"permafrost embed, {variant}", whole(bench, table, encoder, None), scope, group=variant),
        ]
    return found


def packed(encoder: Encoder, values: Sequence[str], kind: str) -> Callable[[], int]:
    """Return the forward pass over tokens that are ready, sorted, in batches of the budget."""
    tower = cast(TextTower, encoder.text)
    ready = sorted(tower.tokens(values, "document"), key=tower.length, reverse=True)
    stops = cuts([tower.length(row) for row in ready], TOKENS[kind].start, len(ready), PASS_COST[kind])

    def run() -> int:
        start = 0
        while start < len(ready):
            encoder.forward("text", ready[start : stops[start]])
            start = int(stops[start])
        return len(ready)

    return run


def whole(bench: Bench, source: Path, encoder: Encoder, batch: int | None) -> Callable[[], int]:
    """Return a function that embeds a source into a store of its own: everything from file to committed row."""

    def run() -> int:
        home = Path(tempfile.mkdtemp(dir=bench.work))
        collection = Store.open(home / "store", create=True).collection("bench", create=True)
        options = IngestOptions(workers=bench.workers, batch_size=batch)
        found = ingest(collection, open_source(str(source)), encoder, options, lambda run: None)
        shutil.rmtree(home)
        return found.embedded

    return run
