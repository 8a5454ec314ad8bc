"""Stored vectors for training elsewhere, as one Arrow stream: a large answer that is no JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa
from fastapi import APIRouter
from fastapi.responses import StreamingResponse
from pydantic import Field

from api.routes._context import Acts, CollectionName
from api.schemas import Strict, errors
from api.strict import StrictRoute

ARROW = "application/vnd.apache.arrow.stream"
ROWS = 8192

router = APIRouter(prefix="/v1/collections", tags=["features"], route_class=StrictRoute)


class FeaturesRequest(Strict):
    """Which vectors, and which columns beside them."""

    columns: list[str] = Field(default_factory=list, max_length=256, description="Columns of the items.")
    filter: str | dict[str, Any] | None = Field(None, description="As SQL text, or as must/should/must_not.")
    space: str | None = Field(None, description="An alias, a fingerprint or an encoder's name; none means the default.")


@router.post(
    "/{collection}/features",
    response_class=StreamingResponse,
    responses={
        200: {"content": {ARROW: {"schema": {"type": "string", "format": "binary"}}}, "description": "An Arrow stream"},
        **errors(404, 409, 413, 422),
    },
)
def get_features(collection: CollectionName, asked: FeaturesRequest, acts: Acts) -> StreamingResponse:
    """Return stored vectors as an Arrow stream: `id`, `vector`, then the columns, in the order asked for."""
    found = acts.features(collection, columns=asked.columns, where=asked.filter, space=asked.space)
    return StreamingResponse(_stream(found), media_type=ARROW)


def _stream(found: Mapping[str, Any]) -> Iterator[bytes]:
    X, names = found["X"], list(found["columns"])
    columns = [pa.array(found["columns"][name]) for name in names]
    fields = [pa.field("id", pa.string()), pa.field("vector", pa.list_(pa.float32(), X.shape[1]))]
    fields += [pa.field(name, column.type) for name, column in zip(names, columns, strict=True)]
    schema = pa.schema(fields, metadata={"space": found["space"]})
    sink = _Sink()
    with pa.ipc.new_stream(sink, schema) as writer:
        for start in range(0, len(X), ROWS):
            part = slice(start, start + ROWS)
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(X[part].ravel()), X.shape[1])
            rest = [column[start : start + ROWS] for column in columns]
            writer.write_batch(pa.record_batch([pa.array(found["ids"][part], pa.string()), vectors, *rest], schema))
            yield sink.taken()
    yield sink.taken()


class _Sink:
    """A file that is only written, whose bytes are taken out as they come."""

    closed = False

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: Any) -> int:
        self._parts.append(bytes(data))
        return len(self._parts[-1])

    def flush(self) -> None:
        pass

    def taken(self) -> bytes:
        found, self._parts = b"".join(self._parts), []
        return found
