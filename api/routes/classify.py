"""Classify without training: classes by their names."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.envelope import Document
from api.routes._context import Serves, waiting_of
from api.schemas import ClassifyReply, ClassifyRequest, errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1", tags=["heads"], route_class=StrictRoute)


@router.post("/classify", responses={200: {"model": ClassifyReply}, **errors(404, 409, 413, 415, 422, 503, 504)})
async def classify(asked: ClassifyRequest, acts: Serves, request: Request) -> Document:
    """Say which of the labels each input is like most, by an encoder that reads texts too (zero-shot)."""

    def found() -> Document:
        inputs = [one.opened(acts.fetch) for one in asked.inputs]
        # who may read may not have any encoder loaded, only those that are served
        model = acts.models.resolve(asked.model) if asked.model else None
        named = {"collection": asked.collection, "model": model, "space": asked.space}
        made = acts.classify_by_name(inputs, asked.labels, templates=asked.templates, top_k=asked.top_k, **named)
        return Document(made)

    return await waiting_of(request).attended(request, found)
