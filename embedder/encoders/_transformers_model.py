"""transformers models: built with every weight loaded, frozen in the precision asked for, handed to their medium."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, AutoModel
from transformers.utils import logging

from embedder.encoder import Encoder
from embedder.encoders import _files
from embedder.encoders._common import Settings, settings, versions
from embedder.encoders._torch import device_of, dtype_of, own_rng
from embedder.encoders.transformers import Source
from embedder.errors import EncoderError, UsageError
from embedder.naming import COMMON_OPTIONS, IMAGE_OPTIONS, TEXT_OPTIONS, EncoderName

UNUSED = ("pooler.",)
STATED = frozenset(
    {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "architectures", "auto_map", "id2label",
     "label2id", "problem_type", "finetuning_task", "task_specific_params", "use_cache", "gradient_checkpointing",
     "torchscript", "output_attentions", "output_hidden_states", "return_dict"}
)  # fmt: skip


@dataclass(frozen=True)
class Built:
    """A frozen model, and the facts about it that its Space needs."""

    model: Any
    folder: Path
    architecture: str
    weights: Mapping[str, Any]
    more: Mapping[str, Any]
    provenance: Mapping[str, Any]
    where: torch.device


def load(names: Sequence[EncoderName], chosen: Settings, source: Source, device: str) -> list[Encoder]:
    """Build the model in `source` once, and wrap it for each name and the medium that it reads."""
    name = names[0]
    where = device_of(device)
    config = config_of(source.folder)
    _require_kind(name, chosen, config)
    texts = class_of(config).main_input_name == "input_ids"
    name.allow(COMMON_OPTIONS | (TEXT_OPTIONS if texts else IMAGE_OPTIONS))
    model = freeze(build(config, source, chosen.seed), where, chosen.dtype)
    files = list(source.files)
    built = Built(
        model, source.folder, f"transformers/{config.model_type}",
        weights={"random": chosen.seed} if chosen.seed is not None else {"sha256": _fingerprint(files)},
        more={"config": _plain(_files.read_json(source.folder / "config.json"))},
        provenance={
            "revision": source.revision, "licence": "unknown: see the model card", "files": _files.listed(files),
            "versions": versions("transformers", "tokenizers", "torch"),
        },
        where=where,
    )  # fmt: skip
    if texts:
        from embedder.encoders import _transformers_text

        return [_transformers_text.from_folder(one, settings(one), built) for one in names]
    from embedder.encoders import _transformers_image

    return _transformers_image.wrap_all(names, built)


def config_of(folder: Path) -> Any:
    """Return the configuration of a folder, as a class of the library.

    Raises:
        EncoderError: it cannot be read, is of no architecture that the library has, or its weights are quantised.
    """
    if "quantization_config" in _files.read_json(folder / "config.json"):
        raise EncoderError(
            f"the weights in {folder} are quantised, and need code that is not here", hint="use the full weights"
        )
    try:
        with quiet():
            return AutoConfig.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise EncoderError(
            f"transformers cannot read this configuration: {reason}", where=str(folder / "config.json"),
            hint="code from a repository is never run here: choose an architecture that transformers itself has",
        ) from error  # fmt: skip


def class_of(config: Any) -> Any:
    """Return the class that `AutoModel` takes for a configuration; it has no head.

    Raises:
        EncoderError: there is none.
    """
    try:
        found = AutoModel._model_mapping[type(config)]
    except KeyError as error:
        raise EncoderError(f"transformers has no model without a head for {config.model_type}") from error
    return found[0] if isinstance(found, (tuple, list)) else found


def _require_kind(name: EncoderName, chosen: Settings, config: Any) -> None:
    """Refuse what is not one tower for texts or for pictures, or not of the type that the name says."""
    folder = chosen.path is not None and chosen.path.is_dir()
    if folder and name.name in CONFIG_MAPPING and name.name != config.model_type:
        raise UsageError(f"the folder given as weights holds a {config.model_type}, not a {name.name}", where=str(name))
    several = [part for part in ("text_config", "vision_config", "audio_config") if hasattr(config, part)]
    if config.is_encoder_decoder or several:
        what = f"of several parts ({', '.join(several)})" if several else "an encoder with a decoder"
        raise EncoderError(
            f"{config.model_type} is {what}, and this kind reads models of one part", where=str(name),
            hint="CLIP-type models: open_clip:hf-hub:ORG/REPO; sentence encoders: sentence_transformers:ORG/REPO",
        )  # fmt: skip
    if class_of(config).main_input_name not in ("input_ids", "pixel_values"):
        raise EncoderError(f"{config.model_type} reads neither texts nor pictures", where=str(name))


def build(config: Any, source: Source, seed: int | None) -> Any:
    """Return the model in float32, every weight that is read loaded; or untrained from a seed.

    Raises:
        EncoderError: a file is damaged, or does not fit the configuration.
    """
    if seed is not None:
        with own_rng(seed), quiet():
            return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False)
    state: dict[str, Any] = {}
    for file in source.files:
        state |= _files.read_tensors(file)
    try:
        with own_rng(None), quiet():
            model, found = class_of(config).from_pretrained(
                None, config=config, state_dict=state, dtype=torch.float32, output_loading_info=True
            )
    except Exception as error:
        raise _files.damaged(source.files[0], error) from error
    missing = sorted(key for key in found["missing_keys"] if not key.startswith(UNUSED))
    if missing or found["mismatched_keys"]:
        what = f"{len(missing)} weights are missing, such as {missing[0]}" if missing else "weights of other shapes"
        raise _files.damaged(source.files[0], ValueError(what))
    return model


def freeze(model: Any, where: torch.device, dtype: str) -> Any:
    """Return the model in eval mode, without gradients, on `where`, its weights in `dtype`.

    Buffers that are computed and not stored (the frequencies of rotary positions) stay in float32, as the library
    itself keeps them: in bfloat16 they would move every position.
    """
    model.requires_grad_(False)
    model.eval()
    model.config.use_cache = False
    stored = set(model.state_dict())
    computed = {key: buffer.clone() for key, buffer in model.named_buffers() if key not in stored}
    model.to(device=where, dtype=dtype_of(dtype))
    for key, buffer in computed.items():
        parent, _, leaf = key.rpartition(".")
        model.get_submodule(parent).register_buffer(leaf, buffer.to(where), persistent=False)
    return model


def _fingerprint(files: list[Path]) -> str:
    return _files.fingerprint(files, files[0].parent)


def _plain(value: Any) -> Any:
    """Return what a configuration says that can change vectors, as JSON without infinities."""
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items() if key not in STATED}
    if isinstance(value, list):
        return [_plain(part) for part in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def quiet() -> Iterator[None]:
    """Silence the reports and progress bars of transformers; what they would tell is checked here and raised."""
    level, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity(logging.CRITICAL)
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
