"""Image encoders of timm: from the hub, from a folder that timm wrote, from a weight file, or untrained.

`timm:resnet50.a1_in1k` · `timm:hf-hub:ORG/REPO@REV` · `timm:local-dir:FOLDER` · `timm:resnet50.a1_in1k?weights=FILE` ·
`timm:resnet50?weights=random&seed=1`
"""

from __future__ import annotations

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

OPTIONS = COMMON_OPTIONS | IMAGE_OPTIONS
PREFERRED = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
FACTS = ("input_size", "interpolation", "crop_pct", "mean", "std")


@dataclass(frozen=True)
class Source:
    """Where a model comes from. `spec` is timm's own name for it; `file` is None for untrained weights."""

    spec: str
    file: Path | None
    fixed_input_size: bool
    licence: str
    revision: str | None = None
    classifier: str | None = None


def catalogue() -> list[str]:
    """Return the names of timm's pretrained weights, all on the hub."""
    import timm

    return [f"timm:{name}" for name in timm.list_pretrained()]


def load(name: EncoderName, device: str) -> Encoder:
    """Load a timm model and its own preprocessing.

    Raises:
        UnknownName: timm has no such model or tag.
        EncoderError: the weights are not reachable, are damaged, or do not fit.
        MissingFact: neither a `config.json` nor a tag says how pictures are made for these weights.
    """
    return load_together([name], device)[0]


def load_together(names: Sequence[EncoderName], device: str) -> list[Encoder]:
    """Load one model for names that differ in what is read out of it; raises as `load` does."""
    from embedder.encoders import _timm_model

    chosen = settings(names[0])
    return _timm_model.load(names, chosen, locate(names[0], chosen), device)


def locate(name: EncoderName, chosen: Settings) -> Source:
    """Find the weights and the statement of their preprocessing, without building the model."""
    scheme, _, rest = name.name.partition(":")
    if scheme == "local-dir" and rest:
        folder = Path(f"{rest}@{name.revision}" if name.revision else rest).expanduser()
        return _in_folder(folder, chosen, chosen.path)
    if scheme == "hf-hub" and rest:
        return _on_hub(rest, name.revision, chosen)
    return _by_name(name, chosen)


def _by_name(name: EncoderName, chosen: Settings) -> Source:
    from timm.models import get_pretrained_cfg, is_model, list_models, list_pretrained

    architecture, _, tag = name.name.partition(".")
    if not is_model(architecture):
        raise UnknownName.of("timm model", name.name, list_models() + list_pretrained(), where=str(name))
    try:
        declared = get_pretrained_cfg(name.name)
    except RuntimeError as error:
        tags = [known for known in list_pretrained() if known.partition(".")[0] == architecture]
        raise UnknownName.of("timm tag", name.name, tags, where=str(name), hint=", ".join(tags)) from error
    if chosen.path is not None:
        if name.revision:
            raise UsageError("a revision is of the hub, and weights= is a file here", where=str(name))
        return _with_weights(name, architecture, tag, declared, chosen.path, chosen)
    if chosen.seed is not None:
        return Source(name.name, None, bool(declared.fixed_input_size), str(declared.license or "unknown"))
    if not declared.hf_hub_id:
        raise EncoderError(
            f"{name.name} has no weights on the hub",
            hint=f"download {declared.url or 'weights'} yourself and add weights=FILE" if declared.url
            else f"choose a tag of {architecture} that has, or weights=random",
        )  # fmt: skip
    return _on_hub(declared.hf_hub_id, name.revision, chosen)


def _with_weights(
    name: EncoderName, architecture: str, tag: str, declared: Any, path: Path, chosen: Settings
) -> Source:
    folder = path if path.is_dir() else path.parent
    if path.is_file() and tag:
        return Source(
            name.name, path, bool(declared.fixed_input_size), "unknown", classifier=_first(declared.classifier)
        )
    if path.is_file() and not (folder / "config.json").is_file():
        raise MissingFact(
            f"nothing says how pictures are made for {path.name}: an architecture alone does not",
            where=str(name),
            hint=f"name the tag whose preprocessing it was trained with (timm:{architecture}.{declared.tag or 'TAG'}"
            "?weights=…), or put timm's config.json beside the file",
        )
    source = _in_folder(folder, chosen, path)
    found = str(read_json(folder / "config.json").get("architecture"))
    if found != architecture:
        raise EncoderError(
            f"{folder / 'config.json'} describes {found}, not {architecture}", hint=f"write timm:local-dir:{folder}"
        )
    return source


def _on_hub(repo: str, revision: str | None, chosen: Settings) -> Source:
    wanted: list[tuple[str, ...]] = [("config.json",)]
    if chosen.seed is None:
        wanted.append(PREFERRED[:2])
    snapshot = _hub.fetch(repo.rstrip("/"), revision, wanted, offline_hint=OFFLINE_HINT["image"])
    return _in_folder(snapshot.folder, chosen, None, snapshot.commit)


def _in_folder(folder: Path, chosen: Settings, path: Path | None, revision: str | None = None) -> Source:
    config = folder / "config.json"
    if not folder.is_dir():
        raise EncoderError(f"there is no folder {folder}", hint="check the path")
    if not config.is_file():
        raise MissingFact(
            f"{folder} has no config.json, so nothing says how pictures are made for its weights",
            hint="save the model with timm.models.save_for_hf, which writes one",
        )
    record = read_json(config)
    # timm's first hub files had no section for the weights: everything stood at the top
    declared: Mapping[str, Any] = record.get("pretrained_cfg", record)
    require(declared, FACTS, str(config))
    if "architecture" not in record:
        raise EncoderError(f"{config} names no architecture", hint="save the model with timm.models.save_for_hf")
    file = None
    if chosen.seed is None:
        file = path if path is not None and path.is_file() else find_weights(folder, PREFERRED)
    return Source(
        spec=f"local-dir:{folder}",
        file=file,
        fixed_input_size=bool(declared.get("fixed_input_size")),
        licence=str(declared.get("license") or "unknown"),
        revision=revision,
    )


def _first(names: Any) -> str | None:
    return names if isinstance(names, str) or names is None else str(names[0])
