"""A Space is named by all that changes a vector, and by nothing else; a record that was touched is noticed."""

from __future__ import annotations

import copy
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from embedder.errors import Damaged, SpaceMismatch
from embedder.space import Space, canonical_json, differences

LEAVES = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text()
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
IDENTITIES = st.dictionaries(st.text(), VALUES, min_size=1, max_size=5)
SPACES = st.builds(
    Space,
    encoder=st.text(),
    dim=st.integers(1, 5000),
    media=st.sampled_from([("image",), ("text",), ("image", "text"), ("text", "image")]),
    identity=IDENTITIES,
    provenance=st.dictionaries(st.text(), VALUES, max_size=2),
    metric=st.sampled_from(["cosine", "dot"]),
)
GIVEN = Space(
    "hashing:8", 8, ("image", "text"),
    {"architecture": "a", "weights": {"sha256": "0f"}, "normalize": True, "dtype": "float32",
     "image": {"mean": (0.5, 0.5, 0.5), "crop": {"side": 224}}, "text": {"max_length": 77}},
    {"torch": "2.14.1"},
)  # fmt: skip


def leaves(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Every path at which something can be changed, empty containers included."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if not inner or not value:
        yield path
    for key, one in inner:
        yield from leaves(one, (*path, key))


def changed(identity: dict[str, Any], path: tuple[Any, ...], value: Any) -> tuple[dict[str, Any], Any]:
    """The identity with one leaf set, and what was there."""
    out = copy.deepcopy(identity)
    place: Any = out
    for key in path[:-1]:
        place = place[key]
    before, place[path[-1]] = place[path[-1]], value
    return out, before


@given(SPACES, LEAVES, st.data())
def test_every_single_change_changes_the_fingerprint(space: Space, value: Any, data: st.DataObject) -> None:
    identity = dict(space.identity)
    path = data.draw(st.sampled_from(list(leaves(identity))))
    other, before = changed(identity, path, value)
    assume(canonical_json(before) != canonical_json(value))
    moved = replace(space, identity=other)
    assert moved.fingerprint != space.fingerprint
    named = differences(space, moved)
    assert len(named) == 1
    whole = ".".join(str(key) for key in path)
    assert whole.startswith(named[0])


@given(SPACES, st.text(), LEAVES)
def test_a_fact_more_or_less_changes_the_fingerprint(space: Space, name: str, value: Any) -> None:
    assume(name not in space.identity)
    more = replace(space, identity={**space.identity, name: value})
    assert more.fingerprint != space.fingerprint
    assert differences(space, more) == differences(more, space) == [name]


@pytest.mark.parametrize(
    ("change", "named"),
    [({"dim": 9}, "dim"), ({"metric": "dot"}, "metric"), ({"media": ("image",)}, "media")],
)
def test_dimension_metric_and_media_count(change: dict[str, Any], named: str) -> None:
    other = replace(GIVEN, **change)
    assert other.fingerprint != GIVEN.fingerprint
    assert differences(GIVEN, other) == [named]


def test_name_provenance_and_order_do_not_count() -> None:
    turned = dict(reversed(GIVEN.identity.items()))
    for other in (
        replace(GIVEN, encoder="another:name"),
        replace(GIVEN, provenance={}),
        replace(GIVEN, media=("text", "image")),
        replace(GIVEN, identity=turned),
    ):
        assert other.fingerprint == GIVEN.fingerprint
        assert differences(GIVEN, other) == []
        GIVEN.require(other, what="the index")


def test_the_fingerprint_of_a_known_space_never_moves() -> None:
    """Stored Spaces are found by it: a change here loses every collection."""
    text = (
        '{"dim":8,"identity":{"architecture":"a","dtype":"float32",'
        '"image":{"crop":{"side":224},"mean":[0.5,0.5,0.5]},"normalize":true,"text":{"max_length":77},'
        '"weights":{"sha256":"0f"}},"media":["image","text"],"metric":"cosine","version":1}'
    )
    assert GIVEN.fingerprint == hashlib.sha256(text.encode()).hexdigest()[:32] == "9007447351429c46342dd8018426dcda"
    assert GIVEN.short == GIVEN.fingerprint[:12]
    assert str(GIVEN) == f"{GIVEN.short} (hashing:8, 8-d)"
    assert GIVEN.dtype == "float32"


@given(SPACES)
def test_json_round_trip(space: Space) -> None:
    back = Space.from_json(json.loads(json.dumps(space.as_json())))
    assert back == space
    assert back.fingerprint == space.fingerprint
    assert json.loads(canonical_json(space.as_json())) == space.as_json()


def test_tuples_come_back_as_the_same_space() -> None:
    assert Space.from_json(json.loads(canonical_json(GIVEN.as_json()))).fingerprint == GIVEN.fingerprint


@given(SPACES, LEAVES, st.data())
def test_a_record_that_was_touched_is_damaged(space: Space, value: Any, data: st.DataObject) -> None:
    record = json.loads(json.dumps(space.as_json()))
    counted = {name: record[name] for name in ("dim", "media", "metric", "identity", "fingerprint")}
    path = data.draw(st.sampled_from(list(leaves(counted))))
    touched, before = changed(record, path, value)
    assume(canonical_json(before) != canonical_json(value))
    with pytest.raises(Damaged, match="a stored Space"):
        Space.from_json(touched)


@pytest.mark.parametrize("name", ["encoder", "dim", "media", "identity", "metric", "fingerprint"])
def test_a_record_that_lacks_a_field_is_damaged(name: str) -> None:
    record = {k: v for k, v in GIVEN.as_json().items() if k != name}
    with pytest.raises(Damaged, match=f"lacks '{name}'"):
        Space.from_json(record)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("dim", "many"), ("dim", None), ("dim", "8"), ("dim", 8.0), ("dim", math.nan), ("media", None), ("media", 3),
        ("media", ["image", "text", "smell"]), ("media", [["image"]]), ("media", "image"), ("identity", None),
        ("identity", [1]), ("identity", {"a": math.nan}), ("identity", {"a": {1, 2}}), ("metric", None),
        ("provenance", 3), ("fingerprint", None),
    ],
)  # fmt: skip
def test_a_record_without_sense_is_damaged(name: str, value: Any) -> None:
    with pytest.raises(Damaged) as caught:
        Space.from_json({**GIVEN.as_json(), name: value})
    assert caught.value.hint


def test_a_record_may_lack_provenance() -> None:
    record = {k: v for k, v in GIVEN.as_json().items() if k != "provenance"}
    assert Space.from_json(record).provenance == {}


def test_a_mismatch_names_both_and_what_differs() -> None:
    identity = {**GIVEN.identity, "image": {"mean": (0.5, 0.5, 0.4), "crop": {"side": 225}}, "seed": None}
    other = Space("hashing:9", 9, ("image",), identity)
    with pytest.raises(SpaceMismatch) as caught:
        GIVEN.require(other, what="this head")
    assert caught.value.what == f"this head is of Space {other}, not of {GIVEN}"
    assert caught.value.where == "differs in: dim, media, image.crop.side, image.mean, seed"
    assert caught.value.hint


@pytest.mark.parametrize(("one", "two"), [(1, 1.0), (1, True), (0, False), (None, 0), ("1", 1), ([1], 1), ({}, [])])
def test_values_that_python_calls_equal_are_told_apart(one: Any, two: Any) -> None:
    a, b = (replace(GIVEN, identity={"x": value}) for value in (one, two))
    assert a.fingerprint != b.fingerprint
    assert differences(a, b) == ["x"]


def turned(value: Any) -> Any:
    """The same facts with keys in reverse order and lists as tuples."""
    if isinstance(value, dict):
        return {key: turned(value[key]) for key in reversed(value)}
    return tuple(turned(one) for one in value) if isinstance(value, list) else value


@given(VALUES)
def test_canonical_json_is_one_spelling(value: Any) -> None:
    text = canonical_json(value)
    assert canonical_json(turned(value)) == text
    assert text.isascii()
    assert json.loads(text) == value
    assert canonical_json(json.loads(text)) == text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, {"a": [math.nan]}])
def test_canonical_json_refuses_what_json_does_not_have(value: Any) -> None:
    with pytest.raises(ValueError, match="JSON"):
        canonical_json(value)


def test_canonical_json_by_hand() -> None:
    assert canonical_json({"b": (1, 2.5), "a": "é\n"}) == '{"a":"\\u00e9\\n","b":[1,2.5]}'
