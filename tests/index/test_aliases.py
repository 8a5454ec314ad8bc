from __future__ import annotations

import threading
from pathlib import Path

import pytest

from embedder.errors import Refused, UnknownName, UsageError
from index import aliases
from index.search import search
from index.store import Store
from index.view import View
from tests.index.tools import Rows, filled, planted, planted_vector, run

ONE, TWO = planted().space, planted(salt="b").space


def two_spaces(tmp_path: Path, n: int = 5) -> Store:
    collection = filled(tmp_path, n)
    run(collection, Rows({f"i{k:04d}": f"text {k}" for k in range(n)}), planted(salt="b"))
    return Store.open(tmp_path / "store")


def test_an_alias_is_pointed_listed_and_forgotten(tmp_path: Path) -> None:
    collection = two_spaces(tmp_path).collection("c")
    assert aliases.listed(collection) == {"default": ONE.fingerprint}
    assert aliases.point(collection, "new", "planted:b8") is None
    assert collection.space("new") == TWO
    assert aliases.point(collection, "default", "new") == ONE.fingerprint
    assert collection.space() == TWO
    assert aliases.remove(collection, "new") == TWO.fingerprint
    with pytest.raises(UnknownName) as caught:
        collection.space("new")
    assert caught.value.where == "collection c"
    with pytest.raises(Refused, match="used when none is named"):
        aliases.remove(collection, "default")


def test_wrong_names_are_answered_with_the_nearest(tmp_path: Path) -> None:
    collection = two_spaces(tmp_path).collection("c")
    aliases.point(collection, "production", "planted:8")
    with pytest.raises(UnknownName) as caught:
        collection.space("prodution")
    assert "did you mean production" in caught.value.hint
    with pytest.raises(UnknownName) as caught:
        aliases.remove(collection, "prod")
    assert "production" in caught.value.hint
    with pytest.raises(UnknownName, match="nothing-like-it"):
        aliases.point(collection, "x", "nothing-like-it")
    with pytest.raises(UsageError):
        aliases.point(collection, "Not A Name", "planted:8")
    assert set(aliases.listed(collection)) == {"default", "production"}


def test_a_search_during_swaps_is_of_one_space_or_the_other(tmp_path: Path) -> None:
    store = two_spaces(tmp_path, 8)
    seen: list[tuple[str, list[str]]] = []
    stop = threading.Event()
    spaces = {ONE.fingerprint: "", TWO.fingerprint: "b"}
    views = {f: View(store.collection("c"), s) for f, s in store.collection("c").spaces().items()}

    def query() -> None:
        collection = store.collection("c")
        while not stop.is_set():
            space = collection.space()
            vector = planted_vector("text 5", salt=spaces[space.fingerprint])
            hits = search(views[space.fingerprint], vector[None], k=8)[0].hits
            seen.append((space.fingerprint, [hit.id for hit in hits]))

    threads = [threading.Thread(target=query) for _ in range(2)]
    for thread in threads:
        thread.start()
    for n in range(40):
        aliases.point(store.collection("c"), "default", ("planted:b8", "planted:8")[n % 2])
    stop.set()
    for thread in threads:
        thread.join()
    answers = {fingerprint: {tuple(ids) for f, ids in seen if f == fingerprint} for fingerprint in spaces}
    assert all(len(found) <= 1 for found in answers.values())
    assert all(ids[0] == "i0005" for _, ids in seen)
    assert seen
