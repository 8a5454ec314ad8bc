"""`permafrost serve`: the HTTP service."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from api import options
from api.calls import Call, Result
from api.options import option
from api.quantities import most_bytes
from embedder.errors import UsageError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

    from api.metering import Meter
    from api.readiness import Readiness
    from api.server import Building
    from api.serving import Serving

FORMS = ("json", "text", "off")


def run(
    call: Call,
    host: Annotated[
        str, option("An address; a loopback one without keys.", metavar="HOST", show_default=True)
    ] = "127.0.0.1",
    port: Annotated[
        int, option("The port; 0 takes a free one.", metavar="PORT", min=0, max=65_535, show_default=True)
    ] = 8765,
    api_key_file: Annotated[str | None, option("Ask for a key of this file; see keys.", metavar="F")] = None,
    model: Annotated[
        list[str] | None,
        option("Load an encoder at the start; ALIAS=E also gives it a name. May be repeated.", metavar="E"),
    ] = None,
    memory: Annotated[str | None, option("The most that loaded models may hold, such as 4GiB.", metavar="SIZE")] = None,
    idle: Annotated[
        int, option("Unload a model unused for so long.", metavar="SECONDS", min=1, show_default=True)
    ] = 900,
    predict: Annotated[str | None, option("The head behind /predict.", metavar="C/HEAD")] = None,
    source: Annotated[
        list[str] | None, option("A folder that runs may read. May be repeated.", metavar="FOLDER")
    ] = None,
    allow_urls: Annotated[bool, option("Fetch pictures of queries from public addresses.")] = False,
    log: Annotated[
        str, option("A line for each request: json, text or off.", metavar="FORM", show_default=True)
    ] = "off",
    device: options.Device = None,
    runtime: options.Runtime = None,
) -> Result:
    """Serve the store over HTTP.

    Until Ctrl-C or SIGTERM; requests under way are finished. Without keys only this machine is served.
    """
    from api import logs
    from api.keys import Keys
    from api.metering import Meter
    from api.server import check_host, serve

    if log not in FORMS:
        raise UsageError(f"--log is json, text or off, not {log!r}")
    keys = Keys(Path(api_key_file).expanduser()) if api_key_file else None
    check_host(host, keys)
    given = {"store": call.store, "device": device, "runtime": runtime}
    logs.set_up("json" if log == "json" else "text" if log == "text" else "off")
    held = {"memory": most_bytes(memory, "--memory"), "idle_s": float(idle)}
    named = {"models": tuple(model or ()), "head": _head(predict), "sources": tuple(source or ())}
    chosen: dict[str, object] = {**named, **held, "allow_urls": allow_urls}
    code = serve(_building(given, chosen, Meter()), host, port, keys=keys, ready=_say_ready)
    return Result({"stopped": True}, note="stopped", exit_code=code)


def _say_ready(url: str) -> None:
    print(f"ready {url}", file=sys.stderr, flush=True)  # noqa: T201


def _building(given: Mapping[str, Any], chosen: Mapping[str, object], meter: Meter) -> Building:
    from api.server import Building

    made: list[Serving] = []

    def build(readiness: Readiness) -> ASGIApp:
        # all of this takes seconds to import, and the probes answer already
        from api.settings import read_settings

        settings = read_settings(**given)
        _require_store(settings.store)
        from api.app import application, warm
        from api.serving import Served, Serving

        service = Serving(settings, Served(**chosen), meter)  # type: ignore[arg-type]
        made.append(service)
        app = application(service, readiness)
        warm(service, readiness, raising=True)
        return app

    def close() -> None:
        for service in made:
            service.close()

    return Building(build, close, meter)


def _require_store(path: str) -> None:
    """Say that there is no store before anything is loaded. Raises as `Store.open`."""
    if not (Path(path).expanduser() / "permafrost.json").is_file():
        from index.store import Store

        Store.open(path)


def _head(word: str | None) -> tuple[str, str] | None:
    if word is None:
        return None
    collection, slash, head = word.partition("/")
    if not (collection and slash and head):
        raise UsageError(f"{word!r} is no head", where="--predict", hint="write COLLECTION/HEAD")
    return collection, head
