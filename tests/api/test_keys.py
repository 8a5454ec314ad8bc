"""Keys: every route of the schema, with no key, a wrong one, and one of each scope."""

from __future__ import annotations

import json
import re
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api import keys
from api.app import create_app
from api.keys import Keys
from api.serving import Serving
from api.settings import Settings
from embedder.errors import UnknownName, UsageError
from tests.api.conftest import Run

PROBES = {"/livez", "/readyz"}
ADMIN = {("delete", "/v1/collections/{collection}")}
READS = ("search", "predict", "embeddings", "embed", "similarity", "classify")


@pytest.fixture
def tokens(tmp_path: Path) -> dict[str, str]:
    return {scope: keys.make(tmp_path / "keys.json", scope, scope)[0] for scope in keys.SCOPES}


@pytest.fixture
def client(store: Path, tmp_path: Path, tokens: dict[str, str]) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(store)))
    app = create_app(service, keys=Keys(tmp_path / "keys.json"))
    with closing(service), TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def scope_of(method: str, path: str) -> str | None:
    """What the contract says, written down apart from the code."""
    if path in PROBES:
        return None
    if (method, path) in ADMIN:
        return "admin"
    return "read" if method == "get" or (method == "post" and path.rpartition("/")[2] in READS) else "write"


def test_every_route_asks_for_its_scope(client: TestClient, tokens: dict[str, str]) -> None:
    order = [None, *keys.SCOPES]
    paths = client.get("/openapi.json").json()["paths"]
    for method, path in [(m, p) for p, methods in paths.items() for m in methods if not p.endswith("events")]:
        needed = scope_of(method, path)
        filled = re.sub(r"\{\w+\}", "nowhere", path)
        for held, token in [(None, None), ("bad", "pf_wrong"), *tokens.items()]:
            headers = {} if token is None else {"authorization": f"Bearer {token}"}
            status = client.request(method.upper(), filled, headers=headers).status_code
            if needed is None or (held in order and order.index(held) >= order.index(needed)):
                assert status not in (401, 403), (method, path, held)
            else:
                assert status == (401 if held in (None, "bad") else 403), (method, path, held)


def test_the_other_header_works_and_refusals_say_what_to_do(client: TestClient, tokens: dict[str, str]) -> None:
    assert client.get("/v1/collections", headers={"x-api-key": tokens["read"]}).status_code == 200
    reply = client.get("/v1/collections")
    assert reply.headers["www-authenticate"] == "Bearer"
    assert "Bearer" in reply.json()["error"]["hint"]
    assert set(client.post("/embed", json={"inputs": "a"}).json()) == {"error", "error_type"}


def test_a_key_taken_out_stops_working_and_a_new_one_works(
    client: TestClient, tokens: dict[str, str], tmp_path: Path
) -> None:
    keys.remove(tmp_path / "keys.json", "read")
    assert client.get("/v1/collections", headers={"x-api-key": tokens["read"]}).status_code == 401
    token, _ = keys.make(tmp_path / "keys.json", "later", "read")
    assert client.get("/v1/collections", headers={"x-api-key": token}).status_code == 200


def test_only_hashes_are_kept_where_only_the_owner_reads(tmp_path: Path, tokens: dict[str, str]) -> None:
    path = tmp_path / "keys.json"
    assert not [token for token in tokens.values() if token in path.read_text()]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len({len(token) for token in tokens.values()}) == 1
    assert min(len(token) for token in tokens.values()) >= 43


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"keys": [{"name": "a"}]}', '{"keys": []}'])
def test_a_file_that_holds_no_keys_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "k").write_text(text)
    with pytest.raises(UsageError):
        Keys(tmp_path / "k")


def test_names_and_scopes_are_checked(tmp_path: Path) -> None:
    keys.make(tmp_path / "k", "a", "read")
    with pytest.raises(UsageError, match="already"):
        keys.make(tmp_path / "k", "a", "read")
    with pytest.raises(UsageError):
        keys.make(tmp_path / "k", "a b", "read")
    with pytest.raises(UnknownName):
        keys.make(tmp_path / "k", "b", "root")
    with pytest.raises(UnknownName):
        keys.remove(tmp_path / "k", "b")


def test_the_verb_shows_a_key_once(run: Run, tmp_path: Path) -> None:
    said = run("keys", tmp_path / "k", "--name", "ci", "--scope", "write")
    token = said.out.strip()
    assert Keys(tmp_path / "k").find(token) is not None
    listed = run("keys", tmp_path / "k", "--json").json
    assert [key["name"] for key in listed["keys"]] == ["ci"]
    assert token not in json.dumps(listed)
    assert run("keys", tmp_path / "k", "--remove", "nobody").code == 2
