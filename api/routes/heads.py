"""Heads: what is there, and what they predict."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request

from api.envelope import Document
from api.routes._context import Acts, CollectionName, Serves, waiting_of
from api.schemas import MOST_K, HeadReply, HeadsReply, LabelErrorsReply, PredictReply, PredictRequest, errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["heads"], route_class=StrictRoute)
HeadName = Annotated[
    str, Path(description="A head's name, or NAME@VERSION; without a version the newest.", max_length=100)
]


@router.get("/{collection}/heads", responses={200: {"model": HeadsReply}, **errors(404, 422)})
def list_heads(collection: CollectionName, acts: Acts) -> Document:
    """List the heads of a collection."""
    return Document(acts.heads(collection))


@router.get("/{collection}/heads/{head}", responses={200: {"model": HeadReply}, **errors(404, 422)})
def get_head(collection: CollectionName, head: HeadName, acts: Acts) -> Document:
    """Show what is known of one version of a head."""
    return Document(acts.head(collection, head))


@router.post(
    "/{collection}/heads/{head}/predict",
    responses={200: {"model": PredictReply}, **errors(404, 409, 413, 415, 422, 503, 504)},
)
async def predict(
    collection: CollectionName, head: HeadName, asked: PredictRequest, acts: Serves, request: Request
) -> Document:
    """Classify inputs with a head, in their order."""

    def found() -> Document:
        inputs = [one.opened(acts.fetch) for one in asked.inputs]
        return Document(acts.classify(collection, head, inputs, top_k=asked.top_k, space=asked.space))

    return await waiting_of(request).attended(request, found)


@router.get("/{collection}/heads/{head}/label-errors", responses={200: {"model": LabelErrorsReply}, **errors(404, 422)})
def label_errors(
    collection: CollectionName, head: HeadName, acts: Acts,
    limit: Annotated[int, Query(ge=1, le=MOST_K, description="How many at most.")] = 20,
) -> Document:  # fmt: skip
    """List the items whose label a head doubts, most suspicious first."""
    return Document(acts.label_errors(collection, head, limit=limit))
