"""The tree drawn in `embedder/errors.py` is the tree that is there, and each error says what, where and what to do."""

from __future__ import annotations

import inspect
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedder import errors
from embedder.errors import (
    NothingToDo,
    Overloaded,
    PermafrostError,
    TooManyFailures,
    Undecodable,
    UnknownName,
    UsageError,
    nearest,
)

ROW = re.compile(r"^ +([ │├└─]*)(\w+) +exit (\d+) · HTTP (\d+)")
CONTRACT = {0, 1, 2, 3, 4, 5, 6, 130, 143}


def drawn() -> dict[str, tuple[str | None, int, int]]:
    """Read the drawing: name to (parent, exit code, status)."""
    tree: dict[str, tuple[str | None, int, int]] = {}
    above: list[tuple[int, str]] = []
    for line in (errors.__doc__ or "").splitlines():
        if found := ROW.match(line):
            column, name = len(found[1]), found[2]
            above = [(at, other) for at, other in above if at < column]
            tree[name] = (above[-1][1] if above else None, int(found[3]), int(found[4]))
            above.append((column, name))
    return tree


def written() -> dict[str, type[PermafrostError]]:
    classes = inspect.getmembers(errors, inspect.isclass)
    return {name: cls for name, cls in classes if issubclass(cls, PermafrostError)}


def test_the_drawing_is_true() -> None:
    assert {
        name: (None if cls is PermafrostError else cls.__base__.__name__, cls.exit_code, cls.status)
        for name, cls in written().items()
    } == drawn()
    assert len(drawn()) > 10


def test_exit_codes_are_those_of_the_contract_and_words_are_not_shared() -> None:
    classes = list(written().values())
    assert {cls.exit_code for cls in classes} == CONTRACT - {0, 130, 143}
    assert len({cls.type for cls in classes}) == len(classes)
    assert all(400 <= cls.status < 600 for cls in classes)


@pytest.mark.parametrize("cls", [c for c in written().values() if c is not Undecodable], ids=lambda c: c.__name__)
def test_three_lines(cls: type[PermafrostError]) -> None:
    error = cls("it broke", where="row 7", hint="mend it")
    assert str(error) == "it broke\nwhere: row 7\ndo:    mend it"
    assert str(cls("it broke")) == ("it broke\ndo:    ask again in 1 s" if cls is Overloaded else "it broke")
    assert str(cls("it broke", hint="mend it")) == "it broke\ndo:    mend it"
    assert error.args == ("it broke",)


def test_what_some_errors_carry() -> None:
    error = Undecodable("no", stage="decode", reason="truncated", where="a.jpg")
    assert (error.stage, error.reason, error.where) == ("decode", "truncated", "a.jpg")
    counts = {"failed": 3}
    kept = TooManyFailures("many", result=counts)
    counts["failed"] = 4
    assert kept.result == {"failed": 3}
    assert TooManyFailures("many").result == {}
    assert issubclass(NothingToDo, UsageError)


def test_a_wrong_name_is_answered_with_the_nearest() -> None:
    known = ["photos", "phones", "texts"]
    error = UnknownName.of("collection", "photo", known, where="my.store", hint="see ls")
    assert (error.what, error.where, error.subject) == ("no collection is called 'photo'", "my.store", "collection")
    assert error.hint.startswith("did you mean photos")
    assert UnknownName.of("collection", "zzz", known, hint="see ls").hint == "see ls"
    assert UnknownName.of("collection", "", known).hint == ""


def test_nearest_does_not_mind_upper_case() -> None:
    assert nearest("VIT-b-32", ["ViT-B-32", "RN50"]) == ["ViT-B-32"]
    assert nearest("OPEN_CLIP", ["open_clip", "openai", "timm"])[0] == "open_clip"
    assert nearest("minilm", ["bundled:minilm", "hashing:64"]) == ["bundled:minilm"]


@given(st.sets(st.text(min_size=1, max_size=12), max_size=8), st.text(max_size=12), st.integers(1, 4))
def test_nearest_only_names_what_is_known(known: set[str], name: str, n: int) -> None:
    found = nearest(name, known, n)
    assert set(found) <= known
    assert len(found) == len(set(found)) <= n
    folded = {other.casefold() for other in known}
    if name.casefold() in folded:
        assert found[0].casefold() == name.casefold()


@given(st.text("abcdefgh", min_size=5, max_size=12), st.integers(0, 11), st.sampled_from("xyz"))
def test_one_wrong_letter_is_forgiven(name: str, at: int, letter: str) -> None:
    at %= len(name)
    assert nearest(name[:at] + letter + name[at + 1 :], [name, "0123456789"]) == [name]
