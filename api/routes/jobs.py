"""Long acts: begun with 202 and a job, told of as they go, cancelled on request."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Path, Request
from pydantic import BaseModel
from starlette.responses import StreamingResponse

from api.asked import FinetuneRequest, HeadRequest, IndexRequest, JobReply, JobsReply, ReportRequest, RunRequest
from api.documents import dumps
from api.envelope import Document
from api.jobs import ENDED, Jobs, once
from api.routes._context import CollectionName, Serves
from api.schemas import errors
from api.strict import StrictRoute

router = APIRouter(tags=["jobs"], route_class=StrictRoute)
JobId = Annotated[str, Path(description="A job's id.", max_length=64)]
Begun: dict[int | str, dict[str, Any]] = {202: {"model": JobReply}, **errors(404, 409, 422)}
LOOK_EVERY_S, ALIVE_EVERY_S = 0.1, 15.0


async def named_once(
    request: Request,
    idempotency_key: Annotated[
        str | None, Header(min_length=1, max_length=255, description="Sent again, it begins nothing new for 24 hours.")
    ] = None,
) -> None:
    """Note by what name a request is known, for each caller apart."""
    key = request.scope["state"].get("key")
    said = f"{key.name if key else ''}\0{idempotency_key}".encode("utf-8", "surrogatepass")
    once.set(hashlib.sha256(said).hexdigest() if idempotency_key is not None else None)


ONCE = [Depends(named_once)]


@router.post("/v1/collections/{collection}/runs", status_code=202, responses=Begun, dependencies=ONCE)
def begin_run(collection: CollectionName, asked: RunRequest, acts: Serves) -> Document:
    """Embed a source, or the collection itself with one more encoder."""
    return _begun(acts, "runs", collection, asked)


@router.post("/v1/collections/{collection}/indexes", status_code=202, responses=Begun, dependencies=ONCE)
def begin_index(collection: CollectionName, asked: IndexRequest, acts: Serves) -> Document:
    """Choose, build and measure an index, and swap it in."""
    return _begun(acts, "indexes", collection, asked)


@router.post("/v1/collections/{collection}/heads", status_code=202, responses=Begun, dependencies=ONCE)
def begin_head(collection: CollectionName, asked: HeadRequest, acts: Serves) -> Document:
    """Train a head on stored vectors."""
    return _begun(acts, "heads", collection, asked)


@router.post("/v1/collections/{collection}/reports", status_code=202, responses=Begun, dependencies=ONCE)
def begin_report(collection: CollectionName, asked: ReportRequest, acts: Serves) -> Document:
    """Make the transfer report."""
    return _begun(acts, "reports", collection, asked)


@router.post("/v1/collections/{collection}/finetune", status_code=202, responses=Begun, dependencies=ONCE)
def begin_finetune(collection: CollectionName, asked: FinetuneRequest, acts: Serves) -> Document:
    """Tune an encoder on labelled items, embed the collection with it, and measure what was gained."""
    return _begun(acts, "finetune", collection, asked)


@router.get("/v1/jobs", responses={200: {"model": JobsReply}, **errors()})
def list_jobs(acts: Serves) -> Document:
    """List the jobs, the newest first."""
    return Document({"jobs": acts.jobs.listed()})


@router.get("/v1/jobs/{job}", responses={200: {"model": JobReply}, **errors(404, 422)})
def get_job(job: JobId, acts: Serves) -> Document:
    """Show a job: its state, its progress, and what came of it."""
    return Document(acts.jobs.get(job))


@router.delete("/v1/jobs/{job}", responses={200: {"model": JobReply}, **errors(404, 409, 422)})
def cancel_job(job: JobId, acts: Serves) -> Document:
    """Cancel a job at its next step; what it committed is kept."""
    return Document(acts.jobs.cancel(job))


@router.get(
    "/v1/jobs/{job}/events",
    responses={200: {"content": {"text/event-stream": {}}}, **errors(404, 422)},
    response_class=StreamingResponse,
)
async def follow_job(
    job: JobId, request: Request, acts: Serves,
    last_event_id: Annotated[int | None, Header(ge=0, le=2**53, description="The last event that was seen.")] = None,
) -> StreamingResponse:  # fmt: skip
    """Follow a job: an event `progress` for each change, and `end` as the last."""
    acts.jobs.get(job)
    after = -1 if last_event_id is None else last_event_id
    events = _events(acts.jobs, job, after, request)
    return StreamingResponse(events, media_type="text/event-stream", headers={"cache-control": "no-store"})


def _begun(acts: Serves, kind: str, collection: str, asked: BaseModel) -> Document:
    job = acts.begin(kind, collection, asked.model_dump(exclude_none=True))
    reply = Document(job, status_code=202)
    reply.headers["location"] = f"/v1/jobs/{job['id']}"
    return reply


async def _events(jobs: Jobs, id: str, after: int, request: Request) -> AsyncIterator[str]:
    quiet = 0.0
    while not request.app.state.readiness.draining:
        job = jobs.get(id)
        if job["revision"] > after or job["state"] in ENDED:
            after, quiet = job["revision"], 0.0
            ended = job["state"] in ENDED
            yield f"id: {after}\nevent: {'end' if ended else 'progress'}\ndata: {dumps(job)}\n\n"
            if ended:
                return
        elif quiet >= ALIVE_EVERY_S:
            quiet = 0.0
            yield ": alive\n\n"
        await asyncio.sleep(LOOK_EVERY_S)
        quiet += LOOK_EVERY_S
