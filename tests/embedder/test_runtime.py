"""Networks run by another library: the vectors of torch, for every kind, or a refusal that says why."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from embedder import golden, kinds, runtime
from embedder.encoder import Encoder, ImageTower
from embedder.encoders._torch import ImageForward
from embedder.errors import EncoderError, SpaceMismatch, UnknownName, UsageError
from embedder.records import FloatMatrix
from embedder.runtime import Steps, run_by
from embedder.runtimes import openvino
from embedder.together import load_encoders
from tests.checkpoints import RN_CFG, open_clip_folder, timm_folder, torchvision_file
from tests.parity import image_alone, open_clip_alone, sentence_alone, text_alone, timm_alone, worst_cosine
from tests.sentence import sentence_folder
from tests.tiny_transformers import image_folder, text_folder

ROOT = Path(__file__).resolve().parents[2]
RUNTIMES = ("onnx", "openvino")
TEXTS = ("frost", "two words", "a much longer sentence in the snow, which goes on about 42 dogs and their number", "!")


def opened(name: str, by: str) -> Encoder:
    return load_encoders([name], device="cpu", runtime=by)[0]


@pytest.fixture(scope="module")
def pictures() -> list[Image.Image]:
    rng = np.random.default_rng(3)
    return [Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)) for _ in range(5)]


@pytest.fixture(scope="module", params=RUNTIMES)
def by(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_every_file_is_tried_here() -> None:
    assert tuple(kinds.names(runtime.FOLDER)) == RUNTIMES


@pytest.mark.parametrize("architecture", ["test_efficientnet", "test_vit"])
def test_timm_models_are_the_librarys(architecture: str, by: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    spec = f"local-dir:{timm_folder(tmp_path / 'model', architecture)}"
    encoder = opened(f"timm:{spec}", by)
    assert encoder.runtime == by
    assert worst_cosine(encoder.encode(pictures, batch_size=3), timm_alone(spec, pictures)) > 0.9999


def test_layers_and_poolings_are_cut_as_in_torch(by: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    file = torchvision_file(tmp_path, "shufflenet_v2_x0_5")
    names = [
        f"torchvision:shufflenet_v2_x0_5/IMAGENET1K_V1?weights={file}&image_size=64&layer=conv5.2&pooling=max",
        f"timm:local-dir:{timm_folder(tmp_path / 'model', 'test_vit')}?layer=-2&pooling=cls&normalize=false",
        f"transformers:{image_folder(tmp_path / 'vit', 'vit')}?layer=1&pooling=mean",
    ]
    for name in names:
        other, plain = opened(name, by).encode(pictures), opened(name, "torch").encode(pictures)
        np.testing.assert_allclose(other, plain, rtol=1e-3, atol=1e-4)


def test_transformers_pictures_are_the_librarys(by: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    folder = image_folder(tmp_path / "model", "dinov2")
    found = opened(f"transformers:{folder}", by).encode(pictures)
    assert worst_cosine(found, image_alone(folder, pictures, "cls", 1)) > 0.9999


@pytest.mark.parametrize("family", ["bert", "roberta", "gpt2", "llama", "falcon"])
def test_language_models_are_the_librarys_at_every_length(family: str, by: str, tmp_path: Path) -> None:
    folder = text_folder(tmp_path / "model", family)
    pooling = "mean" if family in ("bert", "roberta") else "last"
    found = opened(f"transformers:{folder}", by).encode(TEXTS, batch_size=3)
    assert worst_cosine(found, text_alone(folder, TEXTS, pooling)) > 0.9999


def test_a_whole_chain_is_the_librarys(by: str, tmp_path: Path) -> None:
    folder = sentence_folder(tmp_path / "model")
    name = f"sentence_transformers:{folder}"
    assert worst_cosine(opened(name, by).encode(TEXTS), sentence_alone(folder, TEXTS)) > 0.9999
    cut = f"{name}?layer=1&pooling=cls&dimensions=8"
    np.testing.assert_allclose(opened(cut, by).encode(TEXTS), opened(cut, "torch").encode(TEXTS), rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("vision", [{}, RN_CFG])
def test_both_towers_of_open_clip_are_the_librarys(
    vision: dict[str, Any], by: str, tmp_path: Path, pictures: list[Image.Image]
) -> None:
    folder = open_clip_folder(tmp_path / "model", **({"vision": vision} if vision else {}))
    encoder = opened(f"open_clip:local-dir:{folder}", by)
    seen, read = open_clip_alone(folder, pictures, TEXTS)
    assert worst_cosine(encoder.encode(pictures), seen) > 0.9999
    assert worst_cosine(encoder.encode(TEXTS), read) > 0.9999


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_keeps_weights_in_their_order(dtype: str, tmp_path: Path, pictures: list[Image.Image]) -> None:
    name = f"timm:local-dir:{timm_folder(tmp_path / 'model', 'test_vit')}?dtype={dtype}"
    assert worst_cosine(opened(name, "openvino").encode(pictures), opened(name, "torch").encode(pictures)) > 0.999


def test_onnx_on_a_cpu_refuses_bfloat16(tmp_path: Path) -> None:
    with pytest.raises(EncoderError, match="onnx cannot run") as caught:
        opened(f"timm:local-dir:{timm_folder(tmp_path / 'model')}?dtype=bfloat16", "onnx")
    assert "--runtime torch" in caught.value.hint


def unexportable(x: torch.Tensor) -> torch.Tensor:
    """Features (n, 27) by a decomposition that no exporter has."""
    return torch.linalg.qr(x[:, :, :3, :3])[1].flatten(1)


@pytest.fixture
def plain(tmp_path: Path) -> Encoder:
    return opened(f"timm:local-dir:{timm_folder(tmp_path / 'model')}", "torch")


def with_network(plain: Encoder, features: Callable[[Any], Any]) -> Encoder:
    tower = plain.image
    assert isinstance(tower, ImageTower)
    assert isinstance(tower.forward, ImageForward)
    return replace(plain, image=replace(tower, forward=replace(tower.forward, features=features)))


Change = Callable[[FloatMatrix], FloatMatrix]


def tampered(monkeypatch: pytest.MonkeyPatch, change: Change) -> None:
    """Let OpenVINO give other features than it computes."""
    compile = openvino.compile

    def wrong(*given: Any) -> Any:
        run = compile(*given)
        return lambda *inputs: change(run(*inputs))

    monkeypatch.setattr(openvino, "compile", wrong)


def test_other_vectors_are_refused_with_the_cosines_of_both_towers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tampered(monkeypatch, lambda rows: np.roll(rows, 1, axis=1))
    name = f"open_clip:local-dir:{open_clip_folder(tmp_path / 'model')}"
    with pytest.raises(SpaceMismatch, match=r"image cosine -?0\.\d{6}.*text cosine -?0\.\d{6}") as caught:
        opened(name, "openvino")
    assert "0.9999" in caught.value.hint
    assert opened(name, "torch").runtime == "torch"


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: rows * 1.05,
        lambda rows: rows * np.nan,
        lambda rows: rows[:, ::-1] if len(rows) == 1 else rows,
    ],
    ids=["longer", "not a number", "only where a batch is of one"],
)  # fmt: skip
def test_what_a_mean_would_hide_is_seen(change: Change, plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    tampered(monkeypatch, change)
    lengths = replace(plain, space=replace(plain.space, identity={**plain.space.identity, "normalize": False}))
    with pytest.raises(SpaceMismatch):
        run_by("openvino", lengths)


def test_auto_takes_the_fastest_that_agrees(plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"torch": 3.0, "onnx": 2.0, "openvino": 1.0}
    monkeypatch.setattr(runtime, "_seconds", lambda encoder: seconds[encoder.runtime])
    assert run_by("auto", plain).runtime == "openvino"
    seconds |= {"openvino": 2.5}
    assert run_by("auto", plain).runtime == "onnx"
    tampered(monkeypatch, lambda rows: rows[:, ::-1])
    seconds |= {"openvino": 0.1, "onnx": 2.9}
    assert run_by("auto", plain).runtime == "torch"


def test_auto_measures_what_is_run(plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that waits in every pass is never the fastest."""

    def slow(rows: FloatMatrix) -> FloatMatrix:
        time.sleep(0.5)
        return rows

    tampered(monkeypatch, slow)
    assert runtime._seconds(run_by("openvino", plain)) > 0.5
    assert run_by("auto", plain).runtime != "openvino"


def test_auto_falls_back_and_says_why(plain: Encoder, caplog: pytest.LogCaptureFixture) -> None:
    odd = with_network(plain, unexportable)
    odd = replace(odd, space=replace(odd.space, dim=27))
    caplog.set_level("INFO", "permafrost.runtime")
    with pytest.raises(EncoderError, match="openvino cannot run") as caught:
        run_by("openvino", odd)
    assert "auto" in caught.value.hint
    assert run_by("auto", odd).runtime == "torch"
    assert "is not run by openvino: " in caplog.text
    assert "is not run by onnx: " in caplog.text


def test_auto_stays_with_torch_on_a_gpu_and_for_a_shared_model(plain: Encoder, tmp_path: Path) -> None:
    assert run_by("auto", replace(plain, device="cuda:0")).runtime == "torch"
    with pytest.raises(UsageError, match="runs on cpu only"):
        run_by("openvino", replace(plain, device="cuda:0"))
    base = f"timm:local-dir:{timm_folder(tmp_path / 'other')}"
    both = load_encoders([base, f"{base}?pooling=max"], device="cpu", runtime="auto")
    assert [encoder.runtime for encoder in both] == ["torch", "torch"]


def test_each_of_several_encoders_of_a_model_is_run_by_what_was_asked(
    tmp_path: Path, pictures: list[Image.Image]
) -> None:
    base = f"timm:local-dir:{timm_folder(tmp_path / 'model')}"
    names = [base, f"{base}?pooling=max"]
    found, wanted = (load_encoders(names, device="cpu", runtime=one) for one in ("openvino", "torch"))
    assert [encoder.runtime for encoder in found] == ["openvino", "openvino"]
    for one, other in zip(found, wanted, strict=True):
        assert worst_cosine(one.encode(pictures), other.encode(pictures)) > 0.9999


def test_an_encoder_without_a_network_is_left_alone(by: str) -> None:
    assert opened("hashing:64", by).runtime == "torch"


def test_a_wrong_or_missing_runtime_is_named_before_anything_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownName, match="openvinno") as caught:
        load_encoders(["timm:local-dir:/nowhere"], runtime="openvinno")
    assert "openvino" in caught.value.hint
    monkeypatch.setattr(runtime, "find_spec", lambda module: None if module == "openvino" else module)
    with pytest.raises(UsageError, match="openvino, which the runtime openvino needs, is not installed") as missing:
        load_encoders(["timm:local-dir:/nowhere"], runtime="openvino")
    assert "pip install 'permafrost[openvino]'" in missing.value.hint


def test_the_torch_weights_are_let_go(plain: Encoder) -> None:
    forward: Any = run_by("openvino", plain).tower("image").forward
    assert not isinstance(forward, Steps)
    assert not hasattr(forward.inputs, "features")


def test_a_stored_golden_vector_is_compared_with_the_runtimes(plain: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = golden.pack(golden.vectors(plain))
    golden.check(run_by("openvino", plain), stored)
    tampered(monkeypatch, lambda rows: rows[:, ::-1])
    monkeypatch.setattr(runtime, "_require_equal", lambda *_: None)
    with pytest.raises(SpaceMismatch, match="no longer makes") as caught:
        golden.check(run_by("openvino", plain), stored)
    assert "runtime openvino" in str(caught.value.where)


def test_openvino_is_imported_without_its_telemetry() -> None:
    code = (
        "import sys; from embedder.runtimes.openvino import _library; tools = _library().tools.ovc; "
        "assert not [name for name in sys.modules if name.startswith('openvino_telemetry')]; "
        "print(tools.telemetry_utils.tm.__name__)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "openvino.tools.ovc.telemetry_stub"


def test_what_auto_would_try_is_known_before_it_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoders(["hashing:8"])[0]
    assert runtime.others(encoder, "text") == ()

    class Plain:
        inputs = None

        def network(self, *tensors: object) -> None: ...

        def __call__(self, prepared: object) -> None: ...

    assert encoder.text is not None
    stepped = replace(encoder, text=replace(encoder.text, forward=Plain()))  # type: ignore[arg-type]
    monkeypatch.setattr(runtime, "_installed", lambda kind: kind == "openvino")
    assert runtime.others(stepped, "text") == ("openvino",)
    assert runtime.others(replace(stepped, runtime="onnx"), "text") == ()
    assert runtime.others(replace(stepped, device="cuda:0"), "text") == ()
