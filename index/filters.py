"""Filters: one small grammar at every door, parsed to a tree, checked against the schema, never pasted into SQL.

    filter  = term { OR term }          term = factor { AND factor }       factor = [NOT] ( '(' filter ')' | test )
    test    = NAME ( = | != | <> | < | <= | > | >= ) VALUE | NAME [NOT] IN ( VALUE {, VALUE} )
            | NAME [NOT] LIKE 'pattern' | NAME IS [NOT] NULL
    VALUE   = 'text' ('' inside) | number | TRUE | FALSE             NAME = letters, digits, _ and . | "quoted"

As in SQL, a comparison with null is neither true nor false, and only what is true passes. LIKE's wildcards: `%`, `_`.
The JSON form is `{"must": [...], "should": [...], "must_not": [...]}` over `{"key", "match": {"value"}}`,
`{"key", "range": {"gte", "gt", "lte", "lt"}}` and `{"has_id": [...]}`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Any

from embedder.errors import UnknownName, UsageError

MAX_NODES = 64
MAX_VALUES = 10_000
TOKEN = re.compile(
    r"""(?:(?P<text>'(?:[^']|'')*')|(?P<number>[+-]?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?)(?![\w.])|(?P<quoted>"(?:[^"]|"")+")"""
    r"""|(?P<name>[A-Za-z_][\w.]*)|(?P<op><=|>=|<>|!=|=|<|>)|(?P<mark>[(),]))"""
)
OPERATORS = {"=": "eq", "!=": "ne", "<>": "ne", "<": "lt", "<=": "le", ">": "gt", ">=": "ge"}
RANGES = {"gte": "ge", "gt": "gt", "lte": "le", "lt": "lt"}

Value = str | int | float | bool


@dataclass(frozen=True)
class Condition:
    """One test of a column: `op` is eq, ne, lt, le, gt, ge, in, like or null; `values` is what it is compared with."""

    column: str
    op: str
    values: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Node:
    """`op` is and, or, not; `parts` are its operands, one for not."""

    op: str
    parts: tuple[Filter, ...]


Filter = Condition | Node


def parse(text: str) -> Filter:
    """Read the SQL form.

    Raises:
        UsageError: the text is not a filter; the place and what was expected are named.
    """
    parser = _Parser(text)
    tree = parser.either()
    if parser.peek() is not None:
        parser.fail("AND, OR or the end")
    return tree


def from_json(form: Mapping[str, Any]) -> Filter:
    """Read the JSON form. Raises `UsageError` where it is not one."""
    unknown = set(form) - {"must", "should", "must_not"}
    if unknown or not form:
        raise UsageError(f"a filter has must, should and must_not, not {', '.join(sorted(unknown)) or 'nothing'}")
    parts: list[Filter] = []
    for name, rows in form.items():
        rows = [rows] if isinstance(rows, Mapping) else rows
        if not isinstance(rows, list) or not rows:
            raise UsageError(f"{name} must be a list of conditions")
        tests = [_condition(row) for row in rows]
        if name == "should":
            parts.append(_join("or", tests))
        elif name == "must":
            parts += tests
        else:
            parts += [Node("not", (test,)) for test in tests]
    return _join("and", parts)


def read(form: str | Mapping[str, Any]) -> Filter:
    """Read either form, and refuse a filter of more than 64 nodes."""
    try:
        tree = parse(form) if isinstance(form, str) else from_json(form)
        size = _size(tree)
    except RecursionError:
        raise UsageError("the filter is nested too deeply", hint=f"it may have {MAX_NODES} conditions") from None
    if size > MAX_NODES:
        raise UsageError(f"the filter has more than {MAX_NODES} conditions", hint="use IN for a list of values")
    return tree


def columns(tree: Filter) -> set[str]:
    """Return the names of the columns that a filter reads."""
    return {tree.column} if isinstance(tree, Condition) else set().union(*(columns(p) for p in tree.parts))


def expression(tree: Filter, schema: Any) -> Any:
    """Return the filter as an Arrow expression over a table of this schema.

    Raises:
        UnknownName: a column that the schema lacks.
        UsageError: a value of a type that the column does not hold.
    """
    import pyarrow.compute as pc

    if isinstance(tree, Condition):
        return _test(tree, schema, pc)
    parts = [expression(part, schema) for part in tree.parts]
    if tree.op == "not":
        return ~parts[0]
    return reduce(lambda a, b: a & b if tree.op == "and" else a | b, parts)


def _test(test: Condition, schema: Any, pc: Any) -> Any:
    import pyarrow as pa

    if test.column not in schema.names:
        raise UnknownName.of("column", test.column, schema.names, hint=f"columns: {', '.join(schema.names)}")
    kind = schema.field(test.column).type
    field = pc.field(test.column)
    if test.op == "null":
        return field.is_null()
    values = [_cast(value, kind, test.column) for value in test.values]
    if test.op == "in":
        # is_in answers false for null, where SQL answers unknown; NOT IN must not let nulls pass
        known = pc.if_else(
            field.is_null(), pa.scalar(None, pa.bool_()), pc.is_in(field, value_set=pa.array(values, type=kind))
        )
        return known
    if test.op == "like":
        if not pa.types.is_string(kind):
            raise UsageError(f"LIKE reads text, and column {test.column!r} does not hold text")
        return pc.match_like(field, values[0])
    scalar = pa.scalar(values[0], type=kind)
    name = {"eq": "equal", "ne": "not_equal", "lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal"}[
        test.op
    ]
    return getattr(pc, name)(field, scalar)


def _cast(value: Value, kind: Any, column: str) -> Any:
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        good = isinstance(value, bool)
    elif pa.types.is_string(kind):
        good = isinstance(value, str)
    else:
        good = isinstance(value, (int, float)) and not isinstance(value, bool)
        if isinstance(value, (int, float)) and good and pa.types.is_integer(kind):
            good = float(value).is_integer() and -(2**63) <= value < 2**63
            value = int(value) if good else value
    if not good:
        raise UsageError(
            f"column {column!r} holds {kind}, and {value!r} is not one", hint="text goes in 'single quotes'"
        )
    return value


def _condition(row: Any) -> Filter:
    if not isinstance(row, Mapping):
        raise UsageError(f"a condition is an object, not {row!r}")
    if set(row) & {"must", "should", "must_not"}:
        return from_json(row)
    if "has_id" in row:
        return Condition("id", "in", _values(row["has_id"]))
    name = row.get("key")
    if not isinstance(name, str):
        raise UsageError(
            "a condition needs a key, the name of a column", hint='{"key": "label", "match": {"value": "cat"}}'
        )
    if "match" in row and isinstance(row["match"], Mapping):
        match = row["match"]
        if "any" in match:
            return Condition(name, "in", _values(match["any"]))
        return Condition(name, "eq", _values([match.get("value")]))
    if "range" in row and isinstance(row["range"], Mapping) and set(row["range"]) <= set(RANGES) and row["range"]:
        return _join("and", [Condition(name, RANGES[op], _values([v])) for op, v in row["range"].items()])
    raise UsageError(f"the condition on {name!r} needs match or range", hint='{"key": "year", "range": {"gte": 2020}}')


def _values(values: Any) -> tuple[Value, ...]:
    if not isinstance(values, list) or not values or len(values) > MAX_VALUES:
        raise UsageError(f"a list of 1 to {MAX_VALUES} values is needed")
    for value in values:
        if not isinstance(value, (str, int, float, bool)) or value != value:
            raise UsageError(f"{value!r} is not a text, a number or a truth value")
    return tuple(values)


def _join(op: str, parts: list[Filter]) -> Filter:
    return parts[0] if len(parts) == 1 else Node(op, tuple(parts))


def _size(tree: Filter) -> int:
    return 1 if isinstance(tree, Condition) else 1 + sum(_size(p) for p in tree.parts)


class _Parser:
    """Recursive descent over the tokens of one text."""

    def __init__(self, text: str) -> None:
        self.text, self.tokens, self.at, self.depth = text, _tokens(text), 0, 0

    def peek(self) -> tuple[str, str, int] | None:
        return self.tokens[self.at] if self.at < len(self.tokens) else None

    def take(self, *words: str) -> bool:
        token = self.peek()
        if token and token[0] != "text" and token[0] != "quoted" and token[1].upper() in words:
            self.at += 1
            return True
        return False

    def fail(self, expected: str) -> None:
        token = self.peek()
        place = f"character {token[2] + 1}, at {token[1]!r}" if token else "the end"
        raise UsageError(
            f"the filter needs {expected} at {place}",
            where=self.text[:200],
            hint="for example: year >= 2020 AND label = 'cat'",
        )

    def need(self, word: str) -> None:
        if not self.take(word):
            self.fail(word)

    def either(self) -> Filter:
        self.depth += 1
        if self.depth > MAX_NODES:
            raise UsageError(f"the filter is nested more than {MAX_NODES} deep")
        parts = [self.both()]
        while self.take("OR"):
            parts.append(self.both())
        self.depth -= 1
        return _join("or", parts)

    def both(self) -> Filter:
        parts = [self.factor()]
        while self.take("AND"):
            parts.append(self.factor())
        return _join("and", parts)

    def factor(self) -> Filter:
        negated = False
        while self.take("NOT"):
            negated = not negated
        if self.take("("):
            inner = self.either()
            self.need(")")
        else:
            inner = self.test()
        return Node("not", (inner,)) if negated else inner

    def test(self) -> Filter:
        column = self.column()
        negated = self.take("NOT")
        if self.take("IN"):
            found: Filter = Condition(column, "in", self.value_list())
        elif self.take("LIKE"):
            found = Condition(column, "like", (self.value(),))
        elif not negated and self.take("IS"):
            negated = self.take("NOT")
            self.need("NULL")
            found = Condition(column, "null")
        else:
            if negated or not (token := self.peek()) or token[0] != "op":
                self.fail("IN or LIKE" if negated else "a comparison, IN, LIKE or IS")
            self.at += 1
            found = Condition(column, OPERATORS[self.tokens[self.at - 1][1]], (self.value(),))
        return Node("not", (found,)) if negated else found

    def column(self) -> str:
        token = self.peek()
        if not token or token[0] not in ("name", "quoted"):
            self.fail("the name of a column")
        self.at += 1
        kind, text, _ = self.tokens[self.at - 1]
        return text[1:-1].replace('""', '"') if kind == "quoted" else text

    def value_list(self) -> tuple[Value, ...]:
        self.need("(")
        values = [self.value()]
        while self.take(","):
            values.append(self.value())
        self.need(")")
        return _values(values)

    def value(self) -> Value:
        token = self.peek()
        if token and token[0] == "text":
            self.at += 1
            return token[1][1:-1].replace("''", "'")
        if token and token[0] == "number":
            self.at += 1
            return int(token[1]) if re.fullmatch(r"[+-]?\d+", token[1]) else float(token[1])
        if self.take("TRUE"):
            return True
        if not self.take("FALSE"):
            self.fail("a value: 'text', a number, TRUE or FALSE")
        return False


def _tokens(text: str) -> list[tuple[str, str, int]]:
    found, at = [], 0
    while text[at:].strip():
        at += len(text[at:]) - len(text[at:].lstrip())
        match = TOKEN.match(text, at)
        if not match or not match.lastgroup:
            raise UsageError(
                f"the filter cannot be read at character {at + 1}: {text[at : at + 20]!r}", where=text[:200]
            )
        found.append((match.lastgroup, match[match.lastgroup], match.start(match.lastgroup)))
        at = match.end()
    return found
