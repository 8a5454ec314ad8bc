"""What a service keeps of its requests is bounded, whatever they ask for."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.recent import OVERHEAD, Recent
from api.serving import Served, Serving
from api.settings import Settings
from index.view import CACHED_FILTERS

SEARCH = "/v1/collections/notes/search"
ROUNDS, KEPT = 150, 20


@pytest.fixture
def service(built: Path) -> Iterator[Serving]:
    made = Serving(Settings(store=str(built)), Served(models=("mine=hashing:64",)))
    made.recent = Recent(KEPT * (64 * 4 + OVERHEAD))
    with closing(made):
        yield made


def test_requests_that_are_all_different_leave_nothing_behind(service: Serving) -> None:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        for n in range(ROUNDS):
            asked = [
                ({"query": {"text": f"query {n}"}, "filter": f"year > {n}"}, SEARCH, 200),
                ({"query": {"id": f"n{n % 40}"}, "space": "hashing:64"}, SEARCH, 200),
                ({"query": {"id": f"nobody {n}"}}, SEARCH, 404),
                ({"query": {"id": "n1"}, "space": f"space {n}"}, SEARCH, 404),
                ({"query": {"text": "a"}}, f"/v1/collections/c{n}/search", 404),
                ({"model": "mine", "input": f"text {n}"}, "/v1/embeddings", 200),
                ({"model": f"model {n}", "input": "a"}, "/v1/embeddings", 404),
            ]
            for body, path, status in asked:
                reply = client.post(path, json=body)
                assert reply.status_code == status, (path, body, reply.text)
    (view,) = (one for one in service._views.values() if one.collection.name == "notes")
    assert len(service.recent._rows) <= KEPT
    assert len(view._subsets) <= CACHED_FILTERS
    assert set(service._folders) == {"notes"}
    assert set(service._opened) <= {("notes", None), ("notes", "hashing:64")}
    assert len(view._cache._rows) <= 40
    assert len(view._cache._keys) == len(view._cache._rows)
    assert all(one.get("waiting", 0) == 0 for one in service.models.standing())
