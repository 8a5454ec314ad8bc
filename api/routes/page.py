"""The page at `/` and the list of routes at `/docs`: files of the package, which ask nothing of any other address."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, Request, Response

from api.envelope import error_reply
from api.failure import Failure

WEB = Path(__file__).resolve().parents[1] / "web"
MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'; form-action 'none'"
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True)
class Asset:
    """One file of the page."""

    body: bytes
    media_type: str
    etag: str


@cache
def assets() -> dict[str, Asset]:
    """Read every file of the page; a name that is not among them is never looked for on disk."""
    found = {path.name: path.read_bytes() for path in WEB.iterdir() if path.suffix in MEDIA_TYPES}
    return {
        name: Asset(body, MEDIA_TYPES[Path(name).suffix], f'"{hashlib.sha256(body).hexdigest()[:16]}"')
        for name, body in found.items()
    }


def _answer(name: str, request: Request) -> Response:
    asset = assets().get(name)
    if asset is None:
        missing = Failure("not_found", "nothing is at this path", hint="the page is at /", status=404)
        return error_reply(missing, request.scope)
    headers = {**HEADERS, "etag": asset.etag}
    if request.headers.get("if-none-match") == asset.etag:
        return Response(status_code=304, headers=headers)
    return Response(asset.body, media_type=asset.media_type, headers=headers)


@router.get("/")
async def page(request: Request) -> Response:
    """Answer with the page."""
    return _answer("index.html", request)


@router.get("/docs")
async def docs(request: Request) -> Response:
    """Answer with the list of routes."""
    return _answer("docs.html", request)


@router.get("/web/{name}")
async def asset(name: str, request: Request) -> Response:
    """Answer with one file of the page."""
    return _answer(name, request)
