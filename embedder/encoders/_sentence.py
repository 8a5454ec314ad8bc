"""A sentence-transformers folder as an encoder: its whole chain of modules, in the order in which it declares them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from torch import Tensor

from embedder.encoder import Encoder, TextTower
from embedder.encoders import _files
from embedder.encoders._common import Settings, describe, index, prompts, versions
from embedder.encoders._torch import as_numpy, device_of, frozen, own_rng, width_of
from embedder.errors import EncoderError, UsageError
from embedder.naming import EncoderName
from embedder.records import Role

POOLINGS = {"mean": "mean", "cls": "cls", "max": "max", "last": "lasttoken"}
CHARS_PER_TOKEN = 64
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt")


@dataclass(frozen=True)
class Chain:
    """The modules to run. `layer` is the hidden state that the pooling reads, 0 being the embeddings."""

    model: Any
    modules: tuple[Any, ...]
    layer: int
    last: int
    device: torch.device
    pad: int

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Encode lists of token ids; short ones are padded and masked."""
        features: dict[str, Any] = dict(zip(("input_ids", "attention_mask"), self._padded(rows), strict=True))
        if self.layer == self.last:
            features = self.modules[0](features)
        else:
            states = self.model(**features, output_hidden_states=True, return_dict=True).hidden_states
            features["token_embeddings"] = states[self.layer]
        for module in self.modules[1:]:
            features = module(features)
        return as_numpy(features["sentence_embedding"])

    def _padded(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        shape = (len(rows), max(len(row) for row in rows))
        ids = torch.full(shape, self.pad, dtype=torch.long)
        mask = torch.zeros(shape, dtype=torch.long)
        for i, row in enumerate(rows):
            ids[i, : len(row)] = torch.tensor(row)
            mask[i, : len(row)] = 1
        return ids.to(self.device), mask.to(self.device)


def load(
    name: EncoderName,
    chosen: Settings,
    folder: Path,
    weights: Sequence[Path],
    architecture: str,
    provenance: dict[str, Any],
    device: str,
) -> Encoder:
    """Load a folder, or the same architecture untrained.

    Args:
        weights: the weight files that the folder's modules read; they are the Space's weights.

    Raises:
        EncoderError: the folder is damaged.
        UsageError: an option that this model cannot follow.
    """
    where = device_of(device)
    sentence = _built(folder, chosen)
    tokenizer = sentence.tokenizer
    longest = int(sentence[0].model.config.max_position_embeddings)
    limit = name.integer("max_length", None, low=3, high=longest) or int(sentence.max_seq_length)
    frozen(sentence, where, chosen.dtype)
    chain, pooling = _chain(name, chosen, sentence, where)
    prompt = prompts(name)

    def tokenize(text: str, role: Role) -> list[int]:
        ids: list[int] = tokenizer(prompt[role] + text, truncation=True, max_length=limit)["input_ids"]
        return ids

    facts = {
        "max_length": limit, "sha256": _files.fingerprint(_tokenizer_files(folder), folder),
        **{f"{role}_prompt": text for role, text in prompt.items()},
    }  # fmt: skip
    space = describe(
        name, chosen, dim=width_of(chain, tokenize("dimension", "document"), str(name)), architecture=architecture,
        weights={"random": chosen.seed} if chosen.seed is not None else {"sha256": _files.fingerprint(weights, folder)},
        layer=chain.layer, pooling=pooling, text=facts,
        provenance={
            **provenance, "files": _files.listed(weights) if chosen.seed is None else [],
            "versions": versions("sentence-transformers", "transformers", "tokenizers", "torch"),
        },
    )  # fmt: skip
    return Encoder(name, space, str(where), text=TextTower(tokenize, len, chain, CHARS_PER_TOKEN * limit))


def _built(folder: Path, chosen: Settings) -> Any:
    try:
        with own_rng(chosen.seed), _quiet():
            sentence = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
            if chosen.seed is not None:
                from transformers import AutoModel

                torch.default_generator.manual_seed(chosen.seed)
                sentence[0].model = AutoModel.from_config(sentence[0].model.config)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"{folder.name} cannot be loaded as a sentence-transformers model: {reason}",
            where=str(folder), hint="if a file is cut short or damaged, download or install it again",
        ) from error  # fmt: skip
    return sentence


def _chain(name: EncoderName, chosen: Settings, sentence: Any, where: torch.device) -> tuple[Chain, str]:
    """Cut the chain at `layer`, exchange its pooling, and leave out its normalising for `normalize=false`."""
    last = int(sentence[0].model.config.num_hidden_layers)
    layer = index(name, last + 1)
    modules = [m for m in sentence if chosen.normalize or not isinstance(m, Normalize)]
    at = next((i for i, m in enumerate(modules) if isinstance(m, Pooling)), None)
    if at is None:
        raise UsageError("this model has no pooling module", where=str(name))
    declared = {v: k for k, v in POOLINGS.items()}.get(str(modules[at].pooling_mode), str(modules[at].pooling_mode))
    pooling = name.choice("pooling", declared, {*POOLINGS, declared})
    if pooling != declared:
        modules[at] = Pooling(modules[at].embedding_dimension, POOLINGS[pooling])
    pad = int(sentence.tokenizer.pad_token_id or 0)
    chain = Chain(sentence[0].model, tuple(modules), last if layer is None else layer, last, where, pad)
    return chain, pooling


def _tokenizer_files(folder: Path) -> list[Path]:
    return [folder / file for file in TOKENIZER_FILES if (folder / file).is_file()]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the progress bars of transformers, which write into a user's terminal for every model."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
