"""Language models as text encoders: tokens in, hidden states pooled under the mask, whichever side is padded."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import AutoTokenizer
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES, MODEL_FOR_MASKED_LM_MAPPING_NAMES

from embedder.encoder import Encoder, TextTower
from embedder.encoders import _files
from embedder.encoders._common import Settings, describe, index, prompts, words_of
from embedder.encoders._torch import Padded, as_numpy, width_of
from embedder.encoders._transformers_model import Built, quiet
from embedder.encoders.transformers import CHAIN, TOKENIZER_FILES, VOCABULARIES
from embedder.errors import EncoderError, MissingFact, Undecodable, UsageError
from embedder.naming import EncoderName
from embedder.records import Role
from embedder.shared import Shared

POOLINGS = ("cls", "mean", "max", "last")
CHARS_PER_TOKEN = 64
NO_LIMIT = 1 << 20
"""Tokenizers without a limit of their own declare 1e30."""


@dataclass(frozen=True)
class Reader:
    """The forward pass. `layer` is the hidden state that is pooled, 0 being the embeddings; `last` is what the model
    gives as its output, after its final norm where it has one."""

    model: Any
    layer: int
    last: int
    pooling: str
    inputs: Padded

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Encode lists of token ids. Short ones are padded on the right and masked, so positions count from 0."""
        ids, mask = self.inputs(rows)
        if isinstance(rows, Shared):
            return as_numpy(self._read(rows.once(self.model, lambda: self._states(ids, mask, deep=True)), mask))
        return as_numpy(self.network(ids, mask))

    def network(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Return vectors (n, dim) of token ids (n, tokens) under their mask."""
        return self._read(self._states(ids, mask, deep=self.layer != self.last), mask)

    def _states(self, ids: Tensor, mask: Tensor, *, deep: bool) -> Any:
        return self.model(input_ids=ids, attention_mask=mask, output_hidden_states=deep, return_dict=True)

    def _read(self, found: Any, mask: Tensor) -> Tensor:
        states = found.last_hidden_state if self.layer == self.last else found.hidden_states[self.layer]
        return pool(states.float(), mask.bool(), self.pooling)


def pool(states: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the states of real tokens, whichever side the padding is on.

    Args:
        states: (n, tokens, dim).
        mask: (n, tokens) bool, True at real tokens.
        pooling: `cls` (the first real token), `last` (the last one), `mean` or `max` over them.

    Returns:
        (n, dim); NaN for a row without real tokens.
    """
    inside = mask.unsqueeze(-1)
    if pooling == "mean":
        return states.masked_fill(~inside, 0).sum(1) / inside.sum(1)
    if pooling == "max":
        return states.masked_fill(~inside, -torch.inf).amax(1).where(inside.any(1), torch.nan)
    places = torch.arange(mask.shape[1], device=mask.device).expand(mask.shape)
    at = places.where(mask, -1).amax(1) if pooling == "last" else places.where(mask, mask.shape[1]).amin(1)
    rows = torch.arange(mask.shape[0], device=mask.device)
    return states[rows, at.clamp(0, mask.shape[1] - 1)].where(inside.any(1), torch.nan)


def from_folder(name: EncoderName, chosen: Settings, built: Built) -> Encoder:
    """Wrap a model with the tokenizer in its folder.

    Raises:
        MissingFact: no vocabulary, or nothing says how long texts may be.
        UsageError: the folder is a sentence-transformers model, and the name does not say to pool otherwise.
    """
    if (built.folder / CHAIN).is_file() and "pooling" not in name.options:
        raise UsageError(
            "this is a sentence-transformers model, which declares its own pooling", where=str(name),
            hint="write sentence_transformers: for its own vectors, or add pooling= for others",
        )  # fmt: skip
    tokenizer = _tokenizer(built.folder)
    present = [built.folder / file for file in TOKENIZER_FILES if (built.folder / file).is_file()]
    return wrap(name, chosen, built, tokenizer, {"sha256": _files.fingerprint(present, built.folder)})


def _tokenizer(folder: Path) -> Any:
    if not any((folder / file).is_file() for file in VOCABULARIES):
        raise MissingFact(
            f"{folder} holds no vocabulary, so nothing says how texts become tokens",
            hint=f"copy the tokenizer beside the weights: one of {', '.join(VOCABULARIES)}",
        )
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"the tokenizer cannot be loaded: {reason}", where=str(folder), hint="copy or download it again"
        ) from error


def wrap(name: EncoderName, chosen: Settings, built: Built, tokenizer: Any, facts: dict[str, Any]) -> Encoder:
    """Wrap a model with its tokenizer; `facts` name the tokenizer's bytes."""
    limit = _limit(name, built.model, tokenizer)
    pooling = name.choice("pooling", default_pooling(name, built.model.config), POOLINGS)
    prompt, known = prompts(name), int(built.model.get_input_embeddings().num_embeddings)

    def tokenize_all(texts: Sequence[str], role: Role) -> list[list[int]]:
        given = [prompt[role] + text for text in texts]
        rows: list[list[int]] = tokenizer(given, truncation=True, max_length=limit)["input_ids"]
        highest = max((max(ids, default=0) for ids in rows), default=0)
        if highest >= known:
            # on a GPU such a token would end the process
            raise Undecodable(f"token {highest} of {known} that the model has", stage="encode", reason="unknown_token")
        return rows

    def tokenize(text: str, role: Role) -> list[int]:
        return tokenize_all([text], role)[0]

    example = tokenize("dimension", "document")
    last = _layers(built, example) - 1
    layer = index(name, last + 1)
    pad = tokenizer.pad_token_id
    pad = pad if isinstance(pad, int) and 0 <= pad < known else 0
    reader = Reader(built.model, last if layer is None else layer, last, pooling, Padded(pad, built.where))
    space = describe(
        name, chosen, dim=width_of(reader, example, str(name)), architecture=built.architecture,
        weights=built.weights, layer=reader.layer, pooling=pooling,
        text={"max_length": limit, **facts, **{f"{role}_prompt": text for role, text in prompt.items()}},
        more=built.more, provenance=built.provenance,
    )  # fmt: skip
    words = words_of(tokenizer)
    text = TextTower(tokenize, len, reader, CHARS_PER_TOKEN * limit, tokenize_all=tokenize_all, words=words)
    return Encoder(name, space, str(built.where), text=text, module=built.model)


def default_pooling(name: EncoderName, config: Any) -> str:
    """Return `last` for a decoder, whose last token alone has seen the whole text, and `mean` for an encoder.

    Plain encoders declare no vector for a text; the mean did better than the first token in Reimers and Gurevych 2019.

    Raises:
        UsageError: neither a masked nor a causal language model: its name has to say how to pool.
    """
    decodes = getattr(config, "is_decoder", False) or config.model_type not in MODEL_FOR_MASKED_LM_MAPPING_NAMES
    if decodes and config.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES and "pooling" not in name.options:
        raise UsageError(
            f"nothing says how the tokens of {config.model_type} are pooled", where=str(name),
            hint=f"add pooling= one of {', '.join(POOLINGS)}",
        )  # fmt: skip
    return "last" if decodes else "mean"


def _limit(name: EncoderName, model: Any, tokenizer: Any) -> int:
    """Return how many tokens a text may have: the fewest that model, tokenizer and name say.

    Raises:
        MissingFact: none of them says.
        UsageError: the name asks for more than the model can.
    """
    declared = [n for n in (_positions(model), tokenizer.model_max_length) if n is not None and n < NO_LIMIT]
    low = int(tokenizer.num_special_tokens_to_add()) + 1
    asked = name.integer("max_length", None, low=low, high=_positions(model) or NO_LIMIT)
    if asked is None and not declared:
        raise MissingFact(
            "neither the model nor its tokenizer says how many tokens a text may have", where=str(name),
            hint="add max_length= what it was trained with",
        )  # fmt: skip
    return int(min(declared)) if asked is None else asked


def _positions(model: Any) -> int | None:
    for key, module in model.named_modules():
        if key.endswith("position_embeddings") and getattr(module, "padding_idx", None) is not None:
            # RoBERTa counts positions from behind its padding token
            return int(module.num_embeddings) - int(module.padding_idx) - 1
    found = getattr(model.config, "max_position_embeddings", None)
    return found if isinstance(found, int) and 0 < found < NO_LIMIT else None


@torch.inference_mode()
def _layers(built: Built, example: list[int]) -> int:
    ids, mask = Padded(0, built.where)([example])
    found = built.model(input_ids=ids, attention_mask=mask, output_hidden_states=True, return_dict=True)
    return len(found.hidden_states)
