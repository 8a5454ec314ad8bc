"""Classify without training: classes by their names."""

from __future__ import annotations

from fastapi import APIRouter

from api.envelope import Document
from api.routes._context import Serves
from api.schemas import ClassifyReply, ClassifyRequest, errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1", tags=["heads"], route_class=StrictRoute)


@router.post("/classify", responses={200: {"model": ClassifyReply}, **errors(404, 409, 413, 415, 422, 503)})
def classify(asked: ClassifyRequest, acts: Serves) -> Document:
    """Say which of the labels each input is like most, by an encoder that reads texts too (zero-shot)."""
    found = acts.classify_by_name(
        [one.opened(acts.fetch) for one in asked.inputs], asked.labels, collection=asked.collection, model=asked.model,
        templates=asked.templates, space=asked.space, top_k=asked.top_k,
    )  # fmt: skip
    return Document(found)
