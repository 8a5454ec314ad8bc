"""Image encoders of torchvision, each with the transforms of its weights enum.

`torchvision:resnet50/IMAGENET1K_V2` · `torchvision:alexnet/IMAGENET1K_V1?weights=FILE` ·
`torchvision:vit_b_16/IMAGENET1K_V1?weights=random&seed=1`

By default a vector is the input of the final classifier layer. A file given as `weights` is a state dict of the whole
model, classifier included; the enum after the slash says how pictures are made for it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlparse
from urllib.request import Request, urlopen

from embedder.encoder import Encoder
from embedder.encoders._common import OFFLINE_HINT, Settings, settings
from embedder.encoders._files import sha256_file
from embedder.errors import EncoderError, MissingFact, UnknownName, UsageError
from embedder.naming import COMMON_OPTIONS, IMAGE_OPTIONS, EncoderName

OPTIONS = COMMON_OPTIONS | IMAGE_OPTIONS
TIMEOUT_S = 3
HASH = re.compile(r"-([0-9a-f]{8,64})\.")


def catalogue() -> list[str]:
    """Return every classifier of torchvision with each of its weights; all must be downloaded."""
    from torchvision.models import get_model_weights

    return [f"torchvision:{model}/{weights.name}" for model in _models() for weights in get_model_weights(model)]


def load(name: EncoderName, device: str) -> Encoder:
    """Load a classifier, and the transforms of its weights.

    Raises:
        UnknownName: torchvision has no such model, or the model has no such weights.
        EncoderError: the weights cannot be downloaded, are damaged, or do not fit.
    """
    return load_together([name], device)[0]


def load_together(names: Sequence[EncoderName], device: str) -> list[Encoder]:
    """Load one model for names that differ in what is read out of it; raises as `load` does."""
    name = names[0]
    chosen = settings(name)
    tag = declared(name)
    file = _file(name, chosen, tag)
    from embedder.encoders import _torchvision_model

    return _torchvision_model.load(names, chosen, tag, file, device)


def declared(name: EncoderName) -> Any:
    """Return the member of torchvision's weights enum that a name gives as MODEL/WEIGHTS."""
    from torchvision.models import get_model_weights

    model, slash, weights = name.name.partition("/")
    models = _models()
    if model not in models:
        raise UnknownName.of("torchvision model", model, models, where=str(name), hint=f"known: {', '.join(models)}")
    if name.revision:
        raise UsageError("torchvision has no revisions", where=str(name), hint=f"write {name.kind}:{name.name}")
    known = [member.name for member in get_model_weights(model)]
    if not slash:
        raise MissingFact(
            f"nothing says how pictures are made for {model}: an architecture alone does not",
            where=str(name), hint=f"name the weights as well: {', '.join(f'{model}/{one}' for one in known)}",
        )  # fmt: skip
    if weights not in known:
        raise UnknownName.of(f"weights of {model}", weights, known, where=str(name), hint=", ".join(known))
    return get_model_weights(model)[weights]


def _models() -> list[str]:
    import torchvision

    return list(torchvision.models.list_models(module=torchvision.models))


def _file(name: EncoderName, chosen: Settings, tag: Any) -> Path | None:
    if chosen.seed is not None:
        return None
    if chosen.path is None:
        return downloaded(tag.url, str(name))
    if chosen.path.is_dir():
        raise EncoderError(f"{chosen.path} is a folder", where=str(name), hint="name the file: weights=FILE")
    return chosen.path


def downloaded(url: str, where: str) -> Path:
    """Return the file in torch.hub's cache, fetched where it is not there yet or is damaged, checked by its sha256.

    Raises:
        EncoderError: it cannot be downloaded, or what comes does not match the hash in its name.
    """
    from torch import hub

    file = Path(hub.get_dir()) / "checkpoints" / Path(urlparse(url).path).name
    if file.is_file() and not _intact(file):
        file.unlink()
    if not file.is_file():
        _download(url, file, where)
    return file


def _download(url: str, file: Path, where: str) -> None:
    from torch import hub

    file.parent.mkdir(parents=True, exist_ok=True)
    found = HASH.search(file.name)
    try:
        # torch.hub has no timeout of its own, and prints into a document that another program may read
        with urlopen(Request(url, method="HEAD"), timeout=TIMEOUT_S):  # noqa: S310  the URL is torchvision's own
            pass
        hub.download_url_to_file(url, str(file), found[1] if found else None, progress=False)
    except (OSError, HTTPException, RuntimeError) as error:
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise EncoderError(
            f"{file.name} cannot be downloaded: {reason}",
            where=f"{where}, {url}", hint=f"{OFFLINE_HINT['image']}, or copy the file to {file}",
        ) from error  # fmt: skip


def _intact(file: Path) -> bool:
    found = HASH.search(file.name)
    return found is None or sha256_file(file).startswith(found[1])
