"""Encoders that `permafrost finetune` made: a base encoder of any kind, with weights of their own.

`tuned:1f0c3e…` (of the store, by the first digits of its weights' sha256) · `tuned:./FOLDER`

`interpolate=0.5` lies half way from the base's weights to the tuned ones (Wortsman et al. 2022): another Space.
Everything else is the base's: layer, pooling, preprocessing. `home` is the folder that holds `1f0c3e…`, which a store
fills in by itself; where the files lie is no part of the name that is kept.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from embedder import checkpoint, naming
from embedder.encoder import Encoder, load_encoder
from embedder.errors import EncoderError, UnknownName, UsageError
from embedder.naming import EncoderName

PASSED = frozenset({"normalize", "dtype"})
OPTIONS = PASSED | {"home", "interpolate"}


def catalogue() -> list[str]:
    """Return how a folder is named; `permafrost encoders` adds those of the store."""
    return ["tuned:./FOLDER"]


def load(name: EncoderName, device: str) -> Encoder:
    """Load the base and give it the tuned weights.

    Raises:
        UnknownName: no such tuned encoder.
        EncoderError: a file is missing or damaged, or the base is not the one that was tuned.
    """
    found = checkpoint.read(folder_of(name))
    passed = {key: value for key, value in name.options.items() if key in PASSED}
    share, asked = _share(name), naming.parse(found.base)
    base = load_encoder(replace(asked, options={**asked.options, **passed}), device=device)
    if base.space.identity["weights"] != found.facts["base_weights"]:
        raise EncoderError(
            f"{found.base} has other weights than when it was tuned", where=str(name),
            hint="bring back the weights of then, or tune again: permafrost finetune",
        )  # fmt: skip
    _fill(base, found, share)
    shown = replace(name, options={key: value for key, value in name.options.items() if key != "home"})
    weights: dict[str, Any] = {"base": dict(found.facts["base_weights"]), "tuned": found.digest}
    weights |= {} if share == 1 else {"interpolate": share}
    told = {key: found.facts[key] for key in ("base", "base_space", "method", "label", "collection", "created")}
    space = replace(
        base.space, encoder=str(shown), identity={**base.space.identity, "weights": weights},
        provenance={**base.space.provenance, "tuned": told},
    )  # fmt: skip
    return replace(base, name=shown, space=space, exact=None)


def folder_of(name: EncoderName) -> Path:
    """Return the folder that a name means.

    Raises:
        UnknownName: neither a folder nor one of a store.
        UsageError: a revision.
    """
    if name.revision:
        raise UsageError("tuned encoders have no revisions", where=str(name), hint=f"write tuned:{name.name}")
    if name.name.startswith(("/", ".", "~")):
        return Path(name.name).expanduser()
    if "home" in name.options:
        return Path(name.options["home"]) / name.name
    raise UnknownName.of(
        "tuned encoder", name.name, [], where=str(name), hint="name its store with --store, or its folder: tuned:./F"
    )


def _share(name: EncoderName) -> float:
    text = name.options.get("interpolate", "1")
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise UsageError(f"interpolate must be a number from 0 to 1, not {text!r}", where=str(name))
    return share


def _fill(base: Encoder, found: checkpoint.Checkpoint, share: float) -> None:
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    from embedder.trainable import apply

    try:
        apply(base.module, from_bytes(found.weights()), share)
    except (SafetensorError, KeyError, RuntimeError) as error:
        raise EncoderError(f"the weights do not fit {found.base}: {error}", where=str(found.folder)) from error
