"""A failure is one line that a terminal, a log and a table can hold."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from embedder.errors import Undecodable
from embedder.records import Failure, Item

KEYS = {"id", "source", "stage", "reason", "exception", "message", "bytes", "attempt", "ms"}


def cause(text: str) -> Undecodable:
    error = Undecodable(text, stage="decode", reason="bad_unicode", hint="repair it")
    error.__cause__ = KeyError("inner")
    return error


def test_a_failure_names_the_item_and_the_cause() -> None:
    item = Item("a", "text", "a.txt", path="/x/a.txt", size=3)
    failure = Failure.of(item, cause("not UTF-8"), size=3, ms=1.23456)
    assert failure.as_json() == {
        "id": "a", "source": "a.txt", "stage": "decode", "reason": "bad_unicode", "exception": "KeyError",
        "message": "not UTF-8 (repair it)", "bytes": 3, "attempt": 1, "ms": 1.235,
    }  # fmt: skip
    plain = Failure.of(item, Undecodable("no", stage="read", reason="missing"))
    assert (plain.exception, plain.message) == ("Undecodable", "no")


@given(st.text(st.characters(), max_size=400))
def test_a_message_is_short_ascii_on_one_line(text: str) -> None:
    record = Failure.of(Item("a", "text", "a.txt"), cause(text)).as_json()
    assert set(record) == KEYS
    assert len(record["message"]) <= 200
    assert record["message"].isascii()
    assert record["message"].isprintable()
    line = json.dumps(record)
    assert "\n" not in line
    assert json.loads(line) == record
