"""Items by id. An id may hold slashes, as they are or as %2F."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from api.envelope import Document
from api.routes._context import Acts, CollectionName
from api.schemas import DeleteReply, ItemReply, errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["items"], route_class=StrictRoute)
ItemId = Annotated[str, Path(description="The item's id.", min_length=1, max_length=4096)]


@router.get("/{collection}/items/{id:path}", responses={200: {"model": ItemReply}, **errors(404, 422)})
def get_item(collection: CollectionName, id: ItemId, acts: Acts) -> Document:
    """Show one item's columns."""
    return Document(acts.item(collection, id))


@router.delete("/{collection}/items/{id:path}", responses={200: {"model": DeleteReply}, **errors(404, 409, 422)})
def delete_item(collection: CollectionName, id: ItemId, acts: Acts) -> Document:
    """Delete one item; it leaves every answer at once."""
    return Document(acts.delete(collection, ids=[id]))
