"""Weight files: found, hashed as bytes, and read without running anything that they hold."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from embedder.errors import EncoderError
from embedder.space import canonical_json

SUFFIXES = (".safetensors", ".bin", ".pth", ".pt")
CHUNK = 1 << 20


def sha256_file(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hex; remembered for as long as the file stays as it is."""
    stat = path.stat()
    return _sha256(str(path), stat.st_ino, stat.st_size, stat.st_mtime_ns)


@lru_cache(maxsize=256)
def _sha256(path: str, inode: int, size: int, mtime_ns: int) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def fingerprint(files: Sequence[Path], root: Path | None = None) -> str:
    """Return the sha256 of one file, or of the sorted (name relative to `root`, sha256) list of several."""
    if len(files) == 1:
        return sha256_file(files[0])
    pairs = sorted([str(f.relative_to(root) if root else f.name), sha256_file(f)] for f in files)
    return sha256_bytes(canonical_json(pairs).encode())


def sha256_bytes(data: bytes) -> str:
    """Return the sha256 of bytes in memory, in hex."""
    return hashlib.sha256(data).hexdigest()


def listed(files: Sequence[Path]) -> list[dict[str, str]]:
    """Return names and hashes, for provenance."""
    return [{"name": file.name, "sha256": sha256_file(file)} for file in files]


def find_weights(folder: Path, preferred: Sequence[str]) -> Path:
    """Return the weight file of a folder: the first of the `preferred` names, else the only one there is.

    Raises:
        EncoderError: there is none, or several and no way to choose.
    """
    for known in preferred:
        if (folder / known).is_file():
            return folder / known
    found = sorted(p for p in folder.iterdir() if p.suffix in SUFFIXES)
    if len(found) == 1:
        return found[0]
    what = "holds no weights" if not found else f"holds several weight files: {', '.join(p.name for p in found)}"
    raise EncoderError(f"{folder} {what}", hint="name the file: weights=FILE")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        EncoderError: it is missing, or is not a JSON object.
    """
    try:
        record = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise EncoderError(f"{path} cannot be read: {error}", hint="copy or download the folder again") from error
    if not isinstance(record, dict):
        raise EncoderError(f"{path} holds no JSON object", hint="copy or download the folder again")
    return record


def read_tensors(path: Path) -> dict[str, Any]:
    """Return the state dict in a weight file, lazily where the format allows it. Nothing in it is executed.

    Raises:
        EncoderError: it is damaged, cut short, or holds something else than tensors.
    """
    import torch
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return dict(load_file(path))
        record = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise damaged(path, error) from error
    if not isinstance(record, dict):
        raise damaged(path, TypeError(f"it holds a {type(record).__name__}"))
    return record


def damaged(path: Path, error: Exception) -> EncoderError:
    """Return the error for a weight file that cannot be read or does not fit."""
    reason = " ".join(str(error).split())[:300] or type(error).__name__
    size = f"{path.stat().st_size} bytes" if path.exists() else "missing"
    return EncoderError(
        f"{path.name} cannot be read as the weights asked for: {reason}",
        where=f"{path} ({size})",
        hint="if it is cut short or damaged, download or copy it again; else check that it is of this architecture",
    )
