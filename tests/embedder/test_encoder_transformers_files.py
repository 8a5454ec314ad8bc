"""Checkpoints of transformers as files: whole, in parts, damaged, of other sorts, on the hub, and without one."""

from __future__ import annotations

import json
import pickle
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from huggingface_hub import constants
from huggingface_hub.errors import EntryNotFoundError
from safetensors.torch import load_file, save_file

from embedder.encoder import Encoder, load_encoder
from embedder.encoders import _hub
from embedder.errors import EncoderError, MissingFact, UsageError
from tests.parity import opened, text_alone
from tests.tiny_transformers import text_folder

TEXTS = ("frost", "a longer text, to be padded beside")
COMMIT = "c0" * 20


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return text_folder(tmp_path_factory.mktemp("bert"), "bert")


@pytest.fixture
def copy(bert: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(bert, tmp_path / "copy"))


def load(folder: Path, options: str = "") -> Encoder:
    return load_encoder(f"transformers:{folder}{'?' if options else ''}{options}", device="cpu")


def test_weights_in_parts_are_the_same_model(bert: Path, tmp_path: Path) -> None:
    tokenizer, model = opened(bert)
    tokenizer.save_pretrained(str(tmp_path))
    model.save_pretrained(str(tmp_path), max_shard_size="20KB")
    parts = sorted(tmp_path.glob("model-*.safetensors"))
    assert len(parts) > 2
    encoder = load(tmp_path)
    assert np.array_equal(encoder.encode(TEXTS), load(bert).encode(TEXTS))
    assert [file["name"] for file in encoder.space.provenance["files"]] == [part.name for part in parts]
    first = encoder.space.identity["weights"]["sha256"]
    tensors = load_file(parts[-1])
    save_file({key: tensor + 1 for key, tensor in tensors.items()}, parts[-1])
    assert load(tmp_path).space.identity["weights"]["sha256"] != first
    parts[-1].unlink()
    with pytest.raises(EncoderError, match=f"{parts[-1].name} is missing"):
        load(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"x": "../elsewhere"}}))
    with pytest.raises(EncoderError, match="is no index of weights"):
        load(tmp_path)


def test_a_bin_file_is_read_as_tensors_only(copy: Path, bert: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    (copy / "model.safetensors").unlink()
    torch.save(tensors, copy / "pytorch_model.bin")
    assert np.array_equal(load(copy).encode(TEXTS), load(bert).encode(TEXTS))

    class Runs:
        def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
            return Path.touch, (copy / "it ran",)

    (copy / "pytorch_model.bin").write_bytes(pickle.dumps({"weight": Runs()}))
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin cannot be read"):
        load(copy)
    torch.save({"weight": Runs()}, copy / "pytorch_model.bin")
    with pytest.raises(EncoderError, match=r"pytorch_model\.bin cannot be read"):
        load(copy)
    assert not (copy / "it ran").exists()


@pytest.mark.parametrize("keep", [0.0, 0.01, 0.5, 0.999])
def test_weights_that_are_cut_short(keep: float, copy: Path) -> None:
    file = copy / "model.safetensors"
    file.write_bytes(file.read_bytes()[: int(file.stat().st_size * keep)])
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read") as caught:
        load(copy)
    assert "bytes" in caught.value.where
    assert "download" in caught.value.hint


@pytest.mark.parametrize("sort", ["a tensor less", "another shape", "other names"])
def test_weights_that_do_not_fit(sort: str, copy: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    key = "encoder.layer.1.attention.self.query.weight"
    if sort == "a tensor less":
        del tensors[key]
    elif sort == "another shape":
        tensors[key] = tensors[key][:7].clone()
    else:
        tensors = {f"x.{name}": tensor for name, tensor in tensors.items()}
    save_file(tensors, copy / "model.safetensors", {"format": "pt"})
    with pytest.raises(EncoderError, match=r"model\.safetensors cannot be read as the weights asked for"):
        load(copy)


def test_a_head_more_and_a_pooler_less_are_no_damage(copy: Path, bert: Path) -> None:
    tensors = load_file(copy / "model.safetensors")
    kept = {f"bert.{key}": tensor for key, tensor in tensors.items() if not key.startswith("pooler.")}
    save_file({**kept, "cls.predictions.bias": torch.zeros(3)}, copy / "model.safetensors", {"format": "pt"})
    assert np.array_equal(load(copy).encode(TEXTS), load(bert).encode(TEXTS))


def test_what_is_not_in_the_folder_is_named(copy: Path) -> None:
    for file, error, said in (
        ("model.safetensors", EncoderError, "holds no weights"),
        ("tokenizer.json", MissingFact, "holds no vocabulary"),
        ("config.json", EncoderError, r"config\.json cannot be read"),
    ):
        kept = (copy / file).read_bytes()
        (copy / file).unlink()
        with pytest.raises(error, match=said):
            load(copy)
        (copy / file).write_bytes(kept)
    (copy / "tokenizer.json").write_text("{")
    with pytest.raises(EncoderError, match="the tokenizer cannot be loaded"):
        load(copy)


def test_code_in_a_folder_is_never_run(copy: Path) -> None:
    config = json.loads((copy / "config.json").read_text())
    (copy / "mine.py").write_text(f"from pathlib import Path\nPath({str(copy / 'it ran')!r}).touch()\nclass C: pass\n")
    config["auto_map"] = {"AutoConfig": "mine.C", "AutoModel": "mine.C"}
    (copy / "config.json").write_text(json.dumps(config))
    assert load(copy).space.dim == 32, "the library's own class is used where there is one"
    (copy / "config.json").write_text(json.dumps({**config, "model_type": "mine"}))
    with pytest.raises(EncoderError, match="transformers cannot read this configuration") as caught:
        load(copy)
    assert "never run" in caught.value.hint
    assert not (copy / "it ran").exists()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"quantization_config": {"quant_method": "gptq", "bits": 4}}, "are quantised"),
        ({"model_type": "t5"}, "an encoder with a decoder"),
        ({"model_type": "wav2vec2"}, "neither texts nor pictures"),
        ({"model_type": "no-such-model"}, "cannot read this configuration"),
    ],
)
def test_models_of_other_sorts_are_refused(changed: dict[str, Any], said: str, copy: Path) -> None:
    own = {} if "model_type" in changed else json.loads((copy / "config.json").read_text())
    (copy / "config.json").write_text(json.dumps(own | changed))
    with pytest.raises(EncoderError, match=said):
        load(copy)


def test_a_sentence_transformers_folder_says_itself_how_to_pool(copy: Path, bert: Path) -> None:
    (copy / "modules.json").write_text("[]")
    with pytest.raises(UsageError, match="declares its own pooling") as caught:
        load(copy)
    assert "sentence_transformers:" in caught.value.hint
    assert np.array_equal(load(copy, "pooling=cls").encode(TEXTS), load(bert, "pooling=cls").encode(TEXTS))


def test_other_weights_for_the_same_configuration(bert: Path, tmp_path: Path) -> None:
    other = text_folder(tmp_path, "bert", seed=5)
    swapped = load(bert, f"weights={other / 'model.safetensors'}")
    assert np.array_equal(swapped.encode(TEXTS), load(other).encode(TEXTS))
    named = load_encoder(f"transformers:bert?weights={other}&normalize=false")
    assert named.encode(TEXTS) == pytest.approx(text_alone(other, TEXTS, "mean"), abs=1e-4)
    with pytest.raises(UsageError, match="holds a bert, not a gpt2"):
        load_encoder(f"transformers:gpt2?weights={other}")
    with pytest.raises(UsageError, match="a revision is of the hub"):
        load_encoder(f"transformers:me/mine@main?weights={other}")
    with pytest.raises(EncoderError, match="there is no file or folder"):
        load(bert, "weights=nowhere")


def test_hub_names_reach_the_hub_unchanged(bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, str, str | None]] = []
    snapshot = Path(shutil.copytree(bert, tmp_path / "snapshots" / COMMIT))

    def download(repo: str, file: str, *, revision: str | None = None, **_: Any) -> str:
        asked.append((repo, file, revision))
        if not (snapshot / file).is_file():
            raise EntryNotFoundError(file)
        return str(snapshot / file)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(_hub, "reachable", lambda: True)
    encoder = load_encoder("transformers:Some-Org/My_Model.v2@refs/pr/3")
    assert {repo for repo, _, _ in asked} == {"Some-Org/My_Model.v2"}
    assert asked[0] == ("Some-Org/My_Model.v2", "config.json", "refs/pr/3")
    assert {revision for _, _, revision in asked[1:]} == {COMMIT}, "one commit for all files"
    assert not {file for _, file, _ in asked if file.endswith((".py", ".bin"))}
    assert encoder.space.provenance["revision"] == COMMIT
    assert encoder.space.fingerprint == load(bert).space.fingerprint
    asked.clear()
    assert load_encoder("transformers:me/mine?weights=random").space.identity["weights"] == {"random": 0}
    assert asked[0] == ("me/mine", "config.json", None)
    assert not {file for _, file, _ in asked if file.startswith(("model", "pytorch_model"))}


def test_parts_on_the_hub_are_fetched_of_the_same_commit(
    bert: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote, cache = tmp_path / "remote", tmp_path / "snapshots" / COMMIT
    cache.mkdir(parents=True)
    tokenizer, model = opened(bert)
    tokenizer.save_pretrained(str(remote))
    model.save_pretrained(str(remote), max_shard_size="20KB")
    asked: list[str | None] = []

    def download(repo: str, file: str, *, revision: str | None = None, **_: Any) -> str:
        asked.append(revision)
        if not (remote / file).is_file():
            raise EntryNotFoundError(file)
        return str(shutil.copy(remote / file, cache / file))

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(_hub, "reachable", lambda: True)
    encoder = load_encoder("transformers:me/large@main")
    assert len(encoder.space.provenance["files"]) > 2
    assert asked[0] == "main"
    assert set(asked[1:]) == {COMMIT}
    assert np.array_equal(encoder.encode(TEXTS), load(bert).encode(TEXTS))


@pytest.mark.parametrize("name", ["google-bert/bert-base-uncased", f"meta-llama/Llama-3.2-1B@{COMMIT}"])
def test_without_a_hub_the_error_comes_soon_and_names_what_to_use(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    start = time.monotonic()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "google-bert" / "bert-base-uncased").mkdir(parents=True)
    with pytest.raises(EncoderError, match="no hub can be reached") as caught:
        load_encoder(f"transformers:{name}")
    assert ("is ./google-bert" in caught.value.hint) == name.startswith("google"), "a folder is not taken for the hub's"
    assert time.monotonic() - start < 30
    assert "bundled:minilm" in caught.value.hint
