"""The filter grammar against a plain three-valued evaluation of the same tree."""

from __future__ import annotations

import re
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from embedder.errors import UnknownName, UsageError
from index import filters
from index.filters import Condition, Filter, Node

TABLE = pa.table(
    {
        "id": ["a", "b", "c", "d", "e"],
        "label": pa.array(["cat", None, "dog's", "", "a%b_c"], pa.string()),
        "year": pa.array([2019, 2020, None, -5, 2020], pa.int64()),
        "score": pa.array([0.5, None, 1e3, -0.25, 0.0], pa.float64()),
        "ok": pa.array([True, False, None, True, False], pa.bool_()),
    }
)
ROWS = TABLE.to_pylist()
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "label": st.sampled_from(["cat", "dog's", "", "a%b_c", "zebra", "x' OR '1'='1"]),
    "year": st.integers(-10, 2025),
    "score": st.sampled_from([0.5, 0.0, 1e3, -0.25, 7.125]),
    "ok": st.booleans(),
}


@st.composite
def conditions(draw: st.DrawFn) -> Condition:
    column = draw(st.sampled_from(sorted(VALUES)))
    ops = ["eq", "ne", "lt", "le", "gt", "ge", "in", "null"] if column != "ok" else ["eq", "ne", "in", "null"]
    op = draw(st.sampled_from([*ops, "like"] if column == "label" else ops))
    if op == "null":
        return Condition(column, op)
    if op == "like":
        return Condition(column, op, (draw(st.sampled_from(["%", "c%", "_at", "%'%", "a%", "%b%", ""])),))
    many = draw(st.lists(VALUES[column], min_size=1, max_size=3))
    return Condition(column, op, tuple(many) if op == "in" else tuple(many[:1]))


TREES = st.recursive(
    conditions(),
    lambda inner: st.one_of(
        st.builds(lambda a: Node("not", (a,)), inner),
        st.builds(
            lambda op, parts: Node(op, tuple(parts)),
            st.sampled_from(["and", "or"]),
            st.lists(inner, min_size=2, max_size=3),
        ),
    ),
    max_leaves=8,
)


def oracle(tree: Filter, row: dict[str, Any]) -> bool | None:
    """SQL's three-valued logic, written out."""
    if isinstance(tree, Node):
        parts = [oracle(p, row) for p in tree.parts]
        if tree.op == "not":
            return None if parts[0] is None else not parts[0]
        decisive = tree.op == "or"
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive
    value = row[tree.column]
    if tree.op == "null":
        return value is None
    if value is None:
        return None
    if tree.op == "in":
        return value in tree.values
    if tree.op == "like":
        pattern = "".join(".*" if c == "%" else "." if c == "_" else re.escape(c) for c in str(tree.values[0]))
        return re.fullmatch(pattern, value, re.S) is not None
    other: Any = tree.values[0]
    answers = {
        "eq": value == other, "ne": value != other, "lt": value < other,
        "le": value <= other, "gt": value > other, "ge": value >= other,
    }  # fmt: skip
    return bool(answers[tree.op])


def sql(tree: Filter) -> str:
    """The text that must be read back as this tree."""
    if isinstance(tree, Node):
        if tree.op == "not":
            return f"NOT ({sql(tree.parts[0])})"
        return "(" + f" {tree.op} ".join(f"({sql(p)})" for p in tree.parts) + ")"
    name = f'"{tree.column}"'
    shown = [_sql_value(v) for v in tree.values]
    if tree.op == "null":
        return f"{name} IS NULL"
    if tree.op == "in":
        return f"{name} in ({', '.join(shown)})"
    symbol = {"eq": "=", "ne": "<>", "lt": "<", "le": "<=", "gt": ">", "ge": ">=", "like": "LIKE"}[tree.op]
    return f"{name} {symbol} {shown[0]}"


def _sql_value(value: Any) -> str:
    if isinstance(value, str):
        return "'" + value.replace("'", "''") + "'"
    return str(value).upper() if isinstance(value, bool) else repr(value)


def ids(tree: Filter) -> list[str]:
    found: list[str] = TABLE.filter(filters.expression(tree, TABLE.schema))["id"].to_pylist()
    return found


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_every_tree_selects_what_three_valued_logic_selects(tree: Filter) -> None:
    assert ids(tree) == [row["id"] for row in ROWS if oracle(tree, row) is True]


@settings(max_examples=200, deadline=None)
@given(TREES)
def test_the_sql_text_reads_back_as_the_same_filter(tree: Filter) -> None:
    assert ids(filters.parse(sql(tree))) == ids(tree)


@pytest.mark.parametrize(
    ("form", "same"),
    [
        ({"must": [{"key": "label", "match": {"value": "cat"}}]}, "label = 'cat'"),
        ({"must_not": [{"key": "label", "match": {"value": "cat"}}]}, "NOT label = 'cat'"),
        ({"should": [{"key": "year", "match": {"value": 2020}}, {"has_id": ["a"]}]}, "year = 2020 OR id IN ('a')"),
        ({"must": [{"key": "year", "range": {"gte": 2019, "lt": 2020}}]}, "year >= 2019 AND year < 2020"),
        ({"must": [{"key": "label", "match": {"any": ["cat", ""]}}]}, "label IN ('cat', '')"),
        (
            {"must": [{"should": [{"key": "ok", "match": {"value": True}}]}], "must_not": [{"has_id": ["d"]}]},
            "ok = TRUE AND NOT id = 'd'",
        ),
    ],
)
def test_the_json_form_means_the_same(form: dict[str, Any], same: str) -> None:
    assert ids(filters.read(form)) == ids(filters.read(same)) != []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the name of a column at the end"),
        ("label", "a comparison, IN, LIKE or IS at the end"),
        ("label = cat", "a value"),
        ("label = 'cat", "cannot be read at character 9"),
        ("label = 'a'; DROP TABLE items", "cannot be read at character 12"),
        ("label = 'a' -- comment", "cannot be read"),
        ("1 = 1", "the name of a column at character 1"),
        ("label = 'a' OR 1=1", "the name of a column"),
        ("(label = 'a'", "needs \\) at the end"),
        ("label = 'a')", "AND, OR or the end"),
        ("label NOT = 'a'", "IN or LIKE"),
        ("repeat('a', 1000000000) = label", "a comparison"),
        ("year IN ()", "a value"),
        ("label = 'a' = 'b'", "AND, OR or the end"),
        ("NOT " * 5000 + "(" * 500 + "ok = TRUE" + ")" * 500, "nested more than 64"),
        (" OR ".join(["ok = TRUE"] * 65), "more than 64 conditions"),
    ],
)
def test_what_is_not_a_filter_is_refused_with_the_place(text: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        filters.read(text)


@pytest.mark.parametrize(
    "form",
    [
        {}, {"must": []}, {"most": []}, {"must": ["x"]}, {"must": [{"key": "a"}]}, {"must": [{"match": {"value": 1}}]},
        {"must": [{"key": "a", "match": {"value": None}}]}, {"must": [{"key": "a", "range": {"above": 1}}]},
        {"must": [{"key": "a", "match": {"value": float("nan")}}]}, {"must": [{"has_id": []}]},
    ],
)  # fmt: skip
def test_what_is_not_a_json_filter_is_refused(form: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        filters.read(form)


def test_columns_and_types_are_checked_against_the_schema() -> None:
    with pytest.raises(UnknownName, match="labl") as caught:
        ids(filters.parse("labl = 'cat'"))
    assert "did you mean label" in caught.value.hint
    for text in (
        "label = 5",
        "year = 'x'",
        "ok = 1",
        "year = 2020.5",
        "year LIKE 'x'",
        "score = TRUE",
        "year = 99999999999999999999",
    ):
        with pytest.raises(UsageError):
            ids(filters.parse(text))
    assert ids(filters.parse("year = 2020.0")) == ["b", "e"]
