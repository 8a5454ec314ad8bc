"""Reports that were made: what there is, one of them, and its page. `POST` begins one: see the jobs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Response

from api.asked import ReportReply, ReportsReply
from api.envelope import Document
from api.routes._context import Acts, CollectionName
from api.schemas import errors
from api.strict import StrictRoute

router = APIRouter(prefix="/v1/collections", tags=["reports"], route_class=StrictRoute)
Number = Annotated[int, Path(description="A report's number.", ge=1, le=2**31)]
# labels and ids are the users' own: the page may show pictures that it holds, and nothing else
POLICY = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; sandbox"
HEADERS = {"content-security-policy": POLICY, "x-content-type-options": "nosniff", "referrer-policy": "no-referrer"}


@router.get("/{collection}/reports", responses={200: {"model": ReportsReply}, **errors(404, 422)})
def list_reports(collection: CollectionName, acts: Acts) -> Document:
    """List the reports of a collection, the newest first, each with its verdicts in a word."""
    return Document(acts.reports(collection))


@router.get("/{collection}/reports/{report}", responses={200: {"model": ReportReply}, **errors(404, 422)})
def get_report(collection: CollectionName, report: Number, acts: Acts) -> Document:
    """Show a report with every figure."""
    path = f"/v1/collections/{collection}/reports/{report}/html"
    return Document({**acts.report_document(collection, report), "path": path})


@router.get(
    "/{collection}/reports/{report}/html",
    responses={200: {"content": {"text/html": {}}}, **errors(404, 422)},
    response_class=Response,
)
def get_report_page(collection: CollectionName, report: Number, acts: Acts) -> Response:
    """Answer with a report's page, which needs nothing but itself."""
    body = acts.report_html(collection, report)
    return Response(body, media_type="text/html; charset=utf-8", headers=HEADERS)
