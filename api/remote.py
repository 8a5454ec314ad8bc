"""A store behind a service: the acts of `Service` that HTTP offers, with the same arguments, documents and errors."""

from __future__ import annotations

import base64
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pyarrow as pa

from api.shapes import Query, as_vector, input_of, search_of, shown
from api.transport import Transport, named
from api.uploading import Uploading
from embedder.errors import UnknownName, UsageError

COLLECTIONS = ("v1", "collections")
PAGE = 1000
NAMES = {"where": "filter", "columns": "include"}


class RemoteService(Uploading):
    """The acts of one service. What it does not offer is refused, with what to do instead."""

    def __init__(self, url: str, *, api_key: str | None = None, timeout_s: float | None = None) -> None:
        more = {} if timeout_s is None else {"timeout_s": timeout_s}
        self._http = Transport(url, api_key=api_key, **more)

    def __getattr__(self, act: str) -> NoReturn:
        if act.startswith("_"):
            raise AttributeError(act)
        raise UsageError(
            f"a service does not offer {act.replace('_', ' ').strip()}", where=self._http.url,
            hint="open the store's own folder, on the machine where it is",
        )  # fmt: skip

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def ls(self) -> dict[str, Any]:
        """Return every collection with its items, Spaces and heads."""
        return {"store": self._http.url, **self._http.json("GET", *COLLECTIONS)}

    def info(self, name: str) -> dict[str, Any]:
        """Return all about one collection."""
        return dict(self._http.json("GET", *COLLECTIONS, name))

    def search(self, name: str, query: Query, **asked: Any) -> dict[str, Any]:
        """Find the nearest items, as `Searching.search`; a picture's path is one here, and its bytes are sent."""
        body = {"query": sendable(query), **_named_for_http(asked)}
        return dict(self._http.json("POST", *COLLECTIONS, name, "search", body=body, safe=True))

    def search_many(self, name: str, queries: Sequence[Query], **asked: Any) -> dict[str, Any]:
        """Find the nearest items of each of several queries, as `Searching.search_many`."""
        body = {"queries": [sendable(one) for one in queries], **_named_for_http(asked)}
        return dict(self._http.json("POST", *COLLECTIONS, name, "search", body=body, safe=True))

    def features(
        self, name: str, *, columns: Sequence[str] = (), where: str | Mapping[str, Any] | None = None,
        space: str | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Return stored vectors with columns of their items, as `Featuring.features`."""
        asked = {"columns": list(columns), "filter": where, "space": space}
        body = {key: value for key, value in asked.items() if value is not None}
        reply = self._http.send("POST", *COLLECTIONS, name, "features", body=body, safe=True)
        with pa.ipc.open_stream(pa.py_buffer(reply.content)) as stream:
            rows = stream.read_all().combine_chunks()
        ids, vectors, *rest = (column.combine_chunks() for column in rows.columns)
        X = np.array(vectors.flatten(), dtype=np.float32).reshape(len(ids), -1)
        facts = {"collection": name, "space": rows.schema.metadata[b"space"].decode(), "ids": ids.to_pylist(), "X": X}
        return {**facts, "columns": {n: column.to_pylist() for n, column in zip(columns, rest, strict=True)}}

    def head(self, name: str, head: str) -> dict[str, Any]:
        """Return the facts of a head, `NAME[@VERSION]`."""
        return dict(self._http.json("GET", *COLLECTIONS, name, "heads", head))

    def heads(self, name: str) -> dict[str, Any]:
        """Return the heads of a collection, with every version."""
        return dict(self._http.json("GET", *COLLECTIONS, name, "heads"))

    def reports(self, name: str) -> dict[str, Any]:
        """Return the reports of a collection, the newest first."""
        return dict(self._http.json("GET", *COLLECTIONS, name, "reports"))

    def report_document(self, name: str, number: int) -> dict[str, Any]:
        """Return a report that was made."""
        return dict(self._http.json("GET", *COLLECTIONS, name, "reports", str(number)))

    def report_html(self, name: str, number: int) -> bytes:
        """Return the page of a report."""
        return bytes(self._http.send("GET", *COLLECTIONS, name, "reports", str(number), "html").content)

    def inputs(self, name: str, head: str, values: Sequence[str]) -> list[Query]:
        """Say what each value is for a head: the path of a picture or of a text file here, or a text."""
        if not values:
            return []
        spaces = {space["fingerprint"]: space for space in self.info(name)["spaces"]}
        space = named("Space", self.head(name, head)["space"], spaces, f"collection {name}")
        return [input_of(value, space["media"]) for value in values]

    def classify(
        self, name: str, head: str, inputs: Sequence[Query], *, top_k: int | None = None, space: str | None = None
    ) -> dict[str, Any]:
        """Predict with a head, as `Classifying.classify`; a picture's path is one here, and its bytes are sent."""
        if not inputs:
            raise UsageError("nothing to classify", hint="give texts, paths of pictures, or --id")
        body: dict[str, Any] = {"inputs": [sendable(one) for one in inputs], "top_k": top_k, "space": space}
        body = {key: value for key, value in body.items() if value is not None}
        answer = dict(self._http.json("POST", *COLLECTIONS, name, "heads", head, "predict", body=body, safe=True))
        said = [{**one, "input": shown(asked)} for one, asked in zip(answer["results"], inputs, strict=True)]
        return {**answer, "results": said}

    def label(self, name: str, id: str, values: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Set columns of one item by hand."""
        body = {"set": dict(values), "by": by}
        return dict(self._http.json("PATCH", *COLLECTIONS, name, "items", id, body=body))

    def delete(
        self, name: str, *, ids: Sequence[str] = (), where: str | Mapping[str, Any] | None = None,
        everything: bool = False,
    ) -> dict[str, Any]:  # fmt: skip
        """Delete items one by one, by id or by filter, or with `everything` the whole collection."""
        if everything:
            return dict(self._http.json("DELETE", *COLLECTIONS, name))
        if not ids and where is None:
            raise UsageError("say what to delete", hint="ids=[…] or where=FILTER")
        deleted = sum(self._deleted(name, one) for one in dict.fromkeys(ids or self._ids_where(name, where)))
        if not deleted:
            what = f"no item of {name!r} was deleted: none has this id or passes this filter"
            raise UnknownName(what, hint=f"permafrost info {name}")
        return {"collection": name, "deleted": deleted, "removed": False}

    def _deleted(self, name: str, id: str) -> int:
        try:
            return int(self._http.json("DELETE", *COLLECTIONS, name, "items", id)["deleted"])
        except UnknownName:
            self.info(name)
            return 0

    def _ids_where(self, name: str, where: Any) -> list[str]:
        found: list[str] = []
        while True:
            page = self._http.json(
                "GET", *COLLECTIONS, name, "items", limit=PAGE, offset=len(found), where=_as_text(where)
            )["items"]
            found += [one["id"] for one in page]
            if len(page) < PAGE:
                return found


def _named_for_http(asked: Mapping[str, Any]) -> dict[str, Any]:
    given = {NAMES.get(name, name): value for name, value in asked.items()}
    return {name: value for name, value in given.items() if value is not None and value is not False}


def sendable(query: Query) -> dict[str, Any]:
    """Return a query as the body of a request: a picture as base64, a vector as numbers."""
    kind, value = search_of(query)
    if kind == "like":
        return {side: list(query[side]) for side in ("like", "unlike") if query.get(side)}
    if kind == "vector":
        return {"vector": as_vector(value)[0].tolist()}
    if kind != "image":
        return {kind: str(value)}
    return {"image": base64.b64encode(value if isinstance(value, bytes) else read_picture(value)).decode("ascii")}


def read_picture(path: str | os.PathLike[str]) -> bytes:
    """Read a picture's file. Raises `UsageError` where there is none."""
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise UsageError(f"cannot read {os.fspath(path)!r}: {why}", hint="give a picture's path or bytes") from error


def _as_text(where: Any) -> str:
    if not isinstance(where, str):
        raise UsageError("over HTTP a filter of what to delete is a text", hint='such as "year < 2000"')
    return where
