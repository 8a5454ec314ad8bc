"""Search: the nearest items of a text, a picture, a vector or a stored item."""

from __future__ import annotations

from fastapi import APIRouter

from api.envelope import Document
from api.routes._context import Acts, CollectionName
from api.schemas import SearchReply, SearchRequest, errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["search"], route_class=StrictRoute)


@router.post("/{collection}/search", responses={200: {"model": SearchReply}, **errors(404, 409, 413, 415, 422, 503)})
def search_collection(collection: CollectionName, asked: SearchRequest, acts: Acts) -> Document:
    """Find the nearest items; higher scores are nearer."""
    found = acts.search(
        collection, asked.query.opened(), k=asked.k, where=asked.filter, space=asked.space, exact=asked.exact,
        columns=asked.include,
    )  # fmt: skip
    return Document(found)
