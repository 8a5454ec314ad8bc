"""Settings: the only file that reads the environment. Typed, frozen, and handed down as plain arguments."""

from __future__ import annotations

import os
from typing import Any

from pydantic import ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from embedder.errors import UnknownName, UsageError

PREFIX = "PERMAFROST_"


class Settings(BaseSettings):
    """What can be set by `PERMAFROST_…` variables; a command line's flags come before them.

    `store`: the folder of the store. `image_encoder`, `text_encoder`: used for a new collection where none is named.
    `device`: auto, cpu, cuda or cuda:N. `workers`: decoding processes; 0 means one less than the cores, at least one.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    store: str = "permafrost.store"
    image_encoder: str = "open_clip:ViT-B-32/laion2b_s34b_b79k"
    text_encoder: str = "sentence_transformers:sentence-transformers/all-MiniLM-L6-v2"
    device: str = "auto"
    workers: int = 0

    @property
    def decode_workers(self) -> int:
        """How many decoding processes to start."""
        return self.workers or max(1, (os.cpu_count() or 2) - 1)


def read_settings(**given: Any) -> Settings:
    """Read the environment; what is `given` and not None comes first.

    Raises:
        UnknownName: a `PERMAFROST_…` variable that does not exist; the nearest ones are in the hint.
        UsageError: a value of the wrong type.
    """
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in os.environ:
        if name.upper().startswith(PREFIX) and name.upper() not in known:
            raise UnknownName.of(
                "setting", name, known, where="the environment", hint=f"known: {', '.join(sorted(known))}"
            )
    try:
        return Settings(**{name: value for name, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors()[0]
        raise UsageError(
            f"setting {PREFIX}{str(first['loc'][0]).upper()}: {first['msg']}", where="the environment"
        ) from error
