from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from embedder.errors import UsageError
from index import build, commit
from index.hybrid import Ranks, by_words, fuse, hybrid, score
from index.view import View
from tests.index.tools import Rows, brute, filled, fresh, planted, planted_vector, run, view

ANIMALS = ("walrus", "lynx", "heron", "newt")
TEXTS = {f"i{n:03d}": f"the {ANIMALS[n % 4]} number {n} of the {'north' if n % 3 else 'south'}" for n in range(120)}
COLUMNS = {id: {"n": n} for n, id in enumerate(TEXTS)}


@pytest.fixture
def here(tmp_path: Path) -> View:
    collection = fresh(tmp_path)
    run(collection, Rows(TEXTS, COLUMNS, {"n": "int"}))
    return view(collection)


def words(here: View, text: str, k: int = 200, where: str | None = None) -> list[str]:
    moment = here.now()
    keys = by_words(here, moment, here.subset(where, moment), text, k).tolist()
    rows = here.rows_of(keys, moment.live)
    return [rows[key].id for key in keys]


def test_the_fused_score_is_the_papers() -> None:
    ranks = fuse(["a", "b", "c"], ["c", "d"])
    assert ranks == {"a": Ranks(1, None), "b": Ranks(2, None), "c": Ranks(3, 1), "d": Ranks(None, 2)}
    assert score(ranks["c"]) == pytest.approx(1 / 63 + 1 / 61)
    assert max(ranks, key=lambda id: score(ranks[id])) == "c"


def test_hits_are_the_fusion_of_both_lists(here: View) -> None:
    query = planted_vector("heron south")
    near = [id for id, _ in brute({id: planted_vector(text) for id, text in TEXTS.items()}, query, 100)]
    found = hybrid(here, "heron south", query[None], k=20)
    ranks = fuse(near, words(here, "heron south", 100))
    expected = sorted(ranks, key=lambda id: (-score(ranks[id]), id))[:20]
    assert [hit.id for hit in found.answer.hits] == expected
    assert found.ranks == [ranks[id] for id in expected]
    assert all(hit.item["text"] == TEXTS[hit.id] for hit in found.answer.hits)


def test_words_find_every_text_with_them_and_no_other_under_a_filter(here: View) -> None:
    assert set(words(here, "walrus")) == {id for id, text in TEXTS.items() if "walrus" in text}
    assert words(here, "zebra") == []
    assert len(words(here, "walrus", k=5, where="n >= 100")) == 5
    assert set(words(here, "walrus", where="n >= 100")) == {"i100", "i104", "i108", "i112", "i116"}


def test_fresh_texts_are_found_deleted_ones_are_not_and_upserts_still_match(here: View) -> None:
    assert not words(here, "okapi")
    run(here.collection, Rows({"new": "an okapi at last"}, root="o"), prefix="o/")
    assert words(here, "okapi") == ["o/new"]
    commit.delete_ids(here.collection, ["o/new"])
    assert words(here, "okapi") == []
    # Lance lost matches of merge_insert after it had folded rows into an index of the table
    here.collection.items.optimize()
    again = run(here.collection, Rows({**TEXTS, "i000": "a quokka instead"}, COLUMNS, {"n": "int"}))
    assert (again.embedded, again.unchanged) == (1, len(TEXTS) - 1)
    assert here.collection.count() == len(TEXTS)
    assert words(here, "quokka") == ["i000"]
    assert "i000" not in words(here, "walrus")
    build.build(here.collection, here.space, kind="flat")
    assert hybrid(here, "quokka", planted_vector("q")[None], k=1).answer.hits[0].id == "i000"


@pytest.mark.parametrize("text", ["title:walrus AND (", '"', "walrus~ ^", "'; drop table items", "*", "\0"])
def test_no_text_is_an_order_to_the_search_engine(here: View, text: str) -> None:
    assert len(hybrid(here, text, planted_vector("q")[None], k=3).answer.hits) == 3


def test_what_cannot_be_searched_by_words_is_refused(here: View, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no words"):
        hybrid(here, "  ", planted_vector("q")[None])
    pictures = filled(tmp_path / "other", 3)
    pictures.items.update(values_sql={"text": "NULL"})
    with pytest.raises(UsageError, match="no item here has one"):
        hybrid(View(pictures, planted().space), "walrus", np.ones((1, 8), np.float32))
