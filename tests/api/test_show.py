"""What people read: nothing in it controls the terminal, and it fits."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import show


@given(st.text())
def test_nothing_unprintable_is_left(text: str) -> None:
    shown = show.safe(text)
    assert shown.isprintable()
    assert (shown == text) == text.isprintable()


@pytest.mark.parametrize("text", ["a\x1b[31mb", "a\nb", "a\u202eb", "a\u2028b", "a\u200fb", "\ud800"])
def test_what_controls_a_terminal_is_spelled_out(text: str) -> None:
    assert "\\" in show.safe(text)


@given(st.text(alphabet="ab\u4f60\u597d e\u0301", max_size=40), st.integers(3, 30))
def test_a_cut_text_fits(text: str, cells: int) -> None:
    shown = show.cut(text, cells)
    assert show.width(shown) <= cells
    assert shown == text or shown.endswith("...")


def test_wide_and_combining_characters_count_as_they_are_drawn() -> None:
    assert show.width("\u4f60\u597d") == 4
    assert show.width("e\u0301") == 1


def test_columns_are_aligned_by_cells() -> None:
    lines = show.aligned([["a", "x"], ["\u4f60\u597d", "y"]])
    assert lines == ["a     x", "\u4f60\u597d  y"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.04, "0.0 s"), (5.44, "5.4 s"), (190, "3 min 10 s"), (7500, "2 h 5 min"), (None, "?"), (math.nan, "?")],
)  # fmt: skip
def test_durations(seconds: float | None, text: str) -> None:
    assert show.duration(seconds) == text


@pytest.mark.parametrize(
    ("n", "text"), [(0, "0 B"), (1023, "1023 B"), (1536, "1.5 KiB"), (21 << 20, "21.0 MiB"), (3 << 40, "3.0 TiB")]
)
def test_sizes(n: int, text: str) -> None:
    assert show.size(n) == text


def test_counts_agree_with_their_noun() -> None:
    assert show.count(1, "item") == "1 item"
    assert show.count(7388, "item") == "7,388 items"


def test_the_bottleneck_comes_first_and_shares_add_up() -> None:
    shares = show.shares({"read": 9.0, "decode": 9.0, "wait": 1.0, "encode": 3.0, "write": 0.0})
    assert shares == [("encode", 0.75), ("read", 0.125), ("decode", 0.125), ("write", 0.0)]
    unread = show.shares({"read": 0.0, "decode": 0.0, "wait": 1.0, "encode": 0.0, "write": 1.0})
    assert dict(unread) == {"read": 0.0, "decode": 0.5, "encode": 0.0, "write": 0.5}
    assert show.shares(dict.fromkeys(("read", "decode", "wait", "encode", "write"), 0.0)) == []


def test_fields_quote_texts_with_blanks() -> None:
    assert (
        show.fields({"label": "cat", "text": "a red\nboat", "year": 2020})
        == 'label=cat  text="a red\\\\nboat"  year=2020'
    )


def test_a_block_leaves_out_what_says_nothing() -> None:
    assert show.block("title", [("one", "1"), ("empty", ""), ("three", "3")]) == "title\n  one    1\n  three  3"
