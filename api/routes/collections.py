"""Collections: what is there, all about one, and its end."""

from __future__ import annotations

from fastapi import APIRouter

from api.envelope import Document
from api.routes._context import Acts, CollectionName
from api.schemas import CollectionReply, CollectionsReply, DeleteReply, errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["collections"], route_class=StrictRoute)


@router.get("", responses={200: {"model": CollectionsReply}, **errors(404)})
def list_collections(acts: Acts) -> Document:
    """List the collections with their items, Spaces and heads."""
    return Document({"collections": acts.ls()["collections"]})


@router.get("/{collection}", responses={200: {"model": CollectionReply}, **errors(404, 422)})
def get_collection(collection: CollectionName, acts: Acts) -> Document:
    """Show all about one collection: items, columns, Spaces, indexes, heads."""
    return Document(acts.info(collection))


@router.delete("/{collection}", responses={200: {"model": DeleteReply}, **errors(404, 409, 422)})
def delete_collection(collection: CollectionName, acts: Acts) -> Document:
    """Delete a collection with its heads and indexes."""
    return Document(acts.delete(collection, everything=True))
