"""Image-text encoders of open_clip: two towers that lead into one Space.

`open_clip:ViT-B-32/laion2b_s34b_b79k` · `open_clip:hf-hub:ORG/REPO@REV` · `open_clip:local-dir:FOLDER` ·
`open_clip:RN50/openai?weights=FILE` · `open_clip:ViT-B-32?weights=random&seed=1`
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.encoder import Encoder
from embedder.encoders import _hub
from embedder.encoders._common import OFFLINE_HINT, Settings, settings
from embedder.encoders._declared import require
from embedder.encoders._files import find_weights, read_json
from embedder.errors import EncoderError, MissingFact, UnknownName, UsageError
from embedder.naming import COMMON_OPTIONS, IMAGE_OPTIONS, EncoderName

OPTIONS = (COMMON_OPTIONS | IMAGE_OPTIONS | {"query_prompt", "document_prompt"}) - {"layer", "pooling"}
HINT = f"for pictures {OFFLINE_HINT['image']}; for texts {OFFLINE_HINT['text']}"
CONFIG = "open_clip_config.json"
PREFERRED = (
    "open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin",
    "open_clip_pytorch_model.pth", "model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth",
)  # fmt: skip
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.json", "merges.txt", "vocab.txt",
    "spiece.model", "tokenizer.model", "sentencepiece.bpe.model",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    `spec` is open_clip's own name for the architecture; `file` is None for untrained weights; `declared` is the
    preprocessing, None where only the untrained architecture has an opinion; `quick_gelu` forces that activation on.
    """

    spec: str
    file: Path | None
    declared: Mapping[str, Any] | None
    quick_gelu: bool = False
    revision: str | None = None


def catalogue() -> list[str]:
    """Return open_clip's pretrained models as MODEL/TAG, all on the hub."""
    import open_clip

    return [f"open_clip:{model}/{tag}" for model, tag in open_clip.list_pretrained()]


def load(name: EncoderName, device: str) -> Encoder:
    """Load both towers, their tokenizer and their own preprocessing.

    Raises:
        UnknownName: open_clip has no such model or tag.
        EncoderError: the weights are not reachable, are damaged, or do not fit.
        MissingFact: neither a configuration nor a tag says how pictures are made for these weights.
    """
    from embedder.encoders import _open_clip_model

    chosen = settings(name)
    return _open_clip_model.load(name, chosen, locate(name, chosen), device)


def locate(name: EncoderName, chosen: Settings) -> Source:
    """Find the weights and the statement of their preprocessing, without building the model."""
    scheme, _, rest = name.name.partition(":")
    if scheme == "local-dir" and rest:
        folder = Path(f"{rest}@{name.revision}" if name.revision else rest).expanduser()
        return in_folder(folder, chosen, chosen.path)
    if scheme == "hf-hub" and rest:
        wanted: list[Sequence[str]] = [(CONFIG,)]
        if chosen.seed is None:
            wanted.append(PREFERRED[:3])
        snapshot = _hub.fetch(rest, name.revision, wanted, TOKENIZER_FILES, offline_hint=HINT)
        return in_folder(snapshot.folder, chosen, None, snapshot.commit)
    return _by_name(name, chosen)


def in_folder(folder: Path, chosen: Settings, path: Path | None, revision: str | None = None) -> Source:
    """Read a folder in open_clip's own layout: `open_clip_config.json` beside the weights."""
    config = folder / CONFIG
    if not folder.is_dir():
        raise EncoderError(f"there is no folder {folder}", hint="check the path")
    if not config.is_file():
        raise MissingFact(
            f"{folder} has no {CONFIG}, so nothing says how pictures are made for its weights",
            hint=f"copy {CONFIG} from where the weights come from",
        )
    record = read_json(config)
    if "model_cfg" not in record:
        raise EncoderError(f"{config} has no model_cfg", hint=f"copy {CONFIG} from where the weights come from")
    declared = dict(record.get("preprocess_cfg") or {})
    require(declared, ("mean", "std"), str(config))
    if not {"interpolation", "resize_mode"} & set(declared):
        # before these two keys existed, a config of open_clip meant exactly this and could mean nothing else
        declared |= {"interpolation": "bicubic", "resize_mode": "shortest"}
    require(declared, ("interpolation", "resize_mode"), str(config))
    file = None
    if chosen.seed is None:
        file = path if path is not None and path.is_file() else find_weights(folder, PREFERRED)
    return Source(f"local-dir:{folder}", file, declared, revision=revision)


def _by_name(name: EncoderName, chosen: Settings) -> Source:
    from open_clip import get_model_config, get_pretrained_cfg, list_models, list_pretrained_tags_by_model

    model, slash, tag = name.name.partition("/")
    if get_model_config(model) is None:
        raise UnknownName.of("open_clip model", model, list_models(), where=str(name), hint="see permafrost encoders")
    tags = list_pretrained_tags_by_model(model)
    declared = get_pretrained_cfg(model, tag) if slash else None
    if slash and not declared:
        raise UnknownName.of(
            f"tag of {model}", tag, tags, where=str(name), hint=f"known: {', '.join(tags) or 'none'}"
        )  # fmt: skip
    quick = bool(declared and declared.get("quick_gelu"))
    if chosen.path is not None:
        if name.revision:
            raise UsageError("a revision is of the hub, and weights= is a file here", where=str(name))
        return _with_weights(name, model, tags, declared, quick, chosen.path, chosen)
    if chosen.seed is not None:
        return Source(model, None, declared, quick)
    if not declared:
        raise UsageError(
            f"{model} alone names no weights", where=str(name),
            hint=f"add a tag (open_clip:{model}/{tags[0] if tags else 'TAG'}), weights=FILE or weights=random",
        )  # fmt: skip
    file, commit = _download(declared, name.revision)
    return Source(model, file, declared, quick, commit)


def _with_weights(
    name: EncoderName, model: str, tags: list[str], declared: Any, quick: bool, path: Path, chosen: Settings
) -> Source:
    folder = path if path.is_dir() else path.parent
    if declared:
        return Source(model, find_weights(path, PREFERRED) if path.is_dir() else path, declared, quick)
    if path.is_dir() or (folder / CONFIG).is_file():
        source = in_folder(folder, chosen, path)
        _same_architecture(model, folder)
        return source
    raise MissingFact(
        f"nothing says how pictures are made for {path.name}, nor which GELU it was trained with: "
        "an architecture alone does not",
        where=str(name),
        hint=f"name the tag it was trained as (open_clip:{model}/{tags[0] if tags else 'TAG'}?weights=…), "
        f"or put {CONFIG} beside the file",
    )


def _same_architecture(model: str, folder: Path) -> None:
    from open_clip import get_model_config

    ours, theirs = get_model_config(model), read_json(folder / CONFIG)["model_cfg"]
    differing = [key for key in ("embed_dim", "vision_cfg", "text_cfg") if ours.get(key) != theirs.get(key)]
    if differing:
        raise EncoderError(
            f"{folder / CONFIG} describes another architecture than {model}: {', '.join(differing)}",
            hint=f"write open_clip:local-dir:{folder}",
        )


def _download(declared: Mapping[str, Any], revision: str | None) -> tuple[Path, str | None]:
    repo, file = os.path.split(declared.get("hf_hub", ""))
    if not repo:
        raise EncoderError("they are not on the hub", hint=f"download {declared.get('url')} and add weights=FILE")
    stem, suffix = os.path.splitext(file)
    wanted = (f"{stem}.safetensors", file) if suffix in (".bin", ".pth") else (file,) if file else PREFERRED[:3]
    snapshot = _hub.fetch(repo, revision, [wanted], offline_hint=HINT)
    return find_weights(snapshot.folder, wanted), snapshot.commit
