"""A Space: what one encoder configuration makes of items, and the fingerprint that names it exactly."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from embedder.errors import Damaged, SpaceMismatch
from embedder.records import MEDIA, Medium

SPACE_VERSION = 1
ABSENT = object()


def canonical_json(value: Any) -> str:
    """Return the one JSON spelling of `value`: sorted keys, no blanks, ASCII, no NaN.

    Raises:
        ValueError: NaN or infinity.
        TypeError: something that JSON does not have.
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
            Damaged: a field is missing or has no sense, or the record and its fingerprint do not agree.
        """
        try:
            media = tuple(record["media"])
            if unknown := set(media) - set(MEDIA):
                raise ValueError(f"no medium is called {', '.join(sorted(map(str, unknown)))}")
            space = cls(
                encoder=str(record["encoder"]), dim=record["dim"], media=media,
                identity=dict(record["identity"]), provenance=dict(record.get("provenance", {})),
                metric=record["metric"],
            )  # fmt: skip
            made, stored = space.fingerprint, record["fingerprint"]
        except KeyError as error:
            raise Damaged(f"a stored Space lacks {error}", hint="restore it from a backup, or embed again") from error
        except (TypeError, ValueError) as error:
            raise Damaged(f"a stored Space cannot be read: {error}", hint="restore it from a backup") from error
        if made != stored:
            raise Damaged(
                f"a stored Space says {stored} but its fields make {made}",
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
            where=f"differs in: {', '.join(differences(self, other))}",
            hint="use the encoder of this Space, or embed the collection with the other one first",
        )  # fmt: skip


def differences(a: Space, b: Space) -> list[str]:
    """Return the names of the facts in which two Spaces differ, such as `dim` or `image.mean`; none if they are one."""
    found = [name for name in ("dim", "metric") if getattr(a, name) != getattr(b, name)]
    if sorted(a.media) != sorted(b.media):
        found.append("media")
    return found + list(_differing(a.identity, b.identity, ""))


def _differing(a: Mapping[str, Any], b: Mapping[str, Any], prefix: str) -> Iterator[str]:
    for key in sorted({*a, *b}):
        one, two = a.get(key, ABSENT), b.get(key, ABSENT)
        if isinstance(one, Mapping) and isinstance(two, Mapping):
            yield from _differing(one, two, f"{prefix}{key}.")
        elif one is ABSENT or two is ABSENT or canonical_json(one) != canonical_json(two):
            yield f"{prefix}{key}"
