"""Vectors of texts and pictures, as OpenAI's clients ask for them, and the models that make them."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Sequence
from functools import partial
from typing import Any

import orjson
from fastapi import APIRouter, Request, Response

from api.batching import Made, Value
from api.embedded import EmbeddingsReply, EmbeddingsRequest, ModelsReply
from api.envelope import Document
from api.routes._context import Serves, waiting_of
from api.schemas import errors
from api.serving import Serving, shortened
from api.strict import StrictRoute
from api.waiting import awaited
from embedder.errors import UsageError
from embedder.records import FloatMatrix, Medium, Role
from embedder.space import Space

router = APIRouter(tags=["embeddings"], route_class=StrictRoute)
MANY, FEW = 100_000, 64


@router.post("/v1/embeddings", responses={200: {"model": EmbeddingsReply}, **errors(404, 415, 422, 504, 507)})
async def create_embeddings(asked: EmbeddingsRequest, request: Request, acts: Serves) -> Response:
    """Embed texts, token ids or pictures; the vectors are in the order of the inputs."""
    name, aside = await resolved(request, acts, asked.model), waiting_of(request).aside
    values: Sequence[Value]
    if isinstance(asked.input, str) and asked.modality == "text":
        values = [asked.input]
    else:
        values = await aside(partial(_values, acts, name, asked))
    made, space = await vectors(request, acts, name, values, asked.modality, asked.input_type)
    found = shortened(made.vectors, asked.dimensions, space)
    body = partial(_body, found, made.tokens, asked, space)
    return Response(body() if found.size < MANY else await aside(body), media_type="application/json")


async def resolved(request: Request, acts: Serving, model: str | None) -> str:
    """Return the name of a model's encoder. Raises as `Models.resolve`."""
    known = acts.models.known(model)
    return known if known is not None else await waiting_of(request).aside(partial(acts.models.resolve, model))


@router.get("/v1/models", responses={200: {"model": ModelsReply}, **errors()})
def list_models(acts: Serves, request: Request) -> Document:
    """List the models that may be asked for: those of `--model`, and the encoders of the store's Spaces."""
    created = request.app.state.started
    rows = [
        {
            "id": one["id"], "object": "model", "created": created, "owned_by": one["encoder"].partition(":")[0],
            "encoder": one["encoder"], "loaded": one["loaded"], "capabilities": _can(one["media"]),
            "stats": {name: one[name] for name in ("bytes", "users", "waiting") if name in one},
        }
        for one in acts.models.standing()
    ]  # fmt: skip
    return Document({"object": "list", "data": rows})


async def vectors(
    request: Request, acts: Serving, name: str, values: Sequence[Value], medium: Medium, role: Role
) -> tuple[Made, Space]:
    """Return vectors from the batches of a model, and their Space. Raises as `Serving.made`."""
    future = acts.submit_at_once(name, values, medium, role) if len(values) < FEW else None
    if future is None:
        future = await waiting_of(request).aside(partial(acts.submit, name, values, medium, role))
    made = await awaited(request, future)
    return made, made.space


def _can(media: Sequence[str] | None) -> list[str]:
    return ["embed"] if media is None else [{"text": "embed", "image": "image_embed"}[one] for one in media]


def _values(acts: Serving, name: str, asked: EmbeddingsRequest) -> list[Value]:
    """Return the inputs as texts, or as the bytes of pictures."""
    given: Any = asked.input
    many = [given] if isinstance(given, str) or isinstance(given[0], int) else given
    if isinstance(many[0], list):
        if asked.modality == "image":
            raise UsageError("a picture is not given by token ids", hint="send it as a data: URI")
        return list(acts.texts_of(name, many))
    return [picture(one) for one in many] if asked.modality == "image" else list(many)


def picture(text: str) -> bytes:
    """Return the bytes of a picture in base64 or in a `data:` URI. Raises `UsageError` where it is in neither."""
    if text.startswith("data:"):
        text = text.partition(",")[2]
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise UsageError("a picture is not base64", hint="send the file's bytes in standard base64") from error


def _body(found: FloatMatrix, tokens: int, asked: EmbeddingsRequest, space: Space) -> bytes:
    """Return the reply's bytes: vectors leave from memory, by orjson or as base64 of little-endian float32."""
    rows: Sequence[Any] = list(found)
    if asked.encoding_format == "base64":
        rows = [base64.b64encode(row.astype("<f4", copy=False).tobytes()).decode("ascii") for row in found]
    data = [{"object": "embedding", "index": at, "embedding": row} for at, row in enumerate(rows)]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    document = {"object": "list", "data": data, "model": asked.model, "usage": usage, "space": space.fingerprint}
    return orjson.dumps(document, option=orjson.OPT_SERIALIZE_NUMPY)
