"""Texts sent to an OpenAI-compatible endpoint: OpenAI itself, TEI, infinity, vLLM, llama.cpp, another Permafrost.

`openai:text-embedding-3-small` · `openai:text-embedding-3-large?dimensions=256` · `openai:BAAI/bge-m3`

The address and the key come from the settings, never from a name: a name can reach this machine over HTTP, and must not
choose where a key is sent. Weights that are elsewhere cannot be hashed, so the Space knows them by the model's name and
the host; a change behind that name is noticed by the golden vectors alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import Encoder, TextTower
from embedder.encoders._common import OFFLINE_HINT, describe, prompts, settings, versions
from embedder.errors import EncoderError, UsageError
from embedder.naming import EncoderName
from embedder.records import FloatMatrix, Role
from embedder.remote import REMOTE, Endpoint

OPTIONS = frozenset({"normalize", "dimensions", "query_prompt", "document_prompt"})
MOST_TEXTS = 2048
MOST_TOKENS = 200_000
MOST_CHARS = 32_768
BYTES_PER_TOKEN = 4


def catalogue() -> list[str]:
    """Return OpenAI's own names; an endpoint may offer others."""
    return [f"openai:text-embedding-{name}" for name in ("3-small", "3-large", "ada-002")]


def load(name: EncoderName, device: str) -> Encoder:
    """Refuse: without an endpoint there is nobody to ask. `device` is not used."""
    return connect(name, None)


def connect(name: EncoderName, endpoint: Endpoint | None) -> Encoder:
    """Ask the endpoint for one vector, to learn the dimension, and describe it.

    Raises:
        UsageError: an address, a key or an option that cannot be used.
        EncoderError: no endpoint or key is set; nobody answers there; the endpoint refuses; or its answer is not one.
    """
    if name.revision:
        raise UsageError("openai has no revisions", where=str(name), hint=f"write openai:{name.name}")
    chosen = settings(name)
    dimensions = name.integer("dimensions", None, low=1, high=1 << 16)
    prompt = prompts(name)
    if endpoint is None:
        raise EncoderError(
            "no endpoint is set", where=str(name),
            hint=f"set PERMAFROST_OPENAI_BASE_URL and PERMAFROST_OPENAI_API_KEY, or {OFFLINE_HINT['text']}",
        )  # fmt: skip
    forward = _Forward(name, endpoint, dimensions)

    def tokenize(text: str, role: Role) -> str:
        return prompt[role] + text

    known = (dimensions or 0) if endpoint.dry_run else int(forward([tokenize("dimension", "document")]).shape[1])
    space = describe(
        name, chosen, dim=known, architecture="openai",
        weights={"remote": name.name, "host": urlsplit(endpoint.base_url).hostname}, layer="remote", pooling="remote",
        more={"dimensions": dimensions} if dimensions else {},
        text={"max_chars": MOST_CHARS, **{f"{role}_prompt": text for role, text in prompt.items()}},
        provenance={"source": forward.client.address, "licence": "unknown", "versions": versions("httpx2")},
    )  # fmt: skip
    return Encoder(name, space, REMOTE, text=TextTower(tokenize, approximate_tokens, forward, MOST_CHARS))


def approximate_tokens(text: str) -> int:
    """Return about how many tokens a text has: one for every four bytes of UTF-8, and at least one."""
    return max(1, math.ceil(len(text.encode("utf-8", "replace")) / BYTES_PER_TOKEN))


class _Forward:
    """Texts to vectors, in as few requests as the endpoint takes; `most` falls when it says that one is too large."""

    def __init__(self, name: EncoderName, endpoint: Endpoint, dimensions: int | None) -> None:
        from embedder.encoders._openai_client import Client

        self.body: dict[str, Any] = {"model": name.name, "encoding_format": "base64"}
        if dimensions:
            self.body["dimensions"] = dimensions
        self.dimensions = dimensions
        self.client = Client(endpoint, str(name))
        self.most = MOST_TEXTS

    def __call__(self, prepared: Sequence[Any]) -> NDArray[np.floating[Any]]:
        """Return (n, dim) float32, in the order of the texts.

        Raises:
            Undecodable: the endpoint refuses these texts; in a smaller batch it may take some of them.
            EncoderError: it does not answer, or not with one vector of the right length for each text.
        """
        arrays = [row for texts in _requests(prepared, self.most) for row in self._halved(list(texts))]
        widths = {array.shape[1] for array in arrays}
        if len(widths) != 1 or (self.dimensions and widths != {self.dimensions}):
            raise EncoderError(
                f"the endpoint gave vectors of {', '.join(map(str, sorted(widths)))} dimensions"
                + (f", and {self.dimensions} were asked for" if self.dimensions else ""),
                where=self.client.where, hint="leave out dimensions= for a model that cannot be shortened",
            )  # fmt: skip
        return np.concatenate(arrays)

    def _halved(self, texts: list[str]) -> list[FloatMatrix]:
        from embedder.encoders._openai_client import TooLarge

        try:
            return [self.client.embed({**self.body, "input": texts}, len(texts))]
        except TooLarge:
            if len(texts) == 1:
                raise
        half = (len(texts) + 1) // 2
        self.most = min(self.most, half)
        return [row for start in range(0, len(texts), half) for row in self._halved(texts[start : start + half])]


def _requests(texts: Sequence[str], most: int) -> Iterator[Sequence[str]]:
    """Yield runs of texts, each of at most `most` and of about 200,000 tokens."""
    start, tokens = 0, 0
    for stop, text in enumerate(texts):
        cost = approximate_tokens(text)
        if stop > start and (stop - start >= most or tokens + cost > MOST_TOKENS):
            yield texts[start:stop]
            start, tokens = stop, 0
        tokens += cost
    yield texts[start:]
