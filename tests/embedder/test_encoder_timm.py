"""timm encoders against timm's own transform and forward pass, and every way in which weights can be wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image
from safetensors.torch import load_file, save_file
from timm.data import create_transform, resolve_model_data_config

from embedder.encoder import load_encoder
from embedder.errors import EncoderError, MissingFact, UnknownName, UsageError
from tests.checkpoints import TIMM, shake, timm_folder

pytestmark = pytest.mark.usefixtures("pillows_resize")

TAGGED = f"{TIMM}.r160_in1k"
SIZES = ((64, 64), (150, 90), (90, 151), (40, 33), (64, 71), (300, 64), (30, 200))
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "center": ("test_efficientnet", {}),
    "squash": ("test_resnet", {"crop_mode": "squash", "crop_pct": 1.0, "interpolation": "bicubic"}),
    "whole": ("test_convnext", {"crop_pct": 1.0, "interpolation": "bicubic"}),
    "tokens": ("test_vit", {"crop_pct": 0.875, "interpolation": "bicubic", "mean": (0.5,) * 3, "std": (0.5,) * 3}),
}


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(5)
    return [
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in SIZES
    ]


def reference(model: Any) -> NDArray[np.float32]:
    """What timm does with the pictures: its transform, its model, without a classifier."""
    transform = create_transform(**resolve_model_data_config(model), is_training=False)
    with torch.inference_mode():
        return model.eval()(torch.stack([transform(picture) for picture in pictures()])).numpy()


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {
        case: timm_folder(tmp_path_factory.mktemp("timm") / case, architecture, **facts)
        for case, (architecture, facts) in CASES.items()
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return timm_folder(tmp_path / "model")


@pytest.mark.parametrize("case", CASES)
def test_equals_timm(case: str, folders: dict[str, Path]) -> None:
    expected = reference(timm.create_model(f"local-dir:{folders[case]}", pretrained=True, num_classes=0))
    found = load_encoder(f"timm:local-dir:{folders[case]}?normalize=false").encode(pictures())
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-5)
    unit = load_encoder(f"timm:local-dir:{folders[case]}").encode(pictures())
    assert unit == pytest.approx(expected / np.linalg.norm(expected, axis=1, keepdims=True), rel=1e-4, abs=1e-6)


def test_image_size_equals_timm_at_that_size(folders: dict[str, Path]) -> None:
    for case, size in (("center", {}), ("tokens", {"img_size": 96})):
        model = timm.create_model(f"local-dir:{folders[case]}", pretrained=True, num_classes=0, **size)
        config = {**resolve_model_data_config(model), "input_size": (3, 96, 96)}
        transform = create_transform(**config, is_training=False)
        with torch.inference_mode():
            expected = model.eval()(torch.stack([transform(picture) for picture in pictures()])).numpy()
        encoder = load_encoder(f"timm:local-dir:{folders[case]}?normalize=false&image_size=96")
        assert encoder.encode(pictures()) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_image_size_rebuilds_a_model_of_fixed_size() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = timm.create_model("vit_tiny_patch16_224", img_size=64)
    model.reset_classifier(0)
    config = {**resolve_model_data_config(model), "input_size": (3, 64, 64)}
    transform = create_transform(**config, is_training=False)
    with torch.inference_mode():
        expected = model.eval()(torch.stack([transform(picture) for picture in pictures()])).numpy()
    encoder = load_encoder("timm:vit_tiny_patch16_224?weights=random&image_size=64&normalize=false")
    assert encoder.encode(pictures()) == pytest.approx(expected, rel=1e-3, abs=1e-4)


def hooked(model: Any, module: Any) -> NDArray[np.float32]:
    """Return what one module gives for the pictures."""
    kept: list[torch.Tensor] = []
    hook = module.register_forward_hook(lambda _m, _i, out: kept.append(out))
    reference(model)
    hook.remove()
    return kept[0].numpy()


def test_layers_are_those_inside_the_model(folders: dict[str, Path]) -> None:
    base = f"timm:local-dir:{folders['squash']}?normalize=false"
    model = timm.create_model(f"local-dir:{folders['squash']}", pretrained=True, num_classes=0)
    third = hooked(model, model.layer3)
    assert load_encoder(f"{base}&layer=3").encode(pictures()) == pytest.approx(third.mean((2, 3)), rel=1e-3, abs=1e-5)
    found = load_encoder(f"{base}&layer=-2&pooling=max")
    assert found.encode(pictures()) == pytest.approx(third.max((2, 3)), rel=1e-3, abs=1e-5)
    assert found.space.identity["layer"] == 3
    gem = (np.clip(third.astype(np.float64), 1e-6, None) ** 3).mean((2, 3)) ** (1 / 3)
    assert load_encoder(f"{base}&layer=3&pooling=gem").encode(pictures()) == pytest.approx(gem, rel=1e-3, abs=1e-4)


def test_tokens_are_pooled_without_the_class_token(folders: dict[str, Path]) -> None:
    base = f"timm:local-dir:{folders['tokens']}?normalize=false"
    model = timm.create_model(f"local-dir:{folders['tokens']}", pretrained=True, num_classes=0)
    inner = hooked(model, model.blocks[1])
    with torch.inference_mode():
        normed = model.norm(torch.from_numpy(inner)).numpy()
    assert model.num_prefix_tokens == 1
    for pooling, expected in (("mean", normed[:, 1:].mean(1)), ("max", normed[:, 1:].max(1)), ("cls", normed[:, 0])):
        found = load_encoder(f"{base}&layer=1&pooling={pooling}").encode(pictures())
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-4)
    last = hooked(model, model.norm)
    assert load_encoder(f"{base}&pooling=mean").encode(pictures()) == pytest.approx(last[:, 1:].mean(1), abs=1e-4)
    assert load_encoder(f"{base}&pooling=cls").encode(pictures()) == pytest.approx(last[:, 0], abs=1e-4)


def test_layers_and_poolings_that_do_not_exist_are_refused(folders: dict[str, Path]) -> None:
    base = f"timm:local-dir:{folders['squash']}"
    for options, said in (
        ("layer=5", "from -5 to 4"), ("layer=four", "whole number"), ("pooling=median", "one of head"),
        ("pooling=cls", "class token"), ("layer=1&pooling=head", "last layer"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=said):
            load_encoder(f"{base}?{options}")


def test_untrained_weights_are_timms_own_from_that_seed(folder: Path) -> None:
    encoder = load_encoder(f"timm:{TAGGED}?weights=random&seed=3&normalize=false")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = timm.create_model(TAGGED, pretrained=False)
    model.reset_classifier(0)
    assert encoder.encode(pictures()) == pytest.approx(reference(model), rel=1e-4, abs=1e-6)
    assert encoder.space.identity["weights"] == {"random": 3}
    twin = load_encoder(f"timm:local-dir:{folder}?weights=random&seed=3")
    trained = load_encoder(f"timm:local-dir:{folder}")
    assert twin.space.identity == {**trained.space.identity, "weights": {"random": 3}}


@pytest.mark.parametrize("suffix", [".pth", ".safetensors", ".bin"])
@pytest.mark.parametrize("classes", [1000, 10, 0])
def test_a_file_with_a_tag(suffix: str, classes: int, tmp_path: Path) -> None:
    model = shake(timm.create_model(TAGGED, pretrained=False, num_classes=classes), seed=classes)
    path = tmp_path / f"mine{suffix}"
    if suffix == ".safetensors":
        save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    else:
        torch.save({"state_dict": model.state_dict(), "epoch": 3}, path)
    encoder = load_encoder(f"timm:{TAGGED}?weights={path}&normalize=false")
    model.reset_classifier(0)
    assert encoder.encode(pictures()) == pytest.approx(reference(model), rel=1e-4, abs=1e-5)
    assert encoder.space.provenance["files"][0]["name"] == path.name


def test_the_same_weights_are_the_same_space_however_they_are_named(folder: Path, tmp_path: Path) -> None:
    direct = load_encoder(f"timm:local-dir:{folder}").space
    assert load_encoder(f"timm:{TIMM}?weights={folder}").space.fingerprint == direct.fingerprint
    assert load_encoder(f"timm:{TIMM}?weights={folder}/model.safetensors").space.fingerprint == direct.fingerprint
    moved = tmp_path / "elsewhere@home"
    folder.rename(moved)
    assert load_encoder(f"timm:local-dir:{moved}").space.fingerprint == direct.fingerprint


def test_other_bytes_are_another_space(folder: Path) -> None:
    before = load_encoder(f"timm:local-dir:{folder}").space
    tensors = load_file(folder / "model.safetensors")
    tensors["bn1.bias"] = tensors["bn1.bias"] + 0.01
    save_file(tensors, folder / "model.safetensors")
    after = load_encoder(f"timm:local-dir:{folder}").space
    assert after.fingerprint != before.fingerprint
    assert {**after.identity, "weights": None} == {**before.identity, "weights": None}


@pytest.mark.parametrize("fact", ["input_size", "interpolation", "crop_pct", "mean", "std"])
def test_a_missing_fact_is_not_guessed(fact: str, folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text())
    del config["pretrained_cfg"][fact]
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(MissingFact, match=f"no {fact}"):
        load_encoder(f"timm:local-dir:{folder}")


def test_a_file_alone_says_nothing_about_its_pictures(folder: Path, tmp_path: Path) -> None:
    path = (folder / "model.safetensors").rename(tmp_path / "alone.safetensors")
    with pytest.raises(MissingFact, match=f"timm:{TAGGED}"):
        load_encoder(f"timm:{TIMM}?weights={path}")
    (folder / "config.json").unlink()
    with pytest.raises(MissingFact, match=r"config\.json"):
        load_encoder(f"timm:local-dir:{folder}")


@pytest.mark.parametrize(
    "facts", [{"crop_mode": "border"}, {"crop_mode": "squash", "crop_pct": 0.9}, {"input_size": (3, 64, 48)}]
)
def test_a_geometry_that_is_not_reproduced_is_refused_until_one_is_chosen(
    facts: dict[str, Any], tmp_path: Path
) -> None:
    folder = timm_folder(tmp_path / "odd", **facts)
    with pytest.raises(MissingFact, match="fit=pad or fit=squash"):
        load_encoder(f"timm:local-dir:{folder}")
    chosen = load_encoder(f"timm:local-dir:{folder}?fit=squash").space.identity["image"]
    assert chosen["fit"] == "squash"
    assert [chosen["height"], chosen["width"]] == list(facts.get("input_size", (3, 64, 64))[1:])


@pytest.mark.parametrize("suffix", [".safetensors", ".bin"])
@pytest.mark.parametrize("keep", [0, 7, 0.5, 0.98])
def test_a_file_that_was_cut_short(suffix: str, keep: float, folder: Path) -> None:
    path = folder / "model.safetensors"
    if suffix == ".bin":
        torch.save(load_file(path), folder / "pytorch_model.bin")
        path.unlink()
        path = folder / "pytorch_model.bin"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep if keep > 1 else keep * len(data))])
    with pytest.raises(EncoderError, match="download or copy it again") as caught:
        load_encoder(f"timm:local-dir:{folder}")
    assert path.name in str(caught.value)
    with pytest.raises(EncoderError, match="download or copy it again"):
        load_encoder(f"timm:{TAGGED}?weights={path.rename(folder.parent / path.name)}")


def test_weights_of_another_architecture(folder: Path, folders: dict[str, Path]) -> None:
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read as the weights asked for"):
        load_encoder(
            f"timm:{TAGGED}?weights={folders['squash'] / 'model.safetensors'}".replace(TAGGED, "test_vit.r160_in1k")
        )
    with pytest.raises(EncoderError, match=f"describes {TIMM}, not test_vit"):
        load_encoder(f"timm:test_vit?weights={folder}")


def test_incomplete_weights(folder: Path) -> None:
    tensors = load_file(folder / "model.safetensors")
    del tensors["conv_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(EncoderError, match=r"conv_head\.weight"):
        load_encoder(f"timm:local-dir:{folder}")


def test_code_in_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    class Trap:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (tmp_path / "ran",)

    torch.save({"state_dict": Trap()}, tmp_path / "trap.pth")
    with pytest.raises(EncoderError, match=r"trap\.pth cannot be read"):
        load_encoder(f"timm:{TAGGED}?weights={tmp_path / 'trap.pth'}")
    assert not (tmp_path / "ran").exists()


def test_names_and_places_that_do_not_exist(tmp_path: Path) -> None:
    for name, said in ((f"timm:{TIMM}.r160_in2k", "r160_in1k"), ("timm:resnt50", "resnet50")):
        with pytest.raises(UnknownName, match=said):
            load_encoder(name)
    for name in (f"timm:local-dir:{tmp_path / 'nowhere'}", f"timm:{TAGGED}?weights={tmp_path / 'nowhere'}"):
        with pytest.raises(EncoderError, match="nowhere"):
            load_encoder(name)
    with pytest.raises(UsageError, match="revision"):
        load_encoder(f"timm:{TAGGED}@main?weights={tmp_path}")
    with pytest.raises(UsageError, match="seed goes with weights=random"):
        load_encoder(f"timm:{TAGGED}?seed=1")


def test_several_weight_files_are_not_chosen_from(folder: Path) -> None:
    first = (folder / "model.safetensors").rename(folder / "a.safetensors")
    (folder / "b.safetensors").write_bytes(first.read_bytes())
    with pytest.raises(EncoderError, match=r"a\.safetensors, b\.safetensors"):
        load_encoder(f"timm:local-dir:{folder}")
    assert load_encoder(f"timm:local-dir:{folder}?weights={first}").space.dim > 0


def test_a_size_that_the_model_cannot_take() -> None:
    with pytest.raises(EncoderError, match=r"cannot (encode|build)"):
        load_encoder("timm:vit_tiny_patch16_224?weights=random&image_size=8")


@pytest.mark.parametrize("device", ["cuda:99", "tpu", "cuda:x"])
def test_a_device_that_is_not_here(device: str, folder: Path) -> None:
    with pytest.raises(UsageError, match="device"):
        load_encoder(f"timm:local-dir:{folder}", device=device)
