"""open_clip models as encoders: built, filled with checked weights, and both towers wrapped."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import open_clip
import torch
from numpy.typing import NDArray
from open_clip.tokenizer import default_bpe

from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.encoders import _files, _hub
from embedder.encoders._common import Settings, describe, prompts, versions
from embedder.encoders._declared import open_clip_transform
from embedder.encoders._torch import Stacked, as_numpy, device_of, frozen, grey, image_forward, own_rng, width_of
from embedder.encoders.open_clip import HINT, TOKENIZER_FILES
from embedder.errors import EncoderError
from embedder.naming import EncoderName
from embedder.records import Role
from embedder.space import canonical_json

if TYPE_CHECKING:
    from embedder.encoders.open_clip import Source

CHARS_PER_TOKEN = 64


def load(name: EncoderName, chosen: Settings, source: Source, device: str) -> Encoder:
    """Build the model that `source` describes and wrap its towers."""
    where = device_of(device)
    model = build(name, chosen, source)
    facts = dict(vars(model.visual))["preprocess_cfg"] if source.declared is None else source.declared
    height, width = _pair(model.visual.image_size)
    transform = open_clip_transform(facts, (height, width), name)
    frozen(model, where, chosen.dtype)
    forward = image_forward(lambda x: model.encode_image(x, normalize=False), transform, where, chosen.dtype)
    text, text_facts = text_tower(name, model, source, where)
    config = _config(source)
    quick_gelu = bool(config.pop("quick_gelu", False)) or source.quick_gelu
    space = describe(
        name, chosen, dim=width_of(forward, grey(transform), str(name)), architecture="open_clip",
        weights={"random": chosen.seed} if source.file is None else {"sha256": _files.sha256_file(source.file)},
        layer="projection", pooling="model", image=transform, text=text_facts,
        more={"config": config, "quick_gelu": quick_gelu},
        provenance={
            "revision": source.revision, "licence": "unknown: see the model card", "source": source.spec,
            "files": _files.listed([source.file]) if source.file else [],
            "versions": versions("open_clip_torch", "timm", "torch"),
        },
    )  # fmt: skip
    return Encoder(name, space, str(where), ImageTower(transform, forward), text, module=model)


def build(name: EncoderName, chosen: Settings, source: Source) -> Any:
    """Return the model with every weight loaded, or untrained from a seed if that was asked for.

    Raises:
        EncoderError: the file is damaged or does not fit, or open_clip cannot build the model.
    """
    side = name.integer("image_size", None, low=1, high=4096)
    _need_hub(source)
    try:
        with own_rng(chosen.seed), _quiet():
            # load_weights=False: open_clip only logs when it finds none, so they are loaded strictly below
            model = open_clip.create_model(
                source.spec, load_weights=False, pretrained_text=False, force_quick_gelu=source.quick_gelu,
                force_image_size=side,
            )  # fmt: skip
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(f"open_clip cannot build {source.spec}: {reason}", where=str(name)) from error
    if source.file is None:
        return model
    try:
        with _quiet():
            open_clip.load_checkpoint(model, str(source.file), strict=True, weights_only=True)
    except Exception as error:
        raise _files.damaged(source.file, error) from error
    return model


def _need_hub(source: Source) -> None:
    """Ask for what open_clip would fetch by name, so that a machine without a hub hears of it within seconds."""
    text = _config(source).get("text_cfg", {})
    local = source.spec.startswith("local-dir:")
    for repo in {text.get("hf_model_name"), None if local else text.get("hf_tokenizer_name")} - {None, ""}:
        _hub.fetch(repo, None, [("config.json", "tokenizer_config.json")], offline_hint=HINT)


def text_tower(name: EncoderName, model: Any, source: Source, where: torch.device) -> tuple[TextTower, dict[str, Any]]:
    """Return the text tower with open_clip's own tokenizer, and the facts about it that change vectors."""
    try:
        with _quiet():
            tokenizer = open_clip.get_tokenizer(source.spec)
    except Exception as error:
        raise EncoderError(f"the tokenizer of {source.spec} cannot be loaded: {error}", where=str(name)) from error
    prompt, context = prompts(name), int(tokenizer.context_length)
    inner = getattr(tokenizer, "tokenizer", None)
    pad = int(getattr(inner, "pad_token_id", 0) or 0)

    def tokenize(text: str, role: Role) -> NDArray[np.int64]:
        row: NDArray[np.int64] = tokenizer([prompt[role] + text])[0].numpy()
        return row

    def length(row: NDArray[np.int64]) -> int:
        return int(np.flatnonzero(row != pad)[-1]) + 1 if (row != pad).any() else 1

    facts = {
        "tokenizer": type(tokenizer).__name__, "sha256": _vocabulary(tokenizer, source), "max_length": context,
        "arguments": _config(source).get("text_cfg", {}).get("tokenizer_kwargs") or {},
        **{f"{role}_prompt": text for role, text in prompt.items()},
    }  # fmt: skip
    return TextTower(tokenize, length, TextForward(model, Stacked(where)), CHARS_PER_TOKEN * context), facts


@dataclass(frozen=True)
class TextForward:
    """The forward pass over arrays of token ids, all of one length."""

    model: Any
    inputs: Stacked

    @torch.inference_mode()
    def __call__(self, rows: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Return (n, dim)."""
        return as_numpy(self.network(*self.inputs(rows)))

    def network(self, ids: torch.Tensor) -> torch.Tensor:
        """Return features (n, dim) of token ids (n, length)."""
        features: torch.Tensor = self.model.encode_text(ids, normalize=False)
        return features


def _vocabulary(tokenizer: Any, source: Source) -> str:
    """Return the sha256 of the tokenizer's files, or of its vocabulary where open_clip fetched it by name."""
    inner = getattr(tokenizer, "tokenizer", None)
    if inner is None:
        return _files.sha256_file(Path(default_bpe()))
    scheme, _, folder = source.spec.partition(":")
    if scheme == "local-dir":
        files = [Path(folder) / file for file in TOKENIZER_FILES if (Path(folder) / file).is_file()]
        return _files.fingerprint(files, Path(folder))
    return _files.sha256_bytes(canonical_json(inner.get_vocab()).encode())


def _config(source: Source) -> dict[str, Any]:
    return dict(open_clip.get_model_config(source.spec) or {})


def _pair(size: Any) -> tuple[int, int]:
    height, width = size if isinstance(size, (tuple, list)) else (size, size)
    return int(height), int(width)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep open_clip from configuring the root logger, which `logging.info` does where no handler is set."""
    root, handler = logging.getLogger(), logging.NullHandler()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(level)
        root.removeHandler(handler)
