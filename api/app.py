"""The HTTP service as an application object. A file in `api/routes/` with a `router` is a route."""

from __future__ import annotations

import threading
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from api.envelope import LOOPBACK, Envelope, error_reply
from api.failure import Failure, explain
from api.serving import Serving
from api.waiting import Waiting
from embedder import kinds
from embedder.errors import PermafrostError, UnknownName

ROUTES = "api.routes"
MOST_ERRORS = 10
ABOUT = "Search, heads and items over frozen encoders. Scores: higher is nearer, always."
REFUSALS = {
    404: ("not_found", "nothing is at this path", "the routes are listed at /openapi.json"),
    405: ("method_not_allowed", "this path does not take that method", "the routes are listed at /openapi.json"),
}


@dataclass
class Readiness:
    """How far the service is with opening the store."""

    ready: bool = False
    phase: str = "starting"
    percent: int = 0


def create_app(service: Serving, *, hosts: Collection[str] | None = LOOPBACK) -> FastAPI:
    """Return the application. The store is opened in the background once it starts; `/readyz` says how far that is."""
    readiness = Readiness()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=warm, args=(service, readiness), name="warm", daemon=True).start()
        yield

    app = FastAPI(
        title="Permafrost", version=metadata.version("permafrost"), description=ABOUT, lifespan=lifespan,
        docs_url=None, redoc_url=None, generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    app.state.service, app.state.readiness = service, readiness
    app.state.waiting, app.state.started = Waiting(), int(time.time())
    for name in kinds.names(ROUTES):
        app.include_router(kinds.load(ROUTES, name, "route").router)
    app.add_exception_handler(PermafrostError, _explained)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(Envelope, hosts=hosts)
    return app


def warm(service: Serving, readiness: Readiness) -> None:
    """Open every collection, so that the first request does not wait; say how far it is, or why it failed."""
    try:
        readiness.phase = "opening the store"
        names = service.store().names()
        for n, name in enumerate(names):
            readiness.phase, readiness.percent = f"opening collection {n + 1} of {len(names)}", 100 * n // len(names)
            service.warm(name)
        readiness.phase = "loading the models"
        service.models.load_named()
        readiness.ready, readiness.phase, readiness.percent = True, "ready", 100
    except Exception as error:  # noqa: BLE001  nobody waits for this thread: what went wrong is told by /readyz
        readiness.phase = f"failed: {explain(error).what}"


def _explained(request: Request, error: Exception) -> Response:
    failure = explain(error)
    if isinstance(error, UnknownName) and error.subject == "column":
        wrong = replace(failure, type="invalid_request", status=422)
        return error_reply(wrong, request.scope, param="filter", code="unknown_column")
    return error_reply(failure, request.scope, code=getattr(error, "reason", None))


def _invalid(request: Request, error: Exception) -> Response:
    """Say what is invalid without echoing it, for the first ten places."""
    found = error.errors() if isinstance(error, RequestValidationError) else []
    places = [(".".join(str(part) for part in one["loc"][1:]), _message(one)) for one in found[:MOST_ERRORS]]
    what = "; ".join(f"{place or 'the body'}: {message}" for place, message in places)
    more = f"; and {len(found) - MOST_ERRORS} more" if len(found) > MOST_ERRORS else ""
    failure = Failure("invalid_request", what + more, hint="the schema is at /openapi.json", status=422)
    return error_reply(failure, request.scope, param=places[0][0] or None, code=found[0]["type"])


def _message(one: Mapping[str, Any]) -> str:
    if one["type"] == "model_attributes_type":
        return "must be a JSON object, sent as application/json"
    return str(one["msg"]).removeprefix("Value error, ")[:200]


def _refused(request: Request, error: Exception) -> Response:
    status, detail = (error.status_code, str(error.detail)) if isinstance(error, HTTPException) else (500, "")
    word, what, hint = REFUSALS.get(status, ("invalid_request", detail, "the schema is at /openapi.json"))
    reply = error_reply(Failure(word, what, hint=hint, status=status), request.scope)
    for name, value in (getattr(error, "headers", None) or {}).items():
        reply.headers[name] = value
    return reply
