"""The reference libraries' own forward passes, written without anything of ours: what vectors are compared with."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]


def worst_cosine(a: Array, b: Array) -> float:
    """Return the least cosine between rows of equal number."""
    assert a.shape == b.shape
    a, b = a.astype(np.float64), b.astype(np.float64)
    return float(np.min((a * b).sum(1) / (np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1))))


@cache
def opened(folder: Path, dtype: torch.dtype = torch.float32) -> tuple[Any, Any]:
    """Return the tokenizer and the model of a folder, through the Auto classes."""
    from transformers import AutoModel, AutoTokenizer

    return AutoTokenizer.from_pretrained(str(folder)), AutoModel.from_pretrained(str(folder), dtype=dtype).eval()


def pooled(states: Array, pooling: str) -> Array:
    """Pool the states (tokens, dim) of one text, padding already left out."""
    found = {"cls": states[0], "last": states[-1], "mean": states.mean(0), "max": states.max(0)}[pooling]
    return np.asarray(found, dtype=np.float32)


def text_alone(
    folder: Path,
    texts: Sequence[str],
    pooling: str,
    layer: int | None = None,
    limit: int = 64,
    dtype: torch.dtype = torch.float32,
) -> Array:
    """Encode each text in a call of its own: no padding, no mask to get wrong."""
    tokenizer, model = opened(folder, dtype)
    rows = []
    for text in texts:
        tokens = tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        with torch.inference_mode():
            found = model(**tokens, output_hidden_states=True)
        states = found.last_hidden_state if layer is None else found.hidden_states[layer]
        rows.append(pooled(states[0].float().numpy(), pooling))
    return np.stack(rows)


def text_batch(folder: Path, texts: Sequence[str], pooling: str, side: str, limit: int = 64) -> Array:
    """Encode all texts in one call, padded on `side`, masked, with positions counted from the first real token."""
    tokenizer, model = opened(folder)
    tokenizer.padding_side = side
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    tokens = tokenizer(list(texts), padding=True, truncation=True, max_length=limit, return_tensors="pt")
    mask = tokens["attention_mask"]
    if model.config.model_type != "roberta":
        tokens["position_ids"] = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.inference_mode():
        states = model(**tokens).last_hidden_state.numpy()
    real = mask.numpy().astype(bool)
    return np.stack([pooled(row[inside], pooling) for row, inside in zip(states, real, strict=True)])


def image_alone(
    folder: Path, pictures: Sequence[Image.Image], pooling: str, prefix: int, layer: int | None = None
) -> Array:
    """Encode each picture with the folder's own processor and model."""
    from transformers import AutoImageProcessor, AutoModel

    processor = AutoImageProcessor.from_pretrained(str(folder))
    model = AutoModel.from_pretrained(str(folder)).eval()
    rows = []
    for picture in pictures:
        with torch.inference_mode():
            found = model(**processor(images=picture, return_tensors="pt"), output_hidden_states=True)
        states = found.last_hidden_state if layer is None else found.hidden_states[layer]
        tokens = states[0].numpy() if states.ndim == 3 else states[0].flatten(1).T.numpy()
        rows.append(pooled(tokens if pooling == "cls" else tokens[prefix:], pooling))
    return np.stack(rows)


def each(model: Any, transform: Any, pictures: Sequence[Image.Image]) -> Array:
    """Encode each picture with a callable model and a torchvision transform."""
    with torch.inference_mode():
        rows = [model(transform(picture).unsqueeze(0)) for picture in pictures]
    return torch.cat([row.flatten(1) for row in rows]).numpy()


def timm_alone(spec: str, pictures: Sequence[Image.Image]) -> Array:
    """Encode with timm's own model, before its classifier, and its own transform."""
    import timm

    model = timm.create_model(spec, pretrained=True, num_classes=0).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    return each(model, transform, pictures)


def torchvision_alone(model: str, file: Path, pictures: Sequence[Image.Image]) -> Array:
    """Encode with torchvision's own model, its last linear layer taken away, and its enum's transforms."""
    from torchvision.models import get_model, get_model_weights

    own = get_model(model, weights=None)
    own.load_state_dict(torch.load(file, weights_only=True))
    last = [name for name, part in own.named_modules() if isinstance(part, torch.nn.Linear)][-1]
    own.set_submodule(last, torch.nn.Identity())
    return each(own.eval(), get_model_weights(model)["IMAGENET1K_V1"].transforms(), pictures)


def open_clip_alone(folder: Path, pictures: Sequence[Image.Image], texts: Sequence[str]) -> tuple[Array, Array]:
    """Encode with both of open_clip's own towers."""
    import open_clip

    model, transform = open_clip.create_model_from_pretrained(f"local-dir:{folder}", weights_only=True)
    tokenizer = open_clip.get_tokenizer(f"local-dir:{folder}")
    model.eval()
    with torch.inference_mode():
        words = torch.cat([model.encode_text(tokenizer([text])) for text in texts]).numpy()
    return each(model.encode_image, transform, pictures), words


def lite_alone(pictures: Sequence[Image.Image]) -> Array:
    """Encode with timm's `tf_efficientnet_lite0` and the packaged weights."""
    import timm

    from embedder.encoders import _effnet_lite

    model: Any = _effnet_lite.build("0", None).eval()
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)
    model.reset_classifier(0)
    return each(model, transform, pictures)


def minilm_alone(texts: Sequence[str]) -> Array:
    """Encode with the packaged MiniLM."""
    from embedder.encoders.bundled import MINILM

    return sentence_alone(MINILM.folder(), texts)


def sentence_alone(folder: Path, texts: Sequence[str]) -> Array:
    """Encode with sentence-transformers itself, one text a call."""
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(folder), device="cpu")
    return np.concatenate([model.encode([text], show_progress_bar=False) for text in texts])


def smollm2_alone(texts: Sequence[str]) -> Array:
    """Return the last token's last hidden state of `AutoModelForCausalLM`, one text a call."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from embedder.encoders._smollm2 import FILE, PACKAGE

    tokenizer = AutoTokenizer.from_pretrained(PACKAGE.folder(), gguf_file=FILE)
    model = AutoModelForCausalLM.from_pretrained(PACKAGE.folder(), gguf_file=FILE).eval()
    rows = []
    for text in texts:
        with torch.inference_mode():
            found = model(**tokenizer(text, return_tensors="pt"), output_hidden_states=True)
        rows.append(found.hidden_states[-1][0, -1].numpy())
    return np.stack(rows)
