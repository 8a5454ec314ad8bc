"""A sentence-transformers folder as an encoder: its whole chain of modules, in the order in which it declares them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
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
from embedder.encoders._common import Settings, describe, index, prompts, settings, versions, words_of
from embedder.encoders._modules import TOKENIZER
from embedder.encoders._torch import Padded, as_numpy, device_of, frozen, own_rng, width_of
from embedder.errors import EncoderError, UsageError
from embedder.naming import EncoderName
from embedder.records import Role
from embedder.shared import Shared

POOLINGS = {"mean": "mean", "cls": "cls", "max": "max", "last": "lasttoken"}
CHARS_PER_TOKEN = 64
MADE_BY = ("sentence-transformers", "transformers", "tokenizers", "torch")
MOST_TOKENS = 8192


@dataclass(frozen=True)
class Chain:
    """The modules to run. `layer` is the hidden state that the pooling reads, 0 being the embeddings.

    `dimensions` is how many components are kept of what comes out; None keeps all.
    """

    model: Any
    modules: tuple[Any, ...]
    layer: int
    last: int
    inputs: Padded
    dimensions: int | None = None

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Encode lists of token ids; short ones are padded and masked."""
        ids, mask = self.inputs(rows)
        if isinstance(rows, Shared):
            found = rows.once(self.model, lambda: self._states(ids, mask))
            return as_numpy(self._vectors({**_features(ids, mask), "token_embeddings": self._read(found)}))
        return as_numpy(self.network(ids, mask))

    def network(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return vectors (n, dim) of token ids (n, tokens) under their mask."""
        features = _features(ids, mask)
        if self.layer == self.last:
            return self._vectors(self.modules[0](features))
        return self._vectors({**features, "token_embeddings": self._read(self._states(ids, mask))})

    def _states(self, ids: Tensor, mask: Tensor) -> Any:
        return self.model(**_features(ids, mask), output_hidden_states=True, return_dict=True)

    def _vectors(self, features: dict[str, Any]) -> Tensor:
        for module in self.modules[1:]:
            features = module(features)
        vectors: Tensor = features["sentence_embedding"][:, : self.dimensions]
        return vectors

    def _read(self, found: Any) -> Tensor:
        states: Tensor = found.last_hidden_state if self.layer == self.last else found.hidden_states[self.layer]
        return states


def _features(ids: Tensor, mask: Tensor) -> dict[str, Any]:
    return {"input_ids": ids, "attention_mask": mask}


def load(
    names: Sequence[EncoderName],
    chosen: Settings,
    folder: Path,
    weights: Sequence[Path],
    architecture: str,
    provenance: dict[str, Any],
    device: str,
    *,
    dimensions: int | None = None,
    more: Mapping[str, Any] | None = None,
) -> list[Encoder]:
    """Load a folder once, or the same architecture untrained, for names that differ in what is read out of it.

    Args:
        weights: the weight files that the folder's modules read; they are the Space's weights.
        dimensions: how many of a vector's first components to keep (Matryoshka), before it is normalised.
        more: further facts that change vectors.

    Raises:
        EncoderError: the folder is damaged.
        UsageError: an option that this model cannot follow.
    """
    where = device_of(device)
    sentence = frozen(_built(folder, chosen), where, chosen.dtype)
    facts = {**(more or {}), **({"dimensions": dimensions} if dimensions is not None else {})}
    drawn = chosen.seed is not None
    weighed = {"random": chosen.seed} if drawn else {"sha256": _files.fingerprint(weights, folder)}
    told = {**provenance, "files": [] if drawn else _files.listed(weights), "versions": versions(*MADE_BY)}
    return [_wrap(name, settings(name), sentence, folder, architecture, weighed, told, facts) for name in names]


def _wrap(
    name: EncoderName,
    chosen: Settings,
    sentence: Any,
    folder: Path,
    architecture: str,
    weights: Mapping[str, Any],
    provenance: Mapping[str, Any],
    more: Mapping[str, Any],
) -> Encoder:
    where, dimensions = next(sentence.parameters()).device, more.get("dimensions")
    tokenizer = sentence.tokenizer
    longest = int(getattr(sentence[0].model.config, "max_position_embeddings", 0) or MOST_TOKENS)
    limit = name.integer("max_length", None, low=3, high=longest) or int(sentence.max_seq_length or longest)
    chain, pooling = _chain(name, chosen, sentence, where)
    prompt = _prompts(name, sentence)
    _require_prompt_in_pooling(name, chain, prompt)

    def tokenize(text: str, role: Role) -> list[int]:
        ids: list[int] = tokenizer(prompt[role] + text, truncation=True, max_length=limit)["input_ids"]
        return ids

    def tokenize_all(texts: Sequence[str], role: Role) -> list[list[int]]:
        given = [prompt[role] + text for text in texts]
        ids: list[list[int]] = tokenizer(given, truncation=True, max_length=limit)["input_ids"]
        return ids

    width = _wide_enough(name, width_of(chain, tokenize("dimension", "document"), str(name)), dimensions)
    space = describe(
        name, chosen, dim=dimensions or width, architecture=architecture,
        weights=weights, layer=chain.layer, pooling=pooling,
        text={"max_length": limit, "sha256": _files.fingerprint(_tokenizer_files(folder), folder), **_keyed(prompt)},
        more={key: value for key, value in more.items() if key != "dimensions" or value != width},
        provenance=provenance,
    )  # fmt: skip
    kept = replace(chain, dimensions=dimensions)
    words = words_of(tokenizer)
    text = TextTower(tokenize, len, kept, CHARS_PER_TOKEN * limit, tokenize_all=tokenize_all, words=words)
    return Encoder(name, space, str(where), text=text, module=sentence)


def _built(folder: Path, chosen: Settings) -> Any:
    try:
        with own_rng(chosen.seed), _quiet():
            sentence = SentenceTransformer(str(folder), device="cpu", local_files_only=True, trust_remote_code=False)
            if chosen.seed is not None:
                from transformers import AutoModel

                torch.default_generator.manual_seed(chosen.seed)
                sentence[0].model = AutoModel.from_config(sentence[0].model.config)
                for part in [part for module in list(sentence)[1:] for part in module.modules()]:
                    if isinstance(part, (torch.nn.Linear, torch.nn.LayerNorm)):
                        part.reset_parameters()
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
    modules = list(sentence)
    while not chosen.normalize and isinstance(modules[-1], Normalize):
        modules.pop()
    at = next((i for i, m in enumerate(modules) if isinstance(m, Pooling)), None)
    if at is None:
        raise UsageError("this model has no pooling module", where=str(name))
    declared = {v: k for k, v in POOLINGS.items()}.get(str(modules[at].pooling_mode), str(modules[at].pooling_mode))
    pooling = name.choice("pooling", declared, {*POOLINGS, declared})
    if pooling != declared:
        modules[at] = Pooling(modules[at].embedding_dimension, POOLINGS[pooling])
    padded = Padded(int(sentence.tokenizer.pad_token_id or 0), where)
    chain = Chain(sentence[0].model, tuple(modules), last if layer is None else layer, last, padded)
    return chain, pooling


def _prompts(name: EncoderName, sentence: Any) -> dict[str, str]:
    """Return what goes before a query and before a document: the name's own options, else the model's prompts.

    They are those that sentence-transformers takes in `encode_query` (`query`) and `encode_document` (`document`,
    `passage`, `corpus`); where a model has none of these, the one named by `default_prompt_name`, as in `encode`.
    """
    known = {key: text for key, text in sentence.prompts.items() if text}
    own = {
        "query": known.get("query", ""),
        "document": next((known[key] for key in ("document", "passage", "corpus") if key in known), ""),
    }
    if not any(own.values()):
        own = dict.fromkeys(own, known.get(sentence.default_prompt_name or "", ""))
    given = prompts(name)
    return {role: given[role] if f"{role}_prompt" in name.options else text for role, text in own.items()}


def _wide_enough(name: EncoderName, width: int, dimensions: int | None) -> int:
    if dimensions is not None and dimensions > width:
        raise UsageError(f"this model has {width} dimensions, not {dimensions}", where=str(name))
    return width


def _keyed(prompt: Mapping[str, str]) -> dict[str, str]:
    return {f"{role}_prompt": text for role, text in prompt.items()}


def _require_prompt_in_pooling(name: EncoderName, chain: Chain, prompt: Mapping[str, str]) -> None:
    apart = [m for m in chain.modules if isinstance(m, Pooling) and not m.include_prompt]
    if apart and any(prompt.values()):
        raise EncoderError(
            "this model leaves the prompt out of its pooling, which is not reproduced here",
            where=str(name), hint="choose another model, or another pooling= that reads the prompt too",
        )  # fmt: skip


def _tokenizer_files(folder: Path) -> list[Path]:
    places = (folder, folder / "0_Transformer")
    return [place / file for place in places for file in TOKENIZER if (place / file).is_file()]


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
