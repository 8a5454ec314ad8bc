"""A tuned encoder on disk: a folder with its weights, the rows that it was tuned on, and, written last, a manifest.

    encoder.safetensors   the weights that changed, or low-rank factors of what is added to them
    rows.json             sha256 of the contents it saw with their labels, and of those that were held out
    manifest.json         the base encoder, how it was tuned, what was measured, and checksums of all three

The manifest holds its own checksum; nothing is made of the weights before both agree. No torch here.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.errors import EncoderError
from embedder.space import Space, canonical_json

FORMAT = 1
WEIGHTS, ROWS, MANIFEST, CHECK = "encoder.safetensors", "rows.json", "manifest.json", "manifest_sha256"
SEEN, HELD_OUT = "seen", "held_out"
DIGITS = 16
NAME = re.compile(f"[0-9a-f]{{{DIGITS}}}")
AGAIN = "copy it again, or tune again: permafrost finetune"


@dataclass(frozen=True)
class Checkpoint:
    """A folder whose manifest was read and agrees with its checksum."""

    folder: Path
    facts: Mapping[str, Any]

    @property
    def base(self) -> str:
        """The name of the encoder that was tuned."""
        return str(self.facts["base"])

    @property
    def digest(self) -> str:
        """The sha256 of the weights, in hex."""
        return str(self.facts["sha256"])

    @cached_property
    def rows(self) -> dict[str, frozenset[str]]:
        """The content hashes `seen` with their labels while it was tuned, and those `held_out`. Raises as `read`."""
        record = json.loads(_checked(self.folder / ROWS, self.facts["rows_sha256"]))
        return {name: frozenset(record[name]) for name in (SEEN, HELD_OUT)}

    def weights(self) -> bytes:
        """Return the bytes of the weights. Raises as `read`."""
        return _checked(self.folder / WEIGHTS, self.digest)


def read(folder: Path) -> Checkpoint:
    """Open the folder of a tuned encoder.

    Raises:
        EncoderError: it is none, or a file is missing or fails its checksum.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_text("utf-8"))
        found = facts.pop(CHECK, None)
    except FileNotFoundError as error:
        raise EncoderError(f"{folder} holds no tuned encoder", hint="permafrost finetune makes one") from error
    except (OSError, ValueError, AttributeError) as error:
        raise EncoderError(f"{folder / MANIFEST} cannot be read: {error}", hint=AGAIN) from error
    if found != _sha256(canonical_json(facts).encode()):
        raise EncoderError(f"{MANIFEST} fails its checksum", where=str(folder), hint=AGAIN)
    if facts["format"] != FORMAT:
        raise EncoderError(f"the tuned encoder has format {facts['format']}; this version reads {FORMAT}",
                           where=str(folder))  # fmt: skip
    return Checkpoint(folder, facts)


def pack(
    tensors: Mapping[str, NDArray[np.float32]], base: Space, rows: Mapping[str, Sequence[str]], facts: Mapping[str, Any]
) -> tuple[str, dict[str, bytes]]:
    """Return the name of a tuned encoder (the first digits of its weights' sha256) and its files, in writing order.

    The weights name the Space of their base, so equal ones of two bases have two names.
    """
    from safetensors.numpy import save

    data = save(dict(sorted(tensors.items())), metadata={"base_space": base.fingerprint})
    listed = canonical_json({name: sorted(set(rows[name])) for name in (SEEN, HELD_OUT)}).encode()
    manifest = {
        **facts, "format": FORMAT, "base": base.encoder, "base_space": base.fingerprint,
        "base_weights": dict(base.identity["weights"]), "sha256": _sha256(data), "rows_sha256": _sha256(listed),
    }  # fmt: skip
    sealed = {**manifest, CHECK: _sha256(canonical_json(manifest).encode())}
    told = json.dumps(sealed, indent=1, allow_nan=False).encode() + b"\n"
    return manifest["sha256"][:DIGITS], {WEIGHTS: data, ROWS: listed, MANIFEST: told}


def _checked(path: Path, expected: str) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise EncoderError(f"{path} cannot be read: {error}", hint=AGAIN) from error
    if _sha256(data) != expected:
        raise EncoderError(f"{path.name} fails its checksum", where=str(path.parent), hint=AGAIN)
    return data


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
