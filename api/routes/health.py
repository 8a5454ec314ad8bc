"""Is the service alive, does it answer yet, and what has it counted."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from api.envelope import Document
from api.front import not_ready
from api.metering import CONTENT_TYPE
from api.routes._context import Serves
from api.schemas import ErrorReply, LiveReply, ReadyReply, errors

router = APIRouter(tags=["health"])


@router.get("/livez", responses={200: {"model": LiveReply}})
async def livez() -> Document:
    """Say that the event loop runs."""
    return Document({"status": "alive"})


@router.get("/readyz", responses={200: {"model": ReadyReply}, 503: {"model": ErrorReply}})
async def readyz(request: Request) -> Document:
    """Say whether the service answers; while it starts or ends 503, with the phase and how far it is."""
    state = request.app.state.readiness
    return not_ready(state, request.scope) if state.draining or not state.ready else Document(state.as_json())


@router.get("/metrics", responses={200: {"content": {"text/plain": {}}}, **errors()}, response_class=Response)
def metrics(acts: Serves) -> Response:
    """Return all series, as Prometheus reads them."""
    acts.measure()
    return Response(acts.meter.text(), media_type=CONTENT_TYPE)
