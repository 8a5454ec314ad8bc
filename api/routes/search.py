"""Search: the nearest items of a text, a picture, a vector or a stored item."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Query, Request

from api.envelope import Document
from api.routes._context import Acts, CollectionName, Serves, waiting_of
from api.schemas import DuplicatesReply, SearchQuery, SearchReply, SearchRequest, errors
from api.serving import Serving
from api.strict import StrictRoute
from api.waiting import awaited

router = APIRouter(prefix="/v1/collections", tags=["search"], route_class=StrictRoute)


@router.post(
    "/{collection}/search", responses={200: {"model": SearchReply}, **errors(404, 409, 413, 415, 422, 503, 504)}
)
async def search_collection(
    collection: CollectionName, asked: SearchRequest, acts: Serves, request: Request
) -> Document:
    """Find the nearest items; higher scores are nearer. With `queries` the answers are under `results`, in order."""
    queries = asked.all()
    found = partial(_found, collection, asked, acts)
    results: Sequence[dict[str, Any]]
    if any(query.text is not None or query.image is not None for query in queries):
        results = await waiting_of(request).attended(request, partial(found, queries))
    else:
        # what need not wait for batches needs no thread of its own
        key = collection, asked.most(), asked.model_dump_json(exclude={"query", "queries"})
        results = await awaited(request, acts.gathering.submit(key, queries, found))
    if not asked.queries:
        return Document(results[0])
    return Document({"collection": collection, "space": results[0]["space"], "results": results})


def _found(
    collection: str, asked: SearchRequest, acts: Serving, queries: Sequence[SearchQuery]
) -> Sequence[dict[str, Any]]:
    found = acts.search_many(
        collection, [query.opened(acts.fetch) for query in queries], k=asked.most(), where=asked.filter,
        space=asked.space, exact=asked.exact, hybrid=asked.hybrid, columns=asked.include, group_by=asked.group_by,
        diversity=asked.diversity, unique=asked.unique, min_score=asked.min_score,
    )  # fmt: skip
    results: Sequence[dict[str, Any]] = found["results"]
    return results


@router.get("/{collection}/duplicates", responses={200: {"model": DuplicatesReply}, **errors(404, 409, 422, 503)})
def find_duplicates(
    collection: CollectionName,
    acts: Acts,
    threshold: Annotated[float, Query(gt=0, le=1, description="Least cosine of near-duplicates.")] = 0.97,
    space: Annotated[str | None, Query(description="An alias, a fingerprint or an encoder's name.")] = None,
    where: Annotated[str | None, Query(description="A filter, as SQL text.")] = None,
    exact: Annotated[bool, Query(description="Compare every pair, whatever index there is.")] = False,
) -> Document:
    """Find items that are the same or nearly so; nothing is deleted."""
    return Document(acts.duplicates(collection, threshold=threshold, space=space, where=where, exact=exact))
