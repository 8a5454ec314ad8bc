"""The HTTP service as an application object. A file in `api/routes/` with a `router` is a route."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from importlib import metadata
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from threadpoolctl import ThreadpoolController

from api.envelope import Envelope, error_reply
from api.failure import Failure, explain
from api.gate import LOOPBACK, Gate
from api.keys import Keys
from api.readiness import Readiness
from api.serving import Serving
from api.waiting import Waiting
from embedder import kinds, machine
from embedder.errors import PermafrostError, UnknownName
from index.memory import settle

log = logging.getLogger("permafrost.http")
ROUTES = "api.routes"
SWEEP_S = 30.0
MOST_ERRORS = 10
ABOUT = "Search, heads and items over frozen encoders. Scores: higher is nearer, always."
REFUSALS = {
    404: ("not_found", "nothing is at this path", "the routes are listed at /openapi.json"),
    405: ("method_not_allowed", "this path does not take that method", "the routes are listed at /openapi.json"),
}


def create_app(service: Serving, *, hosts: Collection[str] | None = LOOPBACK, keys: Keys | None = None) -> FastAPI:
    """Return the application with its envelope. The store is opened in the background once it starts."""
    readiness = Readiness()

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        threading.Thread(target=warm, args=(service, readiness), name="warm", daemon=True).start()
        yield

    app = application(service, readiness, lifespan)
    app.add_middleware(Envelope, gate=Gate(hosts, keys), meter=service.meter)
    return app


def application(service: Serving, readiness: Readiness, lifespan: Any = None) -> FastAPI:
    """Return the application alone; what goes around it is `Envelope`."""
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
    return app


def warm(service: Serving, readiness: Readiness, *, raising: bool = False) -> None:
    """Open every collection and load the named models; say how far it is, or why it failed.

    A collection that cannot be opened is told of by its own requests. With `raising`, what else fails is raised.
    """
    try:
        readiness.phase = "opening the store"
        names = service.store().names()
        for n, name in enumerate(names):
            readiness.phase, readiness.percent = f"opening collection {n + 1} of {len(names)}", 80 * n // len(names)
            try:
                service.warm(name)
            except PermafrostError as error:
                log.warning("collection %s cannot be opened: %s", name, error.what)
        service.jobs.listed()
        readiness.phase, readiness.percent = "loading the models", 80
        service.models.load_named()
        settle()
        spare_a_core()
        readiness.ready, readiness.phase, readiness.percent = True, "ready", 100
        threading.Thread(target=_sweep, args=(service, readiness), name="sweep", daemon=True).start()
    except Exception as error:
        readiness.phase = f"failed: {explain(error).what}"
        if raising:
            raise


def spare_a_core() -> None:
    """Let BLAS use all processors but one, which is for the event loop.

    Its threads wait by asking again and again: with 2 on 2 cores, 64 clients of a scan got a quarter fewer answers.
    """
    for library in ThreadpoolController().select(user_api="blas").lib_controllers:
        library.set_num_threads(max(1, min(library.num_threads, machine.cores() - 1)))


def _sweep(service: Serving, readiness: Readiness) -> None:
    """Unload unused models, now and then, until the service ends."""
    while not readiness.draining:
        time.sleep(SWEEP_S)
        service.models.sweep()


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
