"""The routes of Text Embeddings Inference, for its clients; errors are `{error, error_type}` here."""

from __future__ import annotations

from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Request, Response

from api.batching import MOST_TOKENS, MOST_WAITING
from api.embedded import EmbedRequest, SimilarityRequest, TeiError, TeiPredictRequest
from api.envelope import Document
from api.routes._context import Serves, waiting_of
from api.routes.embeddings import resolved, vectors
from api.schemas import MOST_EMBEDDED, errors
from api.serving import Serving, shortened
from api.strict import StrictRoute
from embedder.errors import UsageError
from embedder.records import FloatMatrix, Role
from embedder.space import Space

router = APIRouter(tags=["tei"], route_class=StrictRoute)
SPACE = "x-permafrost-space"
FAILS = errors(404, 415, 422, 504, 507, model=TeiError)


@router.post("/", include_in_schema=False)
@router.post("/embed", responses={200: {"model": list[list[float]]}, **FAILS})
async def tei_embed(asked: EmbedRequest, request: Request, acts: Serves) -> Response:
    """Embed texts with the first model that is served; the Space is in the header `X-Permafrost-Space`."""
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    found, space = await _encoded(request, acts, texts, asked.prompt_name or "document")
    if asked.normalize and not space.identity.get("normalize"):
        found = np.asarray(found / np.linalg.norm(found, axis=1, keepdims=True), dtype=np.float32)
    elif not asked.normalize and space.identity.get("normalize"):
        raise UsageError(
            f"the vectors of {space.encoder} have unit length", hint="serve it as --model NAME?normalize=false"
        )
    return _reply(list(shortened(found, asked.dimensions, space)), space)


@router.post("/similarity", responses={200: {"model": list[float]}, **FAILS})
async def tei_similarity(asked: SimilarityRequest, request: Request, acts: Serves) -> Response:
    """Return the cosine of one text with each of others."""
    given = asked.inputs
    found, space = await _encoded(request, acts, [given.source_sentence, *given.sentences], "document")
    rows = found.astype(np.float64)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return _reply(rows[1:] @ rows[0], space)


@router.post("/predict", responses={200: {"model": list[Any]}, **FAILS})
async def tei_predict(asked: TeiPredictRequest, acts: Serves, request: Request) -> Document:
    """Classify texts with the head of `--predict`, most probable class first; one list for one text."""
    if acts.served.head is None:
        raise UsageError("no head is served", hint="permafrost serve --predict COLLECTION/HEAD")
    if asked.raw_scores:
        raise UsageError("a head gives probabilities, no raw scores", hint="leave raw_scores out")
    collection, head = acts.served.head
    texts = [asked.inputs] if isinstance(asked.inputs, str) else asked.inputs
    inputs = [{"text": text} for text in texts]
    found = await waiting_of(request).attended(request, partial(acts.classify, collection, head, inputs))
    if found["results"] and not found["results"][0]["probabilities"]:
        raise UsageError(
            f"head {head} predicts numbers, which this route has no place for", hint="serve --predict another"
        )
    rows = [
        [{"score": score, "label": label} for label, score in sorted(one["probabilities"].items(), key=lambda p: -p[1])]
        for one in found["results"]
    ]
    reply = Document(rows[0] if isinstance(asked.inputs, str) else rows)
    reply.headers[SPACE] = found["space"]
    return reply


@router.get("/info", responses={200: {"model": dict[str, Any]}, **FAILS})
def tei_info(acts: Serves) -> Document:
    """Say what `/embed` answers with, in TEI's words."""
    name = acts.models.resolve(None)
    space = acts.space_of(name)
    facts = {
        "model_id": name, "model_sha": space.fingerprint if space else None,
        "model_dtype": space.dtype if space else None, "served_model_name": acts.models.names()[0],
        "model_type": {"embedding": {"pooling": str(space.identity.get("pooling", "")) if space else ""}},
        "max_concurrent_requests": MOST_WAITING, "max_input_length": None, "max_batch_tokens": MOST_TOKENS,
        "max_batch_requests": None, "max_client_batch_size": MOST_EMBEDDED, "auto_truncate": True,
        "tokenization_workers": 1, "version": metadata.version("permafrost"), "sha": None,
    }  # fmt: skip
    return Document(facts)


async def _encoded(request: Request, acts: Serving, texts: list[str], role: Role) -> tuple[FloatMatrix, Space]:
    name = await resolved(request, acts, None)
    made, space = await vectors(request, acts, name, list(texts), "text", role)
    return made.vectors, space


def _reply(value: Any, space: Space) -> Response:
    body = orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY)
    return Response(body, media_type="application/json", headers={SPACE: space.fingerprint})
