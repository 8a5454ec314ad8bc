"""Small random sentence-transformers models, written by `SentenceTransformer.save` itself."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tests.checkpoints import shake

WORDS = (
    "frost", "two", "words", "a", "much", "longer", "sentence", "42", "dogs", "in", "the", "snow", "query", "!", ":",
)  # fmt: skip
LETTERS = "abcdefghijklmnopqrstuvwxyzüï0123456789.,:!?—-'数字"
DIM = 12


def bert_folder(folder: Path, seed: int = 0, *, vocabulary: Sequence[str] = WORDS) -> Path:
    """Write a BERT of two layers, 16 wide, and its WordPiece tokenizer."""
    from transformers import BertConfig, BertModel, BertTokenizerFast

    pieces = [*vocabulary, *LETTERS, *(f"##{letter}" for letter in LETTERS)]
    vocab = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys(pieces)]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocab), encoding="utf-8")
    tokenizer = BertTokenizerFast(vocab={token: i for i, token in enumerate(vocab)}, model_max_length=48)
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(vocab), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        max_position_embeddings=64,
    )  # fmt: skip
    shake(BertModel(config), seed).save_pretrained(folder)
    return folder


def sentence_folder(
    folder: Path,
    seed: int = 0,
    *,
    pooling: str = "mean",
    dense: bool = True,
    normalize: bool = True,
    prompts: Mapping[str, str] | None = None,
    default: str | None = None,
) -> Path:
    """Write a chain of Transformer, Pooling, and, where asked for, Dense (to 12 dimensions) and Normalize."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Dense, Normalize, Pooling, Transformer

    word = Transformer(str(bert_folder(folder.parent / f"{folder.name}.bert", seed)), max_seq_length=32)
    modules: list[Any] = [word, Pooling(16, pooling)]
    if dense:
        modules.append(shake(Dense(16, DIM), seed + 1))
    if normalize:
        modules.append(Normalize())
    model = SentenceTransformer(
        modules=modules, device="cpu", prompts=dict(prompts) if prompts else None, default_prompt_name=default
    )
    model.save(str(folder), create_model_card=False)
    return folder


def change(file: Path, **values: Any) -> None:
    """Set keys of a JSON file."""
    file.write_text(json.dumps(json.loads(file.read_text("utf-8")) | values), encoding="utf-8")
