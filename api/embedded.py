"""What OpenAI's clients and those of Text Embeddings Inference send, and what they read."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.schemas import MOST_EMBEDDED, Reply, Strict, Text

Tokens = Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1, max_length=65_536)]
Inputs = Annotated[list[Text], Field(min_length=1, max_length=MOST_EMBEDDED)]


class EmbeddingsRequest(Strict):
    """What OpenAI's clients send. `modality` (as Infinity has it) and `input_type` are further."""

    input: Text | Inputs | Tokens | Annotated[list[Tokens], Field(min_length=1, max_length=MOST_EMBEDDED)] = Field(
        description="Texts, or token ids of the model's own tokenizer; pictures as data: URIs or base64."
    )
    model: str = Field(min_length=1, max_length=500, description="An encoder's name, or an alias that is served.")
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: int | None = Field(None, ge=1, le=65_536, description="Only the first ones, of unit length again.")
    user: str | None = Field(None, max_length=500)
    modality: Literal["text", "image"] = "text"
    input_type: Literal["query", "document"] = "document"


class EmbedRequest(Strict):
    """What TEI's clients send. Longer texts are cut, as `/info` says."""

    inputs: Text | Inputs
    normalize: bool = True
    truncate: bool | None = None
    truncation_direction: Literal["left", "right", "Left", "Right"] = "right"
    prompt_name: Literal["query", "document"] | None = None
    dimensions: int | None = Field(None, ge=1, le=65_536)


class TeiPredictRequest(Strict):
    """Texts to classify with the head that is served."""

    inputs: Text | Inputs
    raw_scores: bool = False
    truncate: bool | None = None


class Sentences(Strict):
    """One text, and those to compare it with."""

    source_sentence: Text
    sentences: Inputs


class SimilarityRequest(Strict):
    """What TEI's clients send to compare texts."""

    inputs: Sentences


class EmbeddingsReply(Reply):
    """Vectors, in the order of the inputs; `space` is their fingerprint."""

    object: Literal["list"]
    data: list[dict[str, Any]]
    model: str
    usage: dict[str, int]
    space: str


class ModelsReply(Reply):
    """What may be asked for as `model`."""

    object: Literal["list"]
    data: list[dict[str, Any]]


class TeiError(BaseModel):
    """The shape of errors that TEI's clients expect."""

    error: str
    error_type: str
