"""What search can be asked, at every door: the same act, the same document."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient

import permafrost as pf
from api.app import create_app
from api.service import Service
from api.serving import Serving
from api.settings import Settings
from embedder.errors import UnknownName, UsageError
from index.examples import combine
from tests.api.conftest import NOTES, Run

SEARCH = "/v1/collections/notes/search"


@pytest.fixture(scope="module")
def built(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy: hybrid search writes an index of the texts."""
    return Path(shutil.copytree(built, tmp_path_factory.mktemp("own") / "store"))


@pytest.fixture(scope="module")
def service(built: Path) -> Iterator[Serving]:
    with closing(Serving(Settings(store=str(built), recall_sample=1.0))) as service:
        yield service


@pytest.fixture(scope="module")
def client(service: Serving) -> Iterator[TestClient]:
    with TestClient(create_app(service), base_url="http://127.0.0.1") as client:
        yield client


def same(document: dict[str, Any]) -> dict[str, Any]:
    """A document without its times."""
    return {key: value for key, value in document.items() if not key.endswith("_ms")}


ASKED: list[tuple[list[str], dict[str, Any]]] = [
    (
        ["--like", "n0", "--like", "n2", "--unlike", "n1", "-k", "5"],
        {"query": {"like": ["n0", "n2"], "unlike": ["n1"]}, "k": 5},
    ),
    (["a red boat", "--group-by", "label"], {"query": {"text": "a red boat"}, "group_by": "label"}),
    (["a red boat", "--diversity", "0.4", "-k", "6"], {"query": {"text": "a red boat"}, "diversity": 0.4, "k": 6}),
    (["a red boat", "--unique", "0.9"], {"query": {"text": "a red boat"}, "unique": 0.9}),
    (["a red boat", "--min-score", "0.1"], {"query": {"text": "a red boat"}, "min_score": 0.1}),
    (["a red boat", "--radius", "0.1", "-k", "2"], {"query": {"text": "a red boat"}, "min_score": 0.1, "k": 2}),
    (
        ["a red boat", "--hybrid", "--where", "year > 2010"],
        {"query": {"text": "a red boat"}, "hybrid": True, "filter": "year > 2010"},
    ),
]


@pytest.mark.parametrize(
    ("flags", "body"), ASKED, ids=lambda value: " ".join(value)[:30] if isinstance(value, list) else ""
)
def test_every_door_answers_alike(
    service: Service, client: TestClient, built: Path, run: Run, flags: list[str], body: dict[str, Any]
) -> None:
    said = run("search", "notes", *flags, "--store", built, "--json")
    assert said.code == 0, said.err
    over_http = client.post(SEARCH, json=body)
    assert over_http.status_code == 200, over_http.text
    assert same(said.json) == same(over_http.json())
    asked = {{"filter": "where"}.get(name, name): value for name, value in body.items() if name != "query"}
    hits = pf.open(built).collection("notes").search(**body["query"], **asked)
    assert same(hits.document) == same(over_http.json())
    assert hits.ids
    people = run("search", "notes", *flags, "--store", built)
    assert people.out.count("\n") == len(hits)


def test_examples_are_left_out_and_their_query_is_the_stated_formula(service: Service) -> None:
    view = service.opened("notes", None)[1]
    query = combine(np.concatenate([view.vector_of("n0"), view.vector_of("n2")]), view.vector_of("n1"))
    found = service.search("notes", {"like": ["n0", "n2"], "unlike": ["n1"]}, k=NOTES)
    plain = service.search("notes", {"vector": query}, k=NOTES)["hits"]
    assert found["hits"] == [hit for hit in plain if hit["id"] not in ("n0", "n1", "n2")]


def test_several_queries_are_those_asked_alone_in_their_order(service: Service, client: TestClient) -> None:
    queries: list[dict[str, Any]] = [
        {"text": "a red boat"},
        {"id": "n3"},
        {"like": ["n4"]},
        {"text": "soup"},
        {"id": "n5"},
    ]
    alone = [same(service.search("notes", one, k=4)) for one in queries]
    reply = client.post(SEARCH, json={"queries": queries, "k": 4}).json()
    assert [same(one) for one in reply["results"]] == alone
    assert (reply["collection"], reply["space"]) == ("notes", alone[0]["space"])
    photos = pf.open(service.settings.store).collection("notes")
    assert [hits.ids for hits in photos.search(["a red boat", "soup"], k=4)] == [
        [hit["id"] for hit in alone[at]["hits"]] for at in (0, 3)
    ]


@pytest.mark.parametrize(
    ("body", "names"),
    [
        ({}, "query"),
        ({"query": {"text": "a"}, "queries": [{"text": "a"}]}, "query"),
        ({"queries": []}, "queries"),
        ({"query": {"unlike": ["n1"]}}, "like"),
        ({"query": {"text": "a", "unlike": ["n1"]}}, "unlike"),
        ({"query": {"text": "a", "like": ["n1"]}}, "like"),
        ({"query": {"like": []}}, "like"),
        ({"query": {"text": "a"}, "diversity": 1.1}, "diversity"),
        ({"query": {"id": "n1"}, "hybrid": True}, "hybrid"),
        ({"query": {"text": "a"}, "hybrid": True, "unique": 0.9}, "unique"),
        ({"query": {"text": "a"}, "group_by": "nothing"}, "nothing"),
    ],
)
def test_what_means_nothing_is_refused(client: TestClient, body: dict[str, Any], names: str) -> None:
    reply = client.post(SEARCH, json=body)
    assert reply.status_code in (400, 404, 422), reply.text
    assert names in json.dumps(reply.json())


def test_the_python_door_names_what_it_takes(service: Service) -> None:
    notes = pf.open(service.settings.store).collection("notes")
    with pytest.raises(UnknownName, match="groupby") as caught:
        notes.search("a", groupby="label")
    assert "group_by" in str(caught.value.hint)
    with pytest.raises(UsageError, match="nothing was given"):
        notes.search()
    with pytest.raises(UsageError, match="no item here has one"):
        pf.open(service.settings.store).collection("pics").search("a boat", hybrid=True)
    with pytest.raises(UnknownName) as near:
        notes.search(id="n0 ")
    assert "'n0'" in str(near.value.hint)


def test_duplicates_at_every_door(service: Service, client: TestClient, built: Path, run: Run) -> None:
    said = run("duplicates", "notes", "--threshold", "0.8", "--store", built, "--json").json
    assert said == client.get("/v1/collections/notes/duplicates?threshold=0.8").json()
    assert said == pf.open(built).collection("notes").duplicates(0.8)
    assert said["groups"]
    assert said["compared"] == NOTES
    people = run("duplicates", "notes", "--threshold", "0.8", "--store", built)
    assert people.out.splitlines()[0] == said["groups"][0]["keep"]
    assert "permafrost delete notes " in people.err or "xargs" in people.err
    none = run("duplicates", "notes", "--threshold", "1", "--store", built)
    assert (none.code, none.out) == (0, "")
    assert none.err.startswith("no duplicates among 40 items, every pair compared")
    assert run("duplicates", "notes", "--threshold", "2", "--store", built).code == 2
    assert client.get("/v1/collections/notes/duplicates?threshold=2").status_code == 422


def test_recall_is_a_live_figure_of_the_service(built: Path, tmp_path: Path) -> None:
    store = Path(shutil.copytree(built, tmp_path / "store"))
    with closing(Service(Settings(store=str(store), recall_sample=1.0))) as service:
        assert service.recall() == {"share": 1.0, "figures": []}
        service.index("notes", kind="faiss_hnsw")
        for n in range(5):
            assert service.search("notes", {"text": f"a boat number {n}"})["index"] == "faiss_hnsw"
        service.sampler._queue.join()
        (figure,) = service.info("notes")["recall"]
        assert (figure["collection"], figure["replays"], figure["recall"]) == ("notes", 5, 1.0)
        assert service.info("pics")["recall"] == []


def test_a_collection_that_is_deleted_and_made_again_is_opened_again(tmp_path: Path, sources: Path) -> None:
    with closing(Service(Settings(store=str(tmp_path / "s")))) as service:
        for encoder in ("hashing:64", "hashing:32"):
            service.embed(str(sources / "notes.csv"), "notes", encoders=[encoder])
            assert service.search("notes", {"text": "boat"})["encoder"] == encoder
            service.search("notes", {"text": "boat"}, space=encoder)
            if encoder == "hashing:64":
                service.delete("notes", everything=True)
                with pytest.raises(UnknownName):
                    service.search("notes", {"text": "boat"})
