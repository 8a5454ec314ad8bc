"""A Space: what one encoder configuration makes of items, and the fingerprint that names it exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from embedder.errors import Damaged, SpaceMismatch
from embedder.records import MEDIA, Medium

SPACE_VERSION = 1


def canonical_json(value: Any) -> str:
    """Return the one JSON spelling of `value`: sorted keys, no blanks, ASCII, no NaN.

    Raises:
        ValueError: NaN or infinity.
    """
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


@dataclass(frozen=True)
class Space:
    """A vector space.

    `identity` holds the sha256 of the weights and everything configured that changes a vector (architecture, layer,
    pooling, dtype, normalisation, preprocessing, prompts). `provenance` holds what does not: revision, library
    versions, licence, file hashes. Device, batch size and runtime are in neither: the golden inputs answer for them.
    """

    encoder: str
    dim: int
    media: tuple[Medium, ...]
    identity: Mapping[str, Any]
    provenance: Mapping[str, Any] = field(default_factory=dict)
    metric: str = "cosine"

    @cached_property
    def fingerprint(self) -> str:
        """32 hex digits: the head of the sha256 over identity, dimension, media and metric."""
        facts = {
            "version": SPACE_VERSION, "dim": self.dim, "media": sorted(self.media),
            "metric": self.metric, "identity": dict(self.identity),
        }  # fmt: skip
        return hashlib.sha256(canonical_json(facts).encode()).hexdigest()[:32]

    @property
    def short(self) -> str:
        """The first twelve digits of the fingerprint, for people."""
        return self.fingerprint[:12]

    @property
    def dtype(self) -> str:
        """The precision the weights ran in: float32, bfloat16 or float16."""
        return str(self.identity.get("dtype", "float32"))

    def __str__(self) -> str:
        return f"{self.short} ({self.encoder}, {self.dim}-d)"

    def as_json(self) -> dict[str, Any]:
        """Return the whole Space as plain JSON values, with its fingerprint."""
        return {
            "fingerprint": self.fingerprint, "encoder": self.encoder, "dim": self.dim, "media": list(self.media),
            "metric": self.metric, "identity": dict(self.identity), "provenance": dict(self.provenance),
        }  # fmt: skip

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> Space:
        """Rebuild a Space and check it against the fingerprint stored beside it.

        Raises:
            Damaged: a field is missing, or the record and its fingerprint do not agree.
        """
        try:
            media = tuple(m for m in MEDIA if m in record["media"])
            space = cls(
                encoder=str(record["encoder"]), dim=int(record["dim"]), media=media, identity=record["identity"],
                provenance=record.get("provenance", {}), metric=str(record["metric"]),
            )  # fmt: skip
            stored = record["fingerprint"]
        except (KeyError, TypeError) as error:
            raise Damaged(f"a stored Space lacks {error}", hint="restore it from a backup, or embed again") from error
        if space.fingerprint != stored:
            raise Damaged(
                f"a stored Space says {stored} but its fields make {space.fingerprint}",
                hint="its record was edited or damaged; embed again into a new collection",
            )
        return space

    def require(self, other: Space, *, what: str) -> None:
        """Refuse to let `other` meet this Space; equal dimension is not equal space.

        Raises:
            SpaceMismatch: the fingerprints differ; both Spaces and the fields that differ are named.
        """
        if self.fingerprint == other.fingerprint:
            return
        raise SpaceMismatch(
            f"{what} is of Space {other}, not of {self}",
            where=f"differs in: {', '.join(differences(self, other)) or 'media'}",
            hint="use the encoder of this Space, or embed the collection with the other one first",
        )  # fmt: skip


def differences(a: Space, b: Space) -> list[str]:
    """Return the names of the facts in which two Spaces differ, such as `dim` or `image.mean`."""
    found = [name for name in ("dim", "metric") if getattr(a, name) != getattr(b, name)]
    return found + [name for name, one, two in _walk(a.identity, b.identity, "") if one != two]


def _walk(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> list[tuple[str, Any, Any]]:
    rows: list[tuple[str, Any, Any]] = []
    for key in sorted({*a, *b}):
        one, two = a.get(key), b.get(key)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            rows += _walk(one, two, f"{prefix}{key}.")
        else:
            rows.append((f"{prefix}{key}", _plain(one), _plain(two)))
    return rows


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
