"""Small checkpoints in the format of transformers: every family that `transformers:` is tested with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.checkpoints import shake

BYTES = 256
SPECIAL = ("<s>", "<pad>", "</s>", "<unk>", "<mask>")
LONGEST = 64
SMALL = {"num_hidden_layers": 3, "num_attention_heads": 4, "hidden_size": 32, "intermediate_size": 64}
TEXT: dict[str, dict[str, Any]] = {
    "bert": {**SMALL, "max_position_embeddings": LONGEST, "pad_token_id": 1},
    "roberta": {**SMALL, "max_position_embeddings": LONGEST + 2, "pad_token_id": 1},
    "gpt2": {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": LONGEST},
    "llama": {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": LONGEST},
    "mistral": {**SMALL, "num_key_value_heads": 2, "max_position_embeddings": LONGEST, "sliding_window": 16},
    "falcon": {**SMALL, "alibi": False, "max_position_embeddings": LONGEST},
}
ENCODERS = ("bert", "roberta")
SQUARE = {"image_size": 48, "patch_size": 16}
IMAGE: dict[str, dict[str, Any]] = {
    "vit": {**SMALL, **SQUARE},
    "dinov2": {**SMALL, **SQUARE, "mlp_ratio": 2},
    "dinov2_with_registers": {**SMALL, **SQUARE, "mlp_ratio": 2, "num_register_tokens": 3},
    "resnet": {"embedding_size": 16, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_type": "basic"},
}
MEAN, STD = [0.4, 0.5, 0.6], [0.2, 0.3, 0.25]


def text_folder(
    folder: Path,
    family: str,
    *,
    side: str = "right",
    pad: bool = True,
    seed: int = 0,
    limit: int | None = LONGEST,
    **config: Any,
) -> Path:
    """Write a language model and its tokenizer.

    Args:
        side: the padding side that the tokenizer declares.
        pad: whether it has a padding token.
        limit: the number of tokens that it declares; None for the 1e30 of tokenizers that declare none.
    """
    from transformers import CONFIG_MAPPING, AutoModel

    made = tokenizer(family in ENCODERS, pad, side, limit)
    made.save_pretrained(str(folder))
    facts = {**TEXT[family], **config, "vocab_size": len(made), "bos_token_id": 0, "eos_token_id": 2}
    model = AutoModel.from_config(CONFIG_MAPPING[family](**facts))
    shake(model, seed).save_pretrained(str(folder))
    return folder


def tokenizer(framed: bool, pad: bool, side: str, limit: int | None) -> Any:
    """Return a tokenizer of bytes; `framed` texts stand between <s> and </s>."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    assert len(letters) == BYTES
    vocabulary = {word: i for i, word in enumerate((*SPECIAL, *letters))}
    inner = Tokenizer(models.BPE(vocabulary, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    if framed:
        ends = [("<s>", 0), ("</s>", 2)]
        inner.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    return PreTrainedTokenizerFast(
        tokenizer_object=inner, padding_side=side, **names, **({"pad_token": "<pad>"} if pad else {}),
        **({"model_max_length": limit} if limit else {}),
    )  # fmt: skip


def image_folder(folder: Path, family: str, *, seed: int = 0, processor: dict[str, Any] | None = None) -> Path:
    """Write a vision model and an image processor: resize to 53, crop to 48, unless `processor` says otherwise."""
    from transformers import CONFIG_MAPPING, AutoModel

    model = AutoModel.from_config(CONFIG_MAPPING[family](**IMAGE[family]))
    shake(model, seed).save_pretrained(str(folder))
    write_processor(folder, **(processor or {}))
    return folder


def write_processor(folder: Path, **changed: Any) -> None:
    """Write a `preprocessor_config.json`; a value of None leaves its key out."""
    facts = {
        "image_processor_type": "BitImageProcessor", "do_resize": True, "size": {"shortest_edge": 53}, "resample": 3,
        "do_center_crop": True, "crop_size": {"height": 48, "width": 48}, "do_rescale": True, "rescale_factor": 1 / 255,
        "do_normalize": True, "image_mean": MEAN, "image_std": STD, **changed,
    }  # fmt: skip
    kept = {key: value for key, value in facts.items() if value is not None}
    (folder / "preprocessor_config.json").write_text(json.dumps(kept))
