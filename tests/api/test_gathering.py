"""What waits is answered together, and nobody notices: the answers, the errors and the turns are those of one alone."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fastapi.testclient import TestClient
from threadpoolctl import ThreadpoolController

from api import app, gathering
from api.gathering import Gathering
from api.service import Service
from api.serving import Serving
from api.settings import Settings
from embedder.errors import UsageError

WAIT_S = 30
SEARCH = "/v1/collections/notes/search"


class Held:
    """Answers by doubling, once it may; `calls` are the questions of each call."""

    def __init__(self) -> None:
        self.go, self.began = threading.Event(), threading.Event()
        self.calls: list[list[int]] = []

    def __call__(self, questions: Sequence[int]) -> list[int]:
        self.calls.append(list(questions))
        self.began.set()
        assert self.go.wait(WAIT_S)
        if -1 in questions:
            raise UsageError("less than nothing")
        if -2 in questions:
            raise ZeroDivisionError
        return [2 * one for one in questions]


@pytest.fixture
def begin() -> Iterator[Callable[..., tuple[Gathering, Held]]]:
    """Start a gathering whose first question is under way and held."""
    made: list[tuple[Gathering, Held]] = []

    def one(threads: int = 1) -> tuple[Gathering, Held]:
        made.append((Gathering(threads), Held()))
        gathered, held = made[-1]
        gathered.submit("key", [0], held)
        assert held.began.wait(WAIT_S)
        return gathered, held

    yield one
    for gathered, held in made:
        held.go.set()
        gathered.close()


def results(asked: Sequence[Future[Sequence[int]]]) -> list[list[int]]:
    return [list(one.result(WAIT_S)) for one in asked]


def test_what_waits_goes_together_and_each_gets_its_own(begin: Any) -> None:
    gathered, held = begin()
    asked = [gathered.submit("key", given, held) for given in ([1], [2, 3], [4])]
    held.go.set()
    assert results(asked) == [[2], [4, 6], [8]]
    assert held.calls == [[0], [1, 2, 3, 4]]


def test_an_error_is_that_of_its_own_questions(begin: Any) -> None:
    gathered, held = begin()
    asked = [gathered.submit("key", given, held) for given in ([1], [-1], [3])]
    held.go.set()
    assert results([asked[0], asked[2]]) == [[2], [6]]
    with pytest.raises(UsageError, match="less than nothing"):
        asked[1].result(WAIT_S)
    assert held.calls == [[0], [1, -1, 3], [1], [-1], [3]]


def test_what_is_unexpected_reaches_all_and_ends_nothing(begin: Any) -> None:
    gathered, held = begin()
    asked = [gathered.submit("key", given, held) for given in ([1], [-2])]
    held.go.set()
    for one in asked:
        with pytest.raises(ZeroDivisionError):
            one.result(WAIT_S)
    assert results([gathered.submit("key", [5], held)]) == [[10]]


def test_what_nobody_waits_for_is_not_asked(begin: Any) -> None:
    gathered, held = begin()
    asked = [gathered.submit("key", [n], held) for n in (1, 2, 3)]
    assert asked[1].cancel()
    held.go.set()
    assert results([asked[0], asked[2]]) == [[2], [6]]
    assert held.calls == [[0], [1, 3]]
    last = gathered.submit("other", [7], held)
    assert last.result(WAIT_S) == [14]


def test_no_call_is_larger_than_the_most_and_other_keys_come_between(
    begin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "MOST_TOGETHER", 3)
    gathered, held = begin()
    asked = [gathered.submit("key", given, held) for given in ([1, 2], [3], [4, 5, 6, 7], [8])]
    other = gathered.submit("other", [9], held)
    held.go.set()
    assert results([*asked, other]) == [[2, 4], [6], [8, 10, 12, 14], [16], [18]]
    assert held.calls == [[0], [9], [1, 2, 3], [4, 5, 6, 7], [8]]


def test_keys_do_not_wait_for_each_other_where_there_are_threads(begin: Any) -> None:
    gathered, _ = begin(threads=2)
    free = Held()
    free.go.set()
    assert results([gathered.submit("other", [1], free)]) == [[2]]


@pytest.fixture(scope="module")
def service(built: Path) -> Iterator[Serving]:
    with closing(Serving(Settings(store=str(built), recall_sample=0))) as made:
        made.models.load_named()
        yield made


def test_many_clients_at_once_get_what_each_gets_alone(service: Serving, built: Path) -> None:
    bodies: list[dict[str, Any]] = []
    for n in range(24):
        query: dict[str, Any] = {"id": f"n{n}"}
        if n % 3 == 1:
            query = {"vector": np.random.default_rng(n).standard_normal(64).round(4).tolist()}
        if n % 3 == 2:
            query = {"text": f"a red boat number {n}"}
        bodies.append({"query": query, "k": 3 + n % 2, **({"filter": "year > 2010"} if n % 4 == 0 else {})})
    wrong = {"query": {"vector": [1.0, 2.0]}, "k": 3}
    with (
        TestClient(app.create_app(service), base_url="http://127.0.0.1") as client,
        ThreadPoolExecutor(len(bodies) + 1) as clients,
        closing(Service(Settings(store=str(built)))) as alone,
    ):
        found = list(clients.map(lambda body: client.post(SEARCH, json=body), [wrong, *bodies] * 3))
        for body, answer in zip([wrong, *bodies] * 3, found, strict=True):
            if body is wrong:
                assert answer.status_code == 422
                assert "2 dimensions" in answer.json()["error"]["message"]
                continue
            expected = alone.search("notes", body["query"], k=body["k"], where=body.get("filter"))
            assert answer.status_code == 200, answer.text
            assert [hit["id"] for hit in answer.json()["hits"]] == [hit["id"] for hit in expected["hits"]]
            scores = [hit["score"] for hit in answer.json()["hits"]]
            np.testing.assert_allclose(scores, [hit["score"] for hit in expected["hits"]], atol=1e-6)


def test_blas_leaves_a_processor_to_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    (library, *_) = ThreadpoolController().select(user_api="blas").lib_controllers
    before = library.num_threads
    try:
        library.set_num_threads(2)
        monkeypatch.setattr(app.machine, "cores", lambda: 8)
        app.spare_a_core()
        assert library.num_threads == 2, "a smaller number is what was asked for"
        monkeypatch.setattr(app.machine, "cores", lambda: 2)
        app.spare_a_core()
        assert library.num_threads == 1
    finally:
        library.set_num_threads(before)
