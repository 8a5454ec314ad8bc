"""HTTP in one process: one shape of errors on every route, strict bodies, ids with slashes, limits."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from api.app import create_app, warm
from api.envelope import TEI_PATHS
from api.readiness import Readiness
from api.schemas import (
    CollectionReply,
    CollectionsReply,
    HeadsReply,
    ItemReply,
    LabelErrorsReply,
    PredictReply,
    SearchReply,
)
from api.service import Service
from api.serving import Serving
from api.settings import Settings
from embedder.errors import SpaceMismatch
from tests.api.conftest import COLOURS, NOTES, picture, png

GOLDEN = Path(__file__).parents[1] / "golden" / "openapi.json"
HOST = "http://127.0.0.1"
SEARCH = "/v1/collections/notes/search"
PREDICT = "/v1/collections/notes/heads/subject/predict"
ERROR_KEYS = {"type", "message", "hint", "param", "code", "request_id"}


@contextmanager
def client_of(store: Path) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(store)))
    with closing(service), TestClient(create_app(service), base_url=HOST) as client:
        yield client


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[TestClient]:
    with client_of(built) as client:
        yield client


@pytest.fixture
def own(store: Path) -> Iterator[TestClient]:
    with client_of(store) as client:
        yield client


def check_error(reply: Any, status: int) -> dict[str, Any]:
    """Check the one shape of errors and return it."""
    assert reply.status_code == status, reply.text
    assert reply.headers["content-type"] == "application/json"
    assert set(reply.json()) >= {"error"}
    error: dict[str, Any] = reply.json()["error"]
    assert set(error) == ERROR_KEYS
    assert error["request_id"] == reply.headers["x-request-id"]
    assert error["message"]
    return error


def test_the_schema_is_the_golden_one(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    schema["info"]["version"] = "0"
    now = json.dumps(schema, indent=1, sort_keys=True) + "\n"
    if not GOLDEN.exists():
        GOLDEN.write_text(now)
        pytest.fail(f"{GOLDEN.name} was missing and is written: look at it, then run this again")
    assert now == GOLDEN.read_text(), (
        "the schema changed: where that is wanted, delete the golden file and run this twice"
    )


def test_every_route_answers_errors_in_its_shape(client: TestClient) -> None:
    schema = client.get("/openapi.json").json()
    routes = [(path, method) for path, methods in schema["paths"].items() for method in methods]
    assert len(routes) >= 25
    for path, method in routes:
        filled = re.sub(r"\{\w+\}", "x", path)
        elsewhere = client.request(method.upper(), filled, headers={"host": "evil.example"})
        wrong = client.request("OPTIONS", filled)
        for reply, status in ((elsewhere, 400), (wrong, 405)):
            if path in TEI_PATHS:
                assert reply.status_code == status
                assert set(reply.json()) == {"error", "error_type"}
            else:
                check_error(reply, status)
        declared = schema["paths"][path][method]["responses"]
        assert path in ("/livez", "/readyz") or {"400", "401", "403", "429", "500"} <= set(declared)


def test_every_reading_route_of_a_collection_says_that_there_is_none(client: TestClient) -> None:
    paths = client.get("/openapi.json").json()["paths"]
    bodies = {"search": {"query": {"text": "a"}}, "predict": {"inputs": [{"text": "a"}]}, "heads": {"label": "x"}}
    bodies |= {"runs": {}, "indexes": {}}
    for path, methods in paths.items():
        for method in set(methods) - {"put", "patch"} if "{collection}" in path else ():
            filled = re.sub(r"\{\w+\}", "x", path.replace("{collection}", "nowhere").replace("{report}", "1"))
            body = bodies.get(path.rpartition("/")[2])
            if method == "post" and body is None:
                continue
            asked = {"json": body} if method == "post" else {}
            assert "nowhere" in check_error(client.request(method.upper(), filled, **asked), 404)["message"], path


def test_a_path_that_is_no_route_is_an_error_of_the_same_shape(client: TestClient) -> None:
    for path in ("/nothing", "/v1", "/v1/collections/notes/nothing", "/v1/collections/%2e%2e/%2e%2e"):
        check_error(client.get(path), 404)


def test_replies_have_the_shape_of_the_schema(client: TestClient) -> None:
    vector = {"inputs": [{"text": "a red boat"}, {"id": "n0"}], "top_k": 1}
    for model, reply in [
        (CollectionsReply, client.get("/v1/collections")),
        (CollectionReply, client.get("/v1/collections/notes")),
        (HeadsReply, client.get("/v1/collections/notes/heads")),
        (LabelErrorsReply, client.get("/v1/collections/notes/heads/subject/label-errors?limit=2")),
        (ItemReply, client.get("/v1/collections/notes/items/n1")),
        (SearchReply, client.post(SEARCH, json={"query": {"text": "a red boat"}})),
        (PredictReply, client.post(PREDICT, json=vector)),
    ]:
        assert reply.status_code == 200, reply.text
        model.model_validate_json(reply.content)
        assert reply.headers["x-request-id"]


def test_search_takes_each_kind_of_query(client: TestClient) -> None:
    image = base64.b64encode(png(picture(COLOURS["blue"], 5))).decode()
    found = client.post("/v1/collections/pics/search", json={"query": {"image": image}, "k": 3}).json()
    assert {hit["item"]["label"] for hit in found["hits"]} == {"blue"}
    found = client.post(SEARCH, json={"query": {"id": "n1"}, "k": 2, "exact": True, "space": "default"}).json()
    assert {hit["item"]["label"] for hit in found["hits"]} == {"money"}
    found = client.post(SEARCH, json={"query": {"vector": [1.0] * 64}, "k": 1000}).json()
    assert len(found["hits"]) == NOTES


def test_filters_come_as_text_or_as_json_and_answer_the_same(client: TestClient) -> None:
    form = {"must": [{"key": "year", "range": {"gte": 2010}}, {"key": "label", "match": {"value": "boat"}}]}
    asked: list[Any] = ["year >= 2010 AND label = 'boat'", form]
    hits = [client.post(SEARCH, json={"query": {"text": "boat"}, "filter": f}).json()["hits"] for f in asked]
    assert hits[0] == hits[1]
    assert all(hit["item"]["year"] >= 2010 and hit["item"]["label"] == "boat" for hit in hits[0])


def test_include_chooses_the_columns(client: TestClient) -> None:
    found = client.post(SEARCH, json={"query": {"text": "boat"}, "k": 1, "include": ["year"]}).json()
    assert set(found["hits"][0]["item"]) == {"year"}
    found = client.post(SEARCH, json={"query": {"text": "boat"}, "k": 1, "include": []}).json()
    assert found["hits"][0]["item"] == {}
    error = check_error(client.post(SEARCH, json={"query": {"text": "boat"}, "include": ["yeer"]}), 422)
    assert "year" in error["hint"]


def test_predict_answers_in_order_with_and_without_a_version(client: TestClient) -> None:
    inputs = [{"text": "the stock market fell"}, {"text": "a red boat"}, {"id": "n1"}]
    for path in (PREDICT, PREDICT.replace("subject", "subject@1")):
        found = client.post(path, json={"inputs": inputs}).json()
        assert [r["label"] for r in found["results"]] == ["money", "boat", "money"]
        assert found["version"] == 1
    top = client.post(PREDICT, json={"inputs": inputs[:1], "top_k": 1}).json()
    assert list(top["results"][0]["probabilities"]) == ["money"]
    check_error(client.post(PREDICT.replace("subject", "nobody"), json={"inputs": inputs}), 404)
    check_error(client.post(PREDICT, json={"inputs": [{"vector": [1.0, 2.0]}]}), 422)


TEXT = '{"query": {"text": "a"}'
BAD_BODIES: list[tuple[str, int, str]] = [
    ("", 422, ""), ("not json", 400, "JSON"), ("[]", 422, "object"), ("{}", 422, "query"), ('"text"', 422, ""),
    (TEXT, 400, "JSON"),
    (TEXT + ', "k": NaN}', 422, "NaN"), (TEXT + ', "k": Infinity}', 422, "Infinity"),
    ('{"query": {"vector": [1, NaN]}}', 422, "NaN"), ('{"query": {"vector": [1e999]}}', 422, "1e999"),
    ('{"query": {"vector": [' + "9" * 400 + "]}}", 422, "too large"), ('{"query": {"vector": ["nan"]}}', 422, "vector"),
    ('{"query": {"vector": []}}', 422, "vector"), ('{"query": {"vector": [true]}}', 422, "vector"),
    ("[" * 100_000, 400, ""), ('{"query": ' + '{"a":' * 50_000 + "1" + "}" * 50_000 + "}", 400, "deep"),
    (TEXT + ', "filter": ' + '{"must": [' * 400 + "]}" * 400 + "}", 422, "nested"),
    (TEXT + ', "filter": "' + "(" * 5000 + 'a = 1"}', 422, "nested"),
    (TEXT + ', "k": true}', 422, "k"), (TEXT + ', "k": 3.0}', 422, "k"), (TEXT + ', "k": "3"}', 422, "k"),
    (TEXT + ', "k": 0}', 422, "k"), (TEXT + ', "k": 1001}', 422, "k"), (TEXT + ', "k": null}', 422, "k"),
    (TEXT + ', "exact": 1}', 422, "exact"), (TEXT + ', "extra": 1}', 422, "extra"),
    (TEXT + ', "k": 1, "k": 2}', 422, "'k' is given twice"),
    ('{"query": {}}', 422, "exactly one"), ('{"query": {"text": ""}}', 422, "text"),
    ('{"query": {"text": null}}', 422, "exactly one"), ('{"query": {"text": "a", "id": "n1"}}', 422, "exactly one"),
    ('{"query": {"text": "a", "id": null}}', 422, "exactly one"), ('{"query": {"colour": "red"}}', 422, "colour"),
    ('{"query": {"image": "!!!!"}}', 422, "base64"), ('{"query": {"vector": [1, 2, 3]}}', 422, "3"),
    ('{"query": {"vector": [' + ",".join(["0"] * 64) + "]}}", 422, "zero"),
    (TEXT + ', "filter": "year >"}', 422, ""), (TEXT + ', "filter": "yeer = 1"}', 422, "yeer"),
    (TEXT + ', "filter": {"nearly": []}}', 422, "must"), (TEXT + ', "space": "nowhere"}', 404, "nowhere"),
    ('{"query": {"id": "nobody"}}', 404, "nobody"), ('{"query": {"text": "\\ud800"}}', 422, ""),
]  # fmt: skip


@pytest.mark.parametrize(("body", "status", "names"), BAD_BODIES, ids=lambda value: str(value)[:40])
def test_bad_bodies_are_refused_in_a_few_words(client: TestClient, body: str, status: int, names: str) -> None:
    reply = client.post(SEARCH, content=body.encode(), headers={"content-type": "application/json"})
    error = check_error(reply, status)
    assert names in error["message"] + error["hint"]
    assert len(reply.content) < 4000, "the body is echoed"


def test_a_body_that_is_not_utf8_or_not_said_to_be_json_is_refused(client: TestClient) -> None:
    json_type = {"content-type": "application/json"}
    check_error(client.post(SEARCH, content=b'{"query": {"text": "\xff"}}', headers=json_type), 400)
    error = check_error(
        client.post(SEARCH, content=b'{"query": {"text": "a"}}', headers={"content-type": "text/plain"}), 422
    )
    assert "application/json" in error["message"]


def test_at_most_ten_errors_are_told_and_nothing_is_echoed(client: TestClient) -> None:
    secret = "s3cret" * 100
    body = {"query": {"text": "a"}, **{f"x{i}": secret for i in range(50)}}
    reply = client.post(SEARCH, json=body)
    error = check_error(reply, 422)
    assert error["message"].count("x") < 25
    assert "and 40 more" in error["message"]
    assert "s3cret" not in reply.text


def test_an_undecodable_picture_is_415(client: TestClient) -> None:
    image = base64.b64encode(b"no picture at all").decode()
    error = check_error(client.post("/v1/collections/pics/search", json={"query": {"image": image}}), 415)
    assert error["code"] == "not_an_image"


def test_a_path_of_the_server_is_no_picture(client: TestClient, sources: Path) -> None:
    path = str(sources / "pics" / "red" / "0.png")
    check_error(client.post("/v1/collections/pics/search", json={"query": {"image": path}}), 422)


@pytest.mark.parametrize("spelled", ["red/1.png", "red%2F1.png", "red%2f1.png"])
def test_ids_with_slashes_work_raw_and_encoded(own: TestClient, spelled: str) -> None:
    path = f"/v1/collections/pics/items/{spelled}"
    assert own.get(path).json()["id"] == "red/1.png"
    assert own.delete(path).json() == {"collection": "pics", "deleted": 1, "removed": False}
    check_error(own.get(path), 404)
    check_error(own.delete(path), 404)
    found = own.post("/v1/collections/pics/search", json={"query": {"id": "red/0.png"}, "k": 100}).json()
    assert "red/1.png" not in [hit["id"] for hit in found["hits"]]


def test_deleting_a_collection_ends_it(own: TestClient) -> None:
    assert own.post(SEARCH, json={"query": {"text": "a"}}).status_code == 200
    assert own.delete("/v1/collections/notes").json()["removed"]
    check_error(own.post(SEARCH, json={"query": {"text": "a"}}), 404)
    assert [c["name"] for c in own.get("/v1/collections").json()["collections"]] == ["pics"]


def test_a_body_over_the_limit_is_413_whatever_it_says_of_its_length(client: TestClient) -> None:
    large = b'{"query": {"text": "' + b"a" * (17 << 20) + b'"}}'

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(large), 1 << 20):
            yield large[start : start + (1 << 20)]

    json_type = {"content-type": "application/json"}
    assert "16 MiB" in check_error(client.post(SEARCH, content=large, headers=json_type), 413)["message"]
    check_error(client.post(SEARCH, content=pieces(), headers=json_type), 413)


def test_request_ids_are_kept_where_they_are_plain_and_made_where_not(client: TestClient) -> None:
    assert client.get("/livez", headers={"x-request-id": "abc-1"}).headers["x-request-id"] == "abc-1"
    for bad in ("a" * 65, "a b", "a\u00e9", "<x>"):
        made = client.get("/livez", headers={"x-request-id": bad.encode("latin-1")}).headers["x-request-id"]
        assert re.fullmatch("[0-9a-f]{16}", made)


def test_another_host_name_is_refused(client: TestClient) -> None:
    error = check_error(client.get("/v1/collections", headers={"host": "evil.example"}), 400)
    assert error["type"] == "invalid_host"
    for host in ("localhost:8765", "127.0.0.1:1", "[::1]:80", "LOCALHOST"):
        assert client.get("/livez", headers={"host": host}).status_code == 200


def test_a_defect_is_a_500_without_paths_or_traces(
    client: TestClient, built: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(self: Any) -> Any:
        raise ZeroDivisionError(f"in {built}")

    monkeypatch.setattr(Service, "ls", broken)
    reply = client.get("/v1/collections")
    error = check_error(reply, 500)
    assert error["type"] == "internal_error"
    assert str(built) not in reply.text
    assert "ZeroDivision" not in reply.text
    assert error["request_id"] in caplog.text
    assert "ZeroDivisionError" in caplog.text


def test_errors_of_ours_keep_their_status_and_lose_their_paths(
    client: TestClient, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mismatch(self: Any, name: str) -> Any:
        raise SpaceMismatch(
            f"of Space a, not of b in {built}/notes", where="differs in: layer", hint=f"look at {built}/x.json"
        )

    monkeypatch.setattr(Service, "heads", mismatch)
    error = check_error(client.get("/v1/collections/notes/heads"), 409)
    assert error["type"] == "space_mismatch"
    assert error["message"] == "of Space a, not of b in notes (differs in: layer)"
    assert error["hint"] == "look at x.json"


def test_readiness_says_how_far_it_is(built: Path, tmp_path: Path) -> None:
    app = create_app(Serving(Settings(store=str(built))))
    client = TestClient(app, base_url=HOST)
    error = check_error(client.get("/readyz"), 503)
    assert error["type"] == "not_ready"
    assert client.get("/readyz").json()["phase"] == "starting"
    assert client.get("/livez").status_code == 200
    warm(app.state.service, app.state.readiness)
    assert client.get("/readyz").json() == {"ready": True, "phase": "ready", "percent": 100}
    failed = Readiness()
    warm(Serving(Settings(store=str(tmp_path / "none"))), failed)
    assert not failed.ready
    assert "there is no store" in failed.phase
