"""The parity table: vectors of every kind that loads offline, against the reference library's own forward pass.

Each figure is the least cosine over the inputs, and over the poolings that the kind offers. `alone`: one input in a
call of ours, against one in a call of the library's. `batch`: all inputs, short and long, in one call of ours, against
the library's one by one. `left`, `right`: the same batch, against the library's own, padded on that side and masked.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from embedder import golden  # noqa: E402
from embedder.encoder import load_encoder  # noqa: E402
from embedder.errors import EncoderError  # noqa: E402
from tests import checkpoints, parity, sentence, tiny_transformers  # noqa: E402

LEAST = 0.9999
BEGIN, END = "<!-- parity: made by scripts/parity -->", "<!-- parity: end -->"
HEAD = "| kind | family | weights | alone | mixed batch | left-padded | right-padded |\n|---|---|---|---|---|---|---|"
TEXTS = (
    "frost", "A longer sentence, so that the short ones beside it are padded.", "!", "two words", "ünïcode 数字 42",
    "a text that is longer than the small models can read, " * 4,
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line; a figure is None where the question has no sense."""

    kind: str
    family: str
    weights: str
    alone: float
    batch: float
    left: float | None = None
    right: float | None = None

    def __str__(self) -> str:
        figures = (self.alone, self.batch, self.left, self.right)
        cells = ["" if value is None else f"{min(value, 1):.6f}" for value in figures]
        return f"| {' | '.join([f'`{self.kind}`', self.family, self.weights, *cells])} |"


def main() -> int:
    """Print the table, or write it into a page; 1 where a figure is below 0.9999."""
    parser = argparse.ArgumentParser(prog="scripts/parity", description=__doc__)
    parser.add_argument("--write", type=Path, help="a page with the two markers; the table is put between them")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    silence()
    rows = []
    with tempfile.TemporaryDirectory(prefix="permafrost-parity-") as work:
        for make in (
            text_families,
            image_families,
            timm_models,
            torchvision_models,
            sentence_models,
            clip_towers,
            packages,
        ):
            for row in make(Path(work) / make.__name__):
                print(row, file=sys.stderr, flush=True)
                rows.append(row)
    table = "\n".join([HEAD, *map(str, rows)])
    print(table)
    if options.write:
        write(options.write, table)
    low = [row for row in rows if min(v for v in (row.alone, row.batch, row.left, row.right) if v is not None) < LEAST]
    return 1 if low else 0


def write(page: Path, table: str) -> None:
    """Replace what stands between the markers. Raises `SystemExit` where there are none."""
    before, begin, rest = page.read_text(encoding="utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise SystemExit(f"{page} has no lines {BEGIN} and {END}")
    page.write_text(f"{before}{BEGIN}\n\n{table}\n\n{END}{after}", encoding="utf-8")


def silence() -> None:
    """Keep the libraries' progress bars out of the table."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def compare(names: Sequence[str], inputs: Sequence[Any], references: Sequence[parity.Array]) -> tuple[float, float]:
    """Return the worst cosines alone and in one batch, over encoders with a reference for each."""
    alone, batch = [], []
    for name, expected in zip(names, references, strict=True):
        encoder = load_encoder(name, device="cpu")
        one = np.concatenate([encoder.encode([value]) for value in inputs])
        alone.append(parity.worst_cosine(one, expected))
        batch.append(parity.worst_cosine(encoder.encode(inputs, batch_size=len(inputs)), expected))
    return min(alone), min(batch)


def pictures() -> list[Image.Image]:
    """Photographs in several shapes, and the golden pictures."""
    from sklearn.datasets import load_sample_image

    photo = Image.fromarray(load_sample_image("china.jpg"))
    cuts = [photo.crop((0, 0, 301, height)) for height in (205, 222, 427)]
    return [photo, *cuts, Image.fromarray(load_sample_image("flower.jpg")), *golden.pictures()]


def text_families(work: Path) -> Iterator[Row]:
    """Every text family of transformers, over its poolings; decoders without a padding token."""
    for family in tiny_transformers.TEXT:
        folder = tiny_transformers.text_folder(work / family, family, pad=family in tiny_transformers.ENCODERS)
        poolings = ("cls", "mean", "max", "last")
        names = [f"transformers:{folder}?pooling={pooling}" for pooling in poolings]
        alone, batch = compare(names, TEXTS, [parity.text_alone(folder, TEXTS, p) for p in poolings])
        sides = [
            compare(names, TEXTS, [parity.text_batch(folder, TEXTS, p, side) for p in poolings])[1]
            for side in ("left", "right")
        ]
        yield Row("transformers", family, "small, random", alone, batch, *sides)


def image_families(work: Path) -> Iterator[Row]:
    """Every image family of transformers, over its poolings."""
    for family in tiny_transformers.IMAGE:
        folder = tiny_transformers.image_folder(work / family, family)
        prefix = load_encoder(f"transformers:{folder}", device="cpu").space.identity["prefix"]
        poolings = ("cls", "mean", "max") if prefix else ("mean", "max")
        expected = [parity.image_alone(folder, pictures(), pooling, prefix) for pooling in poolings]
        yield Row(
            "transformers", family, "small, random",
            *compare([f"transformers:{folder}?pooling={pooling}" for pooling in poolings], pictures(), expected),
        )  # fmt: skip


def timm_models(work: Path) -> Iterator[Row]:
    """A CNN and a ViT in timm's own format."""
    for family, architecture in (("EfficientNet", checkpoints.TIMM), ("ViT", "test_vit")):
        folder = checkpoints.timm_folder(work / architecture, architecture)
        expected = parity.timm_alone(f"local-dir:{folder}", pictures())
        yield Row("timm", family, "small, random", *compare([f"timm:local-dir:{folder}"], pictures(), [expected]))


def torchvision_models(work: Path) -> Iterator[Row]:
    """Classifiers of torchvision, cut before their last layer."""
    work.mkdir()
    for model in ("alexnet", "resnet18", "shufflenet_v2_x0_5"):
        file = checkpoints.torchvision_file(work, model)
        name = f"torchvision:{model}/IMAGENET1K_V1?weights={file}"
        expected = parity.torchvision_alone(model, file, pictures())
        yield Row("torchvision", model, "random", *compare([name], pictures(), [expected]))


def sentence_models(work: Path) -> Iterator[Row]:
    """A chain of modules in sentence-transformers' own format."""
    folder = sentence.sentence_folder(work / "model")
    figures = compare([f"sentence_transformers:{folder}"], TEXTS, [parity.sentence_alone(folder, TEXTS)])
    yield Row("sentence_transformers", "BERT", "small, random", *figures)


def clip_towers(work: Path) -> Iterator[Row]:
    """Both towers of open_clip, with a ViT and with a ResNet."""
    for family, vision in (("ViT", checkpoints.VIT_CFG), ("ResNet", checkpoints.RN_CFG)):
        folder = checkpoints.open_clip_folder(work / family, vision)
        images, texts = parity.open_clip_alone(folder, pictures(), TEXTS)
        for what, values, expected in (("pictures", pictures(), images), ("texts", TEXTS, texts)):
            figures = compare([f"open_clip:local-dir:{folder}"], values, [expected])
            yield Row("open_clip", f"{family}, {what}", "small, random", *figures)


def packages(_: Path) -> Iterator[Row]:
    """The real weights that come as packages; one that is not installed is left out, and said so."""
    references: dict[str, tuple[Sequence[Any], Callable[[], parity.Array]]] = {
        "efficientnet_lite0": (pictures(), lambda: parity.lite_alone(pictures())),
        "minilm": (TEXTS, lambda: parity.minilm_alone(TEXTS)),
        "smollm2": (TEXTS, lambda: parity.smollm2_alone(TEXTS)),
    }
    for name, (inputs, reference) in references.items():
        try:
            figures = compare([f"bundled:{name}"], inputs, [reference()])
        except EncoderError as error:
            print(f"left out: bundled:{name}: {error.what}", file=sys.stderr)
            continue
        yield Row("bundled", name, "real", *figures)


if __name__ == "__main__":
    sys.exit(main())
