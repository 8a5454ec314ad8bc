"""Settings: the only file that reads the environment. Typed, frozen, and handed down as plain arguments."""

from __future__ import annotations

import os
from typing import Any

from pydantic import Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, SettingsConfigDict

from embedder.errors import UnknownName, UsageError
from embedder.remote import Endpoint

PREFIX = "PERMAFROST_"
OPENAI = "https://api.openai.com/v1"


class Settings(BaseSettings):
    """What can be set by `PERMAFROST_…` variables; a command line's flags come before them.

    `store`: the folder of the store. `image_encoder`, `text_encoder`: used for a new collection where none is named.
    `device`: auto, cpu, cuda or cuda:N. `runtime`: torch, openvino, onnx or auto runs the networks.
    `workers`: decoding processes; 0 means one less than the cores, at least one.
    `recall_sample`: the share of queries, 0 to 1, that are answered again exactly in the background.
    `openai_base_url`, `openai_api_key`: where `openai:` encoders answer; with a key alone, OpenAI itself.
    """

    model_config = SettingsConfigDict(env_prefix=PREFIX, frozen=True, extra="forbid")

    store: str = "permafrost.store"
    image_encoder: str = "open_clip:ViT-B-32/laion2b_s34b_b79k"
    text_encoder: str = "sentence_transformers:sentence-transformers/all-MiniLM-L6-v2"
    device: str = "auto"
    runtime: str = "torch"
    workers: int = 0
    recall_sample: float = Field(default=0.01, ge=0, le=1)
    openai_base_url: str = ""
    openai_api_key: SecretStr | None = None

    @property
    def endpoint(self) -> Endpoint | None:
        """Where `openai:` encoders answer; None where neither an address nor a key is set."""
        key = self.openai_api_key.get_secret_value() if self.openai_api_key else None
        return Endpoint(self.openai_base_url or OPENAI, key) if self.openai_base_url or key else None

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
    # threads that wait busily starve the decoders: lite0 made 8 pictures a second on 2 cores, and 50 with patient ones;
    # read by the library when torch is first imported
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
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
