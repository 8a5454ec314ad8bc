"""Is the service alive, and does it answer yet."""

from __future__ import annotations

from fastapi import APIRouter, Request

from api.envelope import Document, error_body
from api.failure import Failure
from api.schemas import ErrorReply, LiveReply, ReadyReply

router = APIRouter(tags=["health"])


@router.get("/livez", responses={200: {"model": LiveReply}})
async def livez() -> Document:
    """Say that the event loop runs."""
    return Document({"status": "alive"})


@router.get("/readyz", responses={200: {"model": ReadyReply}, 503: {"model": ErrorReply}})
async def readyz(request: Request) -> Document:
    """Say whether the store is open; until then 503, with the phase and how far it is."""
    state = request.app.state.readiness
    facts = {"ready": state.ready, "phase": state.phase, "percent": state.percent}
    if state.ready:
        return Document(facts)
    failure = Failure("not_ready", f"not ready: {state.phase}", hint="ask again in a moment", status=503)
    return Document({**facts, **error_body(failure, request.scope)}, status_code=503)
