"""Items over HTTP: put with a status each, listed, looked at, labelled."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

import permafrost as pf
from api.acts.putting import Into
from api.app import create_app
from api.serving import Serving
from api.settings import Settings
from tests.api.conftest import COLOURS, NOTES, picture, png


@pytest.fixture
def client(store: Path) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(store)))
    with closing(service), TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield client


def put(client: TestClient, collection: str, items: list[dict[str, Any]], **into: str) -> Any:
    return client.put(f"/v1/collections/{collection}/items", json={"items": items, **into})


def test_each_item_has_a_status_and_a_bad_one_stops_nobody(client: TestClient) -> None:
    first = [
        {"id": "x", "text": "a boat", "columns": {"year": 1}},
        {"id": "y", "text": "  "},
        {"id": "n1", "text": "new"},
    ]
    reply = put(client, "notes", first).json()
    assert [(one["id"], one["status"]) for one in reply["results"]] == [
        ("x", "inserted"), ("y", "failed"), ("n1", "updated"),
    ]  # fmt: skip
    assert put(client, "notes", first[:1]).json()["counts"] == {"unchanged": 1}
    body = {"query": {"text": "a boat"}, "k": 1}
    assert client.post("/v1/collections/notes/search", json=body).json()["hits"][0]["id"] == "x"


def test_the_vector_of_an_item_put_is_the_one_that_a_run_makes(client: TestClient) -> None:
    row = client.get("/v1/collections/notes/items/n3").json()["item"]
    put(client, "notes", [{"id": "copy", "text": row["text"]}])
    found = client.post("/v1/collections/notes/search", json={"query": {"id": "n3"}, "k": 1}).json()["hits"][0]
    assert found["id"] == "copy"
    assert found["score"] == pytest.approx(1.0, abs=1e-6)


def test_vectors_come_with_their_space_or_not_at_all(client: TestClient) -> None:
    vector = np.ones(64) / 8
    assert put(client, "notes", [{"id": "v", "vector": vector.tolist()}]).status_code == 422
    good = put(client, "notes", [{"id": "v", "vector": vector.tolist()}], space="hashing:64").json()
    assert good["counts"] == {"inserted": 1}
    bad = put(client, "notes", [{"id": "w", "vector": [1.0, 0.0]}], space="default").json()
    assert bad["results"][0]["reason"] == "wrong_dim"
    made = put(client, "fresh", [{"id": "v", "vector": [1.0, 2.0]}], declare="mine").json()
    assert made["encoder"] == "declared:mine"
    assert put(client, "notes", [{"id": "v", "text": "a"}], space="nothing").status_code == 404


def test_pictures_are_kept_and_shown_again(client: TestClient) -> None:
    data = png(picture(COLOURS["red"], 77).resize((400, 100)))
    items = [
        {"id": "a/up", "image": base64.b64encode(data).decode()},
        {"id": "no", "image": base64.b64encode(b"x").decode()},
    ]
    assert [one["status"] for one in put(client, "pics", items).json()["results"]] == ["inserted", "failed"]
    reply = client.get("/v1/collections/pics/items/a/up/content", params={"size": 50})
    assert reply.headers["content-type"] == "image/jpeg"
    assert reply.headers["x-content-type-options"] == "nosniff"
    shown = Image.open(io.BytesIO(reply.content))
    assert shown.size == (50, 12)
    assert np.asarray(shown).mean(axis=(0, 1)) == pytest.approx(COLOURS["red"], abs=12)
    again = client.post("/v1/collections/pics/runs", json={"encoders": ["pixels:4"]})
    assert again.status_code == 202


def test_texts_are_shown_as_text(client: TestClient) -> None:
    reply = client.get("/v1/collections/notes/items/n0/content")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.text.startswith("a red boat")
    assert client.get("/v1/collections/notes/items/nobody/content").status_code == 404
    assert client.get("/v1/collections/pics/items/red/0.png/content?size=0").status_code == 422


def test_pages_hold_every_item_once(client: TestClient) -> None:
    path, seen = "/v1/collections/notes/items", list[str]()
    for offset in range(0, NOTES, 7):
        page = client.get(path, params={"limit": 7, "offset": offset}).json()
        assert page["total"] == NOTES
        seen += [one["id"] for one in page["items"]]
    assert sorted(seen) == sorted(f"n{i}" for i in range(NOTES))
    some = client.get(path, params={"where": "year < 2005", "limit": 2}).json()
    assert (some["total"], len(some["items"])) == (5, 2)
    assert client.get(path, params={"where": "yeer < 2005"}).status_code == 422


def test_labels_are_set_and_no_put_reverts_them(client: TestClient) -> None:
    path = "/v1/collections/notes/items/n2"
    assert client.patch(path, json={"set": {"label": "mine"}}).json()["set"] == {"label": "mine"}
    put(client, "notes", [{"id": "n2", "text": "another", "columns": {"label": "theirs"}}])
    assert client.get(path).json()["item"]["label"] == "mine"
    assert client.patch(path, json={"set": {"lable": "x"}}).status_code == 422
    assert client.patch("/v1/collections/notes/items/nobody", json={"set": {"label": "x"}}).status_code == 404


def kept(folder: Path) -> set[str]:
    return {path.name for path in folder.glob("*/content/*/*")}


def test_an_uploaded_picture_moves_with_its_store_and_leaves_with_its_item(tmp_path: Path) -> None:
    store, data = pf.open(tmp_path / "a.store"), png(picture(COLOURS["red"], 77))
    other, digest = png(picture(COLOURS["blue"], 78)), hashlib.sha256(data).hexdigest()
    with closing(Serving(Settings(store=str(tmp_path / "a.store")))) as service:
        into = Into(encoder="pixels:8")
        service.put("pics", [{"id": "a", "image": data}, {"id": "b", "image": other}], into)
        service.put("pics", [{"id": "same", "image": data}], into)
    assert digest in kept(tmp_path / "a.store")
    (tmp_path / "a.store").rename(tmp_path / "b.store")
    with closing(Serving(Settings(store=str(tmp_path / "b.store")))) as service:
        assert service.content("pics", "a").data
        assert str(tmp_path) not in str(service.item("pics", "a"))
    store = pf.open(tmp_path / "b.store")
    pics = store.collection("pics")
    assert pics.embed("pics", encoder="pixels:4").failed == 0
    pics.delete(ids=["a"])
    pics.vacuum()
    assert digest in kept(tmp_path / "b.store"), "another item has the same picture"
    store.backup(tmp_path / "safe")
    assert kept(tmp_path / "safe") == kept(tmp_path / "b.store")
    pics.tag("before")
    pics.delete(ids=["same"])
    assert pics.vacuum()["pictures"] == 0, "the tag names it"
    pics.drop_tag("before")
    assert pics.vacuum()["pictures"] == 1
    assert kept(tmp_path / "b.store") == {hashlib.sha256(other).hexdigest()}
    pics.delete(ids=["b"])
    pics.vacuum(purge=True)
    assert kept(tmp_path / "b.store") == set()
    assert [p for p in (tmp_path / "b.store").rglob("*") if p.is_file() and other in p.read_bytes()] == []
    assert pics.verify()["problems"] == []
