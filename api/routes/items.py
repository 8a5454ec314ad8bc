"""Items by id. An id may hold slashes, as they are or as %2F."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Response

from api.acts.putting import Into
from api.envelope import Document
from api.routes._context import Acts, CollectionName, Serves
from api.schemas import (
    DeleteReply,
    ItemReply,
    ItemsReply,
    PatchReply,
    PatchRequest,
    PutReply,
    PutRequest,
    errors,
)
from api.strict import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["items"], route_class=StrictRoute)
ItemId = Annotated[str, Path(description="The item's id.", min_length=1, max_length=4096)]
Limit = Annotated[int, Query(ge=1, le=1000, description="How many items.")]
Offset = Annotated[int, Query(ge=0, le=2**53, description="How many to leave out before them.")]
Where = Annotated[str | None, Query(max_length=10_000, description="A filter, as SQL text.")]
Side = Annotated[int | None, Query(ge=1, le=2048, description="The most pixels of a side.")]
SAFE = {"content-security-policy": "default-src 'none'", "x-content-type-options": "nosniff"}


@router.put("/{collection}/items", responses={200: {"model": PutReply}, **errors(404, 409, 415, 422, 504, 507)})
def put_items(collection: CollectionName, asked: PutRequest, acts: Serves) -> Document:
    """Store items that are new or changed: texts, pictures, or vectors with their Space; one status for each."""
    items = [one.opened() for one in asked.items]
    return Document(acts.put(collection, items, Into(asked.space, asked.encoder, asked.declare)))


@router.get("/{collection}/items", responses={200: {"model": ItemsReply}, **errors(404, 422)})
def list_items(
    collection: CollectionName, acts: Serves, limit: Limit = 50, offset: Offset = 0, where: Where = None
) -> Document:
    """List items, those stored first coming first."""
    return Document(acts.items(collection, limit=limit, offset=offset, where=where))


@router.get(
    "/{collection}/items/{id:path}/content",
    responses={200: {"content": {"image/jpeg": {}, "text/plain": {}}}, **errors(404, 415, 422)},
    response_class=Response,
)
def get_content(collection: CollectionName, id: ItemId, acts: Serves, size: Side = None) -> Response:
    """Show what an item is: its text, or its picture written again as JPEG, smaller where asked."""
    found = acts.content(collection, id, size=size)
    return Response(found.data, media_type=found.media_type, headers=SAFE)


@router.get("/{collection}/items/{id:path}", responses={200: {"model": ItemReply}, **errors(404, 422)})
def get_item(collection: CollectionName, id: ItemId, acts: Acts) -> Document:
    """Show one item's columns."""
    return Document(acts.item(collection, id))


@router.patch("/{collection}/items/{id:path}", responses={200: {"model": PatchReply}, **errors(404, 409, 422)})
def patch_item(collection: CollectionName, id: ItemId, asked: PatchRequest, acts: Acts) -> Document:
    """Set labels or metadata of one item; no later run reverts them."""
    return Document(acts.label(collection, id, asked.set, by=asked.by))


@router.delete("/{collection}/items/{id:path}", responses={200: {"model": DeleteReply}, **errors(404, 409, 422)})
def delete_item(collection: CollectionName, id: ItemId, acts: Acts) -> Document:
    """Delete one item; it leaves every answer at once."""
    return Document(acts.delete(collection, ids=[id]))
