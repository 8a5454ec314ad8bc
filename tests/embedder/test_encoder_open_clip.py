"""open_clip encoders against open_clip's own transform, tokenizer and towers; and what it would have let pass."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file

from embedder.encoder import load_encoder
from embedder.errors import EncoderError, MissingFact, UnknownName, UsageError
from tests.checkpoints import PREPROCESS, RN_CFG, TEXT_CFG, VIT_CFG, open_clip_folder

pytestmark = pytest.mark.usefixtures("pillows_resize")

TEXTS = ("a dog", "Two dogs in the snow, which is deep; so deep that the text is cut", "42", "a  CAT &amp; a dog")
SIZES = ((48, 48), (150, 90), (90, 151), (20, 33), (200, 40))
CASES: dict[str, dict[str, Any]] = {
    "vit": {},
    "quick": {"quick_gelu": True},
    "resnet": {"vision": RN_CFG, "seed": 2},
    "squash": {"vision": {**VIT_CFG, "image_size": [48, 64]}, "resize_mode": "squash", "interpolation": "bilinear"},
}


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(5)
    return [
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in SIZES
    ]


def reference(folder: Path, **options: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """What open_clip makes of the pictures and the texts in a folder."""
    model, _, transform = open_clip.create_model_and_transforms(f"local-dir:{folder}", **options)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.inference_mode():
        images = model.encode_image(torch.stack([transform(picture) for picture in pictures()]))
        return images.numpy(), model.encode_text(tokenizer(list(TEXTS))).numpy()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {case: open_clip_folder(tmp_path_factory.mktemp("clip") / case, **facts) for case, facts in CASES.items()}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return open_clip_folder(tmp_path / "clip")


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make open_clip know a small model, with one tag that was trained with QuickGELU and one that was not."""
    config = {"embed_dim": 24, "vision_cfg": dict(VIT_CFG), "text_cfg": dict(TEXT_CFG)}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Tiny", config)
    tags = {
        "openai": {**PREPROCESS, "quick_gelu": True, "hf_hub": "x/y/"},
        "laion": {**PREPROCESS, "hf_hub": "x/y/z.bin"},
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny", tags)


@pytest.mark.parametrize("case", CASES)
def test_equals_open_clip(case: str, folders: dict[str, Path]) -> None:
    images, texts = reference(folders[case])
    encoder = load_encoder(f"open_clip:local-dir:{folders[case]}?normalize=false")
    assert encoder.encode(pictures()) == pytest.approx(images, rel=1e-3, abs=1e-5)
    assert encoder.encode(TEXTS) == pytest.approx(texts, rel=1e-3, abs=1e-5)
    both = load_encoder(f"open_clip:local-dir:{folders[case]}").encode([TEXTS[0], pictures()[1], TEXTS[1]])
    joined = np.stack([texts[0], images[1], texts[1]])
    assert both == pytest.approx(joined / np.linalg.norm(joined, axis=1, keepdims=True), rel=1e-3, abs=1e-6)


def test_image_size_equals_open_clip_at_that_size(folders: dict[str, Path]) -> None:
    images, _ = reference(folders["vit"], force_image_size=80)
    encoder = load_encoder(f"open_clip:local-dir:{folders['vit']}?normalize=false&image_size=80")
    assert encoder.encode(pictures()) == pytest.approx(images, rel=1e-3, abs=1e-5)


def test_quick_gelu_follows_the_tag(tiny: None, folders: dict[str, Path], tmp_path: Path) -> None:
    """open_clip#771: a local path in place of the tag silently lost QuickGELU."""
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes((folders["quick"] / "open_clip_model.safetensors").read_bytes())
    quick, _ = reference(folders["quick"])
    openai = load_encoder(f"open_clip:Tiny/openai?weights={weights}&normalize=false")
    laion = load_encoder(f"open_clip:Tiny/laion?weights={weights}&normalize=false")
    assert openai.encode(pictures()) == pytest.approx(quick, rel=1e-3, abs=1e-5)
    assert np.abs(laion.encode(pictures()) - quick).max() > 1e-2
    assert (openai.space.identity["quick_gelu"], laion.space.identity["quick_gelu"]) == (True, False)
    named = load_encoder(f"open_clip:local-dir:{folders['quick']}?normalize=false").space
    assert openai.space.fingerprint == named.fingerprint != laion.space.fingerprint


def test_a_file_alone_says_too_little(tiny: None, folder: Path, tmp_path: Path) -> None:
    path = (folder / "open_clip_model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(MissingFact, match="open_clip:Tiny/openai"):
        load_encoder(f"open_clip:Tiny?weights={path}")
    beside = path.rename(folder / "open_clip_model.safetensors")
    named = load_encoder(f"open_clip:Tiny?weights={beside}").space
    assert named.fingerprint == load_encoder(f"open_clip:local-dir:{folder}").space.fingerprint
    with pytest.raises(EncoderError, match="another architecture than ViT-B-32: embed_dim, vision_cfg, text_cfg"):
        load_encoder(f"open_clip:ViT-B-32?weights={beside}")


def test_weights_that_are_not_there_are_not_drawn_at_random(tiny: None, folder: Path) -> None:
    (folder / "open_clip_model.safetensors").unlink()
    with pytest.raises(EncoderError, match="holds no weights"):
        load_encoder(f"open_clip:local-dir:{folder}")
    with pytest.raises(UsageError, match=r"add a tag \(open_clip:Tiny/openai\), weights=FILE or weights=random"):
        load_encoder("open_clip:Tiny")


def test_untrained_weights_are_open_clips_own_from_that_seed(tiny: None, folder: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(4)
        model = open_clip.create_model("Tiny", pretrained=None)
    tokens = open_clip.get_tokenizer("Tiny")(list(TEXTS))
    with torch.inference_mode():
        expected = model.eval().encode_text(tokens).numpy()
    encoder = load_encoder("open_clip:Tiny?weights=random&seed=4&normalize=false")
    assert encoder.encode(TEXTS) == pytest.approx(expected, rel=1e-3, abs=1e-6)
    assert encoder.space.identity["weights"] == {"random": 4}
    twin = load_encoder(f"open_clip:local-dir:{folder}?weights=random&seed=4").space
    trained = load_encoder(f"open_clip:local-dir:{folder}").space
    assert twin.identity == {**trained.identity, "weights": {"random": 4}}


@pytest.mark.parametrize("lost", [["mean"], ["std"], ["interpolation"], ["resize_mode"], list(PREPROCESS)])
def test_a_missing_fact_is_not_guessed(lost: list[str], folder: Path) -> None:
    config = json.loads((folder / "open_clip_config.json").read_text())
    for fact in lost:
        del config["preprocess_cfg"][fact]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(MissingFact, match=f"no {lost[0]}"):
        load_encoder(f"open_clip:local-dir:{folder}")


def test_a_config_from_before_two_facts_existed_means_what_it_meant(folder: Path) -> None:
    now = load_encoder(f"open_clip:local-dir:{folder}").space
    config = json.loads((folder / "open_clip_config.json").read_text())
    del config["preprocess_cfg"]["interpolation"], config["preprocess_cfg"]["resize_mode"]
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    assert load_encoder(f"open_clip:local-dir:{folder}").space.fingerprint == now.fingerprint


def test_a_geometry_that_is_not_reproduced_is_refused_until_one_is_chosen(tmp_path: Path) -> None:
    folder = open_clip_folder(tmp_path / "clip", resize_mode="longest")
    with pytest.raises(MissingFact, match="fit=pad or fit=squash"):
        load_encoder(f"open_clip:local-dir:{folder}")
    assert load_encoder(f"open_clip:local-dir:{folder}?fit=pad").space.identity["image"]["fit"] == "pad"


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
def test_a_file_that_was_cut_short(suffix: str, folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    if suffix == ".bin":
        torch.save(load_file(path), folder / "open_clip_pytorch_model.bin")
        path.unlink()
        path = folder / "open_clip_pytorch_model.bin"
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    with pytest.raises(EncoderError, match="download or copy it again") as caught:
        load_encoder(f"open_clip:local-dir:{folder}")
    assert path.name in str(caught.value)


def test_incomplete_weights(folder: Path) -> None:
    path = folder / "open_clip_model.safetensors"
    tensors = load_file(path)
    del tensors["visual.proj"]
    save_file(tensors, path)
    with pytest.raises(EncoderError, match=r"visual\.proj"):
        load_encoder(f"open_clip:local-dir:{folder}")


def test_names_and_places_that_do_not_exist(tmp_path: Path) -> None:
    for name, said in (("ViT-B-33/openai", "ViT-B-32"), ("ViT-B-32/openay", "openai")):
        with pytest.raises(UnknownName, match=said):
            load_encoder(f"open_clip:{name}")
    with pytest.raises(EncoderError, match="nowhere"):
        load_encoder(f"open_clip:local-dir:{tmp_path / 'nowhere'}")
    with pytest.raises(MissingFact, match=r"open_clip_config\.json"):
        load_encoder(f"open_clip:local-dir:{tmp_path}")


def test_prompts_go_before_texts_of_their_role(folder: Path) -> None:
    plain = load_encoder(f"open_clip:local-dir:{folder}")
    asked = load_encoder(f"open_clip:local-dir:{folder}?query_prompt=a photo of a ")
    assert np.array_equal(asked.encode(["dog"], role="query"), plain.encode(["a photo of a dog"]))
    assert np.array_equal(asked.encode(["dog"]), plain.encode(["dog"]))


def test_length_counts_tokens_and_long_texts_are_cut(folder: Path) -> None:
    encoder = load_encoder(f"open_clip:local-dir:{folder}")
    assert encoder.text is not None
    lengths = [encoder.text.length(encoder.prepare(text)[1]) for text in ("dog", "a dog", "dog " * 50)]
    assert lengths == [3, 4, 16]
    assert encoder.text.max_chars == 64 * 16


def test_another_tokenizer_in_the_folder(folder: Path) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = ["[PAD]", "[UNK]", "dog", "cat", "snow", "a", "two", "in", "the"]
    inner = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=inner, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    before = load_encoder(f"open_clip:local-dir:{folder}").space
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_tokenizer_name"] = "some/where"
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    encoder = load_encoder(f"open_clip:local-dir:{folder}?normalize=false")
    assert encoder.space.identity["text"]["sha256"] != before.identity["text"]["sha256"]
    assert encoder.encode(TEXTS) == pytest.approx(reference(folder)[1], rel=1e-3, abs=1e-5)
    changed = (folder / "tokenizer.json").read_text().replace('"snow"', '"ice"')
    (folder / "tokenizer.json").write_text(changed)
    again = load_encoder(f"open_clip:local-dir:{folder}?normalize=false")
    assert again.space.fingerprint != encoder.space.fingerprint


def test_the_root_logger_is_left_as_it_was(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    load_encoder(f"open_clip:local-dir:{folder}?weights=random")
    assert (root.level, list(root.handlers)) == before
    assert not caplog.records
