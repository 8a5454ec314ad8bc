"""Vision models of transformers: pixels and vectors equal the library's own processor and model."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_image
from transformers import AutoImageProcessor, CLIPConfig, ViTMAEConfig, ViTMAEModel

from embedder import golden
from embedder.encoder import Encoder, ImageTower, load_encoder
from embedder.errors import EncoderError, MissingFact, UnknownName, UsageError
from tests.checkpoints import shake
from tests.parity import image_alone, worst_cosine
from tests.tiny_transformers import IMAGE, SMALL, SQUARE, image_folder, write_processor

LEAST = 0.9999
PREFIX = {"vit": 1, "dinov2": 1, "dinov2_with_registers": 4, "resnet": 0}
PROCESSORS: dict[str, dict[str, Any]] = {
    "crop": {},
    "bilinear": {"resample": 2},
    "squash": {
        "size": {"height": 48, "width": 48}, "do_center_crop": False, "image_processor_type": "ViTImageProcessor",
    },
    "class defaults": {
        "image_processor_type": "ViTImageProcessor", "size": 48, "resample": None, "do_rescale": None,
        "rescale_factor": None, "do_center_crop": None, "crop_size": None,
    },
    "no mean": {"do_normalize": False, "image_mean": None, "image_std": None},
    "crop is larger": {"size": {"shortest_edge": 40}},
}  # fmt: skip
ODD: dict[str, dict[str, Any]] = {
    "pad": {"do_pad": True, "pad_size": {"height": 48, "width": 48}},
    "resizes to": {"size": {"shortest_edge": 53, "longest_edge": 80}},
    "crops to nothing": {"do_center_crop": False},
    "resizes to {'height': 60": {"size": {"height": 60, "width": 60}},
    "does not resize": {"do_resize": False},
    "by filter 5": {"resample": 5},
    "makes other pixels": {
        "image_processor_type": "ConvNextImageProcessor", "size": {"shortest_edge": 48}, "crop_pct": 0.8,
        "crop_size": {"height": 48, "width": 48}, "do_center_crop": True,
    },
}  # fmt: skip
Folder = Callable[[str], Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return cache(lambda family: image_folder(tmp_path_factory.mktemp(family), family))


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    """Photographs, cut so that every remainder of the centre crop occurs, and the golden pictures."""
    photo = Image.fromarray(load_sample_image("china.jpg"))
    cuts = [photo.crop((0, 0, 301, height)) for height in (205, 211, 217, 222, 309, 333, 427)]
    return [*cuts, Image.fromarray(load_sample_image("flower.jpg")), *golden.pictures()]


def load(folder: Path, options: str = "") -> Encoder:
    return load_encoder(f"transformers:{folder}?normalize=false{'&' if options else ''}{options}", device="cpu")


@pytest.mark.parametrize("family", IMAGE)
def test_vectors_are_the_librarys_own(family: str, folder: Folder, pictures: list[Image.Image]) -> None:
    for pooling in ("cls", "mean", "max") if PREFIX[family] else ("mean", "max"):
        encoder = load(folder(family), f"pooling={pooling}")
        alone = image_alone(folder(family), pictures, pooling, PREFIX[family])
        for batch_size in (1, len(pictures)):
            assert worst_cosine(encoder.encode(pictures, batch_size=batch_size), alone) >= LEAST, pooling
    assert load(folder(family)).space.identity["pooling"] == ("cls" if PREFIX[family] else "mean")


@pytest.mark.parametrize(("family", "layer"), [("vit", 1), ("vit", 0), ("dinov2", -2), ("resnet", 2)])
def test_a_layer_is_the_librarys_hidden_state(family: str, layer: int, folder: Folder) -> None:
    encoder = load(folder(family), f"layer={layer}&pooling=mean")
    expected = image_alone(folder(family), golden.pictures(), "mean", PREFIX[family], layer)
    assert worst_cosine(encoder.encode(golden.pictures()), expected) >= LEAST
    assert encoder.space.dim == expected.shape[1]


def test_the_last_layer_is_the_output_after_its_norm(folder: Folder) -> None:
    one, two, three = (load(folder("vit"), options) for options in ("", "layer=-1", "layer=3"))
    assert one.space.fingerprint == two.space.fingerprint == three.space.fingerprint
    assert np.array_equal(one.encode(golden.pictures()), two.encode(golden.pictures()))


@pytest.mark.parametrize("case", PROCESSORS)
def test_pixels_are_the_processors_own(case: str, tmp_path: Path, folder: Folder, pictures: list[Image.Image]) -> None:
    for path in folder("vit").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_processor(tmp_path, **PROCESSORS[case])
    encoder, processor = load(tmp_path), AutoImageProcessor.from_pretrained(str(tmp_path))
    assert isinstance(encoder.image, ImageTower)
    transform = encoder.image.transform
    for picture in pictures:
        theirs = processor(images=picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        ours = transform.pixels(picture)
        assert np.abs((theirs * transform.std + transform.mean) * 255 - ours).max() < 2.5, picture.size
    assert worst_cosine(encoder.encode(pictures), image_alone(tmp_path, pictures, "cls", 1)) >= LEAST


@pytest.mark.parametrize("reason", ODD)
def test_a_processor_that_is_not_reproduced_is_refused(reason: str, tmp_path: Path, folder: Folder) -> None:
    for path in folder("vit").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_processor(tmp_path, **ODD[reason])
    with pytest.raises(MissingFact, match=reason) as caught:
        load(tmp_path)
    assert "fit=pad" in caught.value.hint
    transform = load(tmp_path, "fit=pad&image_size=48").space.identity["image"]
    assert (transform["fit"], transform["mean"]) == ("pad", [0.4, 0.5, 0.6])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"image_mean": None}, "no image_mean"),
        ({"size": None, "image_std": None}, "no size, image_std"),
        ({"rescale_factor": 1 / 127.5}, "here always by 1/255"),
        ({"do_rescale": False}, "scaled by 1, and here"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "three numbers"),
    ],
)
def test_what_is_not_declared_is_not_guessed(
    changed: dict[str, Any], said: str, tmp_path: Path, folder: Folder
) -> None:
    for path in folder("vit").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    write_processor(tmp_path, **changed)
    for options in ("", "fit=squash"):
        with pytest.raises(MissingFact, match=said):
            load(tmp_path, options)
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(MissingFact, match=r"no preprocessor_config\.json"):
        load(tmp_path)


def test_options_change_the_picture(folder: Folder) -> None:
    base, wide = load(folder("vit")), Image.fromarray(load_sample_image("china.jpg")).crop((0, 0, 600, 200))
    vectors = [base.encode([wide])]
    for options in ("fit=pad", "fit=squash", "fit=pad&background=black", "image_size=64"):
        other = load(folder("vit"), options)
        assert other.space.fingerprint != base.space.fingerprint
        vectors.append(other.encode([wide]))
        assert min(np.abs(vectors[-1] - earlier).max() for earlier in vectors[:-1]) > 1e-3, options
    assert load(folder("vit"), "fit=crop").space.fingerprint == base.space.fingerprint


def test_a_class_token_is_asked_for_only_where_there_is_one(folder: Folder) -> None:
    with pytest.raises(UsageError, match="needs a model with a class token"):
        load(folder("resnet"), "pooling=cls")
    with pytest.raises(UsageError, match="pooling must be one of cls, mean, max"):
        load(folder("vit"), "pooling=last")
    with pytest.raises(UnknownName, match="no option is called 'max_length'"):
        load(folder("vit"), "max_length=3")


def test_a_model_that_draws_random_numbers_is_refused(tmp_path: Path) -> None:
    decoder = {"decoder_hidden_size": 32, "decoder_num_hidden_layers": 1, "decoder_num_attention_heads": 4}
    model = ViTMAEModel(ViTMAEConfig(**SMALL, **SQUARE, **decoder))
    shake(model, 0).save_pretrained(str(tmp_path))
    write_processor(tmp_path)
    with pytest.raises(EncoderError, match="gives another vector each time"):
        load(tmp_path)


def test_a_model_of_two_towers_is_sent_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CLIPConfig().to_dict()))
    with pytest.raises(EncoderError, match=r"text_config, vision_config[\s\S]*open_clip:hf-hub"):
        load(tmp_path, "weights=random")


def test_untrained_from_a_seed(folder: Folder) -> None:
    one, again, two = (load(folder("dinov2"), f"weights=random&seed={seed}") for seed in (1, 1, 2))
    found = [encoder.encode(golden.pictures()) for encoder in (one, again, two)]
    assert np.array_equal(found[0], found[1])
    assert np.abs(found[0] - found[2]).max() > 1e-3
    assert one.space.identity == {**load(folder("dinov2")).space.identity, "weights": {"random": 1}}
