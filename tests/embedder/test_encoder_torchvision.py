"""torchvision encoders against torchvision's own transforms and forward pass; weights that are wrong or not there."""

from __future__ import annotations

import hashlib
import socket
import threading
import time
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from numpy.typing import NDArray
from PIL import Image
from torchvision.models import DenseNet, SwinTransformer, VisionTransformer, get_model, get_model_weights, list_models

from embedder import naming
from embedder.encoder import load_encoder
from embedder.encoders import _torchvision_model
from embedder.encoders import torchvision as kind
from embedder.encoders._torch import frozen
from embedder.encoders._torchvision_layers import cut
from embedder.errors import EncoderError, MissingFact, UnknownName, UsageError
from tests.checkpoints import shake, torchvision_file

pytestmark = pytest.mark.usefixtures("pillows_resize")

SIZES = ((300, 220), (200, 501), (64, 64), (257, 240))
SMALL = {"shufflenet_v2_x0_5": {}, "squeezenet1_1": {}, "mobilenet_v3_small": {}}
TAGS = [w for model in list_models(module=torchvision.models) for w in get_model_weights(model)]
PRESETS = list({repr(tag.transforms()): tag for tag in TAGS}.values())


def pictures() -> list[Image.Image]:
    generator = np.random.default_rng(5)
    return [
        Image.fromarray(generator.integers(0, 256, (8, 8, 3), dtype=np.uint8)).resize(size, Image.Resampling.BICUBIC)
        for size in SIZES
    ]


def classifier_input(model: Any, tag: Any) -> NDArray[np.float32]:
    """What torchvision's own model, with its own transforms, hands to its last layer."""
    kinds = torch.nn.Linear if any(isinstance(m, torch.nn.Linear) for m in model.modules()) else torch.nn.Conv2d
    last = [module for module in model.modules() if isinstance(module, kinds)][-1]
    return seen(model, tag, last, before=True)


def seen(model: Any, tag: Any, module: Any, *, before: bool = False) -> NDArray[np.float32]:
    kept: list[torch.Tensor] = []
    hooks = [
        module.register_forward_pre_hook(lambda _, given: kept.append(given[0])) if before
        else module.register_forward_hook(lambda _m, _g, out: kept.append(out))
    ]  # fmt: skip
    with torch.inference_mode():
        model.eval()(torch.stack([tag.transforms()(picture) for picture in pictures()]))
    hooks[0].remove()
    return kept[0].numpy()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("torchvision")
    return {model: torchvision_file(folder, model) for model in SMALL}


@pytest.mark.parametrize("tag", PRESETS, ids=lambda tag: f"{type(tag).__name__}.{tag.name}")
def test_every_preset_of_the_library_is_reproduced(tag: Any) -> None:
    transform = _torchvision_model.transform_of(tag, naming.parse("torchvision:any"))
    mean, std = np.array(transform.mean, np.float32), np.array(transform.std, np.float32)
    for picture in pictures():
        found = (transform.pixels(picture).astype(np.float32) / 255 - mean) / std
        expected = tag.transforms()(picture).permute(1, 2, 0).numpy()
        assert np.abs(found - expected).max() < 1e-4


@pytest.mark.parametrize("model", SMALL)
def test_equals_torchvision_alone_and_in_a_batch(model: str, files: dict[str, Path]) -> None:
    tag = get_model_weights(model)["IMAGENET1K_V1"]
    own = get_model(model, weights=None)
    own.load_state_dict(torch.load(files[model], weights_only=True))
    expected = classifier_input(own, tag)
    expected = expected.mean((2, 3)) if expected.ndim == 4 else expected
    encoder = load_encoder(f"torchvision:{model}/IMAGENET1K_V1?normalize=false&weights={files[model]}", device="cpu")
    for batch_size in (1, 4):
        found = encoder.encode(pictures(), batch_size=batch_size)
        assert np.allclose(found, expected, rtol=1e-3, atol=1e-4)
    assert encoder.space.provenance["licence"] == "unknown"
    assert encoder.space.identity["weights"] == {"sha256": hashlib.sha256(files[model].read_bytes()).hexdigest()}


def test_untrained_alexnet_is_torchvisions_own_from_that_seed() -> None:
    encoder = load_encoder("torchvision:alexnet/IMAGENET1K_V1?weights=random&seed=3&normalize=false", device="cpu")
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = get_model("alexnet", weights=None)
    expected = classifier_input(model, get_model_weights("alexnet")["IMAGENET1K_V1"])
    assert encoder.space.dim == 4096
    assert np.allclose(encoder.encode(pictures()), expected, rtol=1e-3, atol=1e-5)
    assert encoder.space.identity["weights"] == {"random": 3}


def test_googlenet_reads_its_auxiliary_heads_and_transforms_its_input(tmp_path: Path) -> None:
    tag = get_model_weights("googlenet")["IMAGENET1K_V1"]
    arguments = {"transform_input": True, "aux_logits": True, "init_weights": False}
    file = torchvision_file(tmp_path, "googlenet", **arguments)
    own = get_model("googlenet", weights=None, **arguments)
    own.load_state_dict(torch.load(file, weights_only=True))
    encoder = load_encoder(f"torchvision:googlenet/IMAGENET1K_V1?normalize=false&weights={file}", device="cpu")
    assert np.allclose(encoder.encode(pictures()), classifier_input(own, tag), rtol=1e-3, atol=1e-4)


def test_layers_are_nodes_of_the_graph(files: dict[str, Path]) -> None:
    tag = get_model_weights("shufflenet_v2_x0_5")["IMAGENET1K_V1"]
    own = get_model("shufflenet_v2_x0_5", weights=None)
    own.load_state_dict(torch.load(files["shufflenet_v2_x0_5"], weights_only=True))
    maps = seen(own, tag, own.conv5[0])
    base = f"torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1?normalize=false&weights={files['shufflenet_v2_x0_5']}"
    for options, expected in (
        ("layer=conv5.0", maps.mean((2, 3))), ("layer=conv5.0&pooling=max", maps.max((2, 3))),
        ("layer=conv5.0&pooling=none", maps.reshape(len(maps), -1)), ("layer=fc", seen(own, tag, own.fc)),
    ):  # fmt: skip
        encoder = load_encoder(f"{base}&{options}", device="cpu")
        assert np.allclose(encoder.encode(pictures()), expected, rtol=1e-3, atol=1e-4), options
        assert encoder.space.identity["layer"] == options.partition("&")[0].removeprefix("layer=")
    assert load_encoder(f"{base}&layer=conv5", device="cpu").space.identity["layer"] == "conv5.2"


def features(model: Any, layer: str, pooling: str, batch: torch.Tensor) -> NDArray[np.float32]:
    name = naming.parse(f"torchvision:any?layer={layer}&pooling={pooling}")
    model = frozen(model, torch.device("cpu"), "float32")
    with torch.inference_mode():
        return cut(name, model, lambda tried: tried(batch))[0](batch).numpy()


def test_class_tokens_are_apart_from_the_positions() -> None:
    model = shake(VisionTransformer(32, 16, 2, 2, 16, 24), 0).eval()
    batch = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    kept: list[torch.Tensor] = []
    model.encoder.ln.register_forward_hook(lambda _m, _g, out: kept.append(out))
    with torch.inference_mode():
        model(batch)
    tokens = kept[0].numpy()
    assert tokens.shape == (3, 5, 16)
    for pooling, expected in (("cls", tokens[:, 0]), ("mean", tokens[:, 1:].mean(1)), ("max", tokens[:, 1:].max(1))):
        assert features(model, "encoder.ln", pooling, batch) == pytest.approx(expected, abs=1e-5)


def test_maps_with_channels_last_are_pooled_over_their_positions() -> None:
    model = shake(SwinTransformer([4, 4], 8, [1, 1], [2, 2], [4, 4]), 0).eval()
    batch = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = model.norm(model.features(batch)).numpy()
        first = model.features[0][0](batch).numpy()
    assert (maps.shape, first.shape) == ((2, 4, 4, 16), (2, 8, 8, 8))
    assert features(model, "norm", "mean", batch) == pytest.approx(maps.mean((1, 2)), abs=1e-5)
    assert features(model, "permute", "max", batch) == pytest.approx(maps.max((1, 2)), abs=1e-5)
    assert features(model, "features.0.0", "mean", batch) == pytest.approx(first.mean((2, 3)), abs=1e-5)


def test_older_names_of_densenet_are_read(tmp_path: Path) -> None:
    model = shake(DenseNet(4, (2, 2), 8), 0)
    old = {
        key.replace("norm1", "norm.1").replace("conv1", "conv.1").replace("norm2", "norm.2").replace("conv2", "conv.2"):
        value for key, value in model.state_dict().items()
    }  # fmt: skip
    torch.save(old, tmp_path / "old.pth")
    again = DenseNet(4, (2, 2), 8)
    _torchvision_model.fill(again, tmp_path / "old.pth")
    assert all(torch.equal(value, again.state_dict()[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("name", "error", "said"),
    [
        ("resnet81/IMAGENET1K_V1", UnknownName, "resnet18"),
        ("resnet50/IMAGENET1K_V3", UnknownName, "IMAGENET1K_V2"),
        ("resnet50", MissingFact, "resnet50/IMAGENET1K_V1, resnet50/IMAGENET1K_V2"),
        ("resnet50/IMAGENET1K_V1@main", UsageError, "no revisions"),
        ("resnet50/IMAGENET1K_V1?weights=/nowhere.pth", EncoderError, "no file or folder"),
        ("shufflenet_v2_x0_5/IMAGENET1K_V1?weights=random&layer=conv6", UnknownName, "conv5"),
        ("shufflenet_v2_x0_5/IMAGENET1K_V1?weights=random&pooling=max", UsageError, "goes with layer"),
        ("shufflenet_v2_x0_5/IMAGENET1K_V1?weights=random&layer=fc&pooling=max", UsageError, "nothing to pool"),
        ("shufflenet_v2_x0_5/IMAGENET1K_V1?weights=random&layer=conv5.2&pooling=cls", UsageError, "class token"),
        ("shufflenet_v2_x0_5/IMAGENET1K_V1?weights=random&layer=conv5.2&pooling=gem", UsageError, "one of mean"),
    ],
)
def test_what_does_not_exist_is_refused(name: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        load_encoder(f"torchvision:{name}", device="cpu")


def test_weights_that_are_damaged_or_of_another_model(files: dict[str, Path], tmp_path: Path) -> None:
    data = files["squeezenet1_1"].read_bytes()
    for keep in (0, 1000, len(data) // 2, len(data) - 1):
        (tmp_path / "cut.pth").write_bytes(data[:keep])
        with pytest.raises(EncoderError, match=r"cut\.pth cannot be read"):
            load_encoder(f"torchvision:squeezenet1_1/IMAGENET1K_V1?weights={tmp_path / 'cut.pth'}", device="cpu")
    for other in ("squeezenet1_0", "mobilenet_v3_small"):
        with pytest.raises(EncoderError, match=r"squeezenet1_1\.pth cannot be read as the weights asked for"):
            load_encoder(f"torchvision:{other}/IMAGENET1K_V1?weights={files['squeezenet1_1']}", device="cpu")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def site(tmp_path: Path, files: dict[str, Path]) -> Iterator[str]:
    """A web site with a weight file under its right name, and one under a wrong one."""
    data, folder = files["squeezenet1_1"].read_bytes(), tmp_path / "site"
    folder.mkdir()
    (folder / f"squeezenet1_1-{hashlib.sha256(data).hexdigest()[:8]}.pth").write_bytes(data)
    (folder / "squeezenet1_1-00000000.pth").write_bytes(data)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()


def use(monkeypatch: pytest.MonkeyPatch, url: str) -> str:
    monkeypatch.setattr(type(get_model_weights("squeezenet1_1")["IMAGENET1K_V1"]), "url", url)
    return "torchvision:squeezenet1_1/IMAGENET1K_V1"


def test_weights_are_downloaded_once_and_checked(
    cache: Path, site: str, files: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    digest = hashlib.sha256(files["squeezenet1_1"].read_bytes()).hexdigest()
    name = use(monkeypatch, f"{site}/squeezenet1_1-{digest[:8]}.pth")
    assert load_encoder(name, device="cpu").space.identity["weights"] == {"sha256": digest}
    (cached,) = cache.iterdir()
    cached.write_bytes(cached.read_bytes()[:-100])
    assert load_encoder(name, device="cpu").space.identity["weights"] == {"sha256": digest}
    use(monkeypatch, f"http://127.0.0.1:1/squeezenet1_1-{digest[:8]}.pth")
    assert load_encoder(name, device="cpu").space.identity["weights"] == {"sha256": digest}
    assert capsys.readouterr().out == "", "a document may go to stdout"


def test_a_download_with_another_hash_is_refused(cache: Path, site: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(EncoderError, match="hash"):
        load_encoder(use(monkeypatch, f"{site}/squeezenet1_1-00000000.pth"), device="cpu")
    assert list(cache.glob("*.pth")) == []


def test_without_a_network_the_bundled_encoder_is_named_in_seconds(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        for port in (1, silent.getsockname()[1]):
            name = use(monkeypatch, f"http://127.0.0.1:{port}/squeezenet1_1-b8a52dc0.pth")
            started = time.monotonic()
            with pytest.raises(EncoderError, match="cannot be downloaded") as caught:
                load_encoder(name, device="cpu")
            assert time.monotonic() - started < 30
            assert "bundled:efficientnet_lite0" in caught.value.hint


def test_every_name_of_the_catalogue_can_be_looked_up() -> None:
    assert len(kind.catalogue()) == len(TAGS)
    for text in kind.catalogue():
        tag = kind.declared(naming.parse(text))
        assert text == f"torchvision:{naming.parse(text).name.partition('/')[0]}/{tag.name}"
