"""Encoders whose weights are elsewhere: where they answer, and what a kind of them offers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol, runtime_checkable

from embedder.naming import EncoderName

if TYPE_CHECKING:
    from embedder.encoder import Encoder

REMOTE = "remote"
"""The `device` of an encoder that runs elsewhere: what it is given is sent there, and may cost money."""


@dataclass(frozen=True)
class Endpoint:
    """Where a remote encoder answers, and how patient to be with it.

    `base_url` ends before `/embeddings`. `timeout_s` is for one answer; `attempts` are all tries of one request, with
    about `backoff_s`, twice that, four times that … between them. With `dry_run` nothing is ever sent: an encoder then
    only says what it would be, and its Space has 0 dimensions where only an answer would tell them.
    """

    base_url: str
    api_key: str | None = field(default=None, repr=False)
    timeout_s: float = 60.0
    attempts: int = 6
    backoff_s: float = 0.5
    dry_run: bool = False


@runtime_checkable
class RemoteKind(Protocol):
    """What a file in `embedder/encoders/` offers besides, where its encoders are reached over a network."""

    def connect(self, name: EncoderName, endpoint: Endpoint | None) -> Encoder:
        """Ask the endpoint what it makes and describe it. Raises `EncoderError`."""
