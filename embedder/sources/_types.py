"""The type of each column of a table, and values turned into it."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from decimal import Decimal
from typing import Any

INTEGER = re.compile(r"-?(0|[1-9][0-9]{0,18})")
NUMBER = re.compile(r"-?((0|[1-9][0-9]*)\.[0-9]*|\.[0-9]+|(0|[1-9][0-9]*)(?=[eE]))([eE][+-]?[0-9]+)?")
BOOLEANS = frozenset({"true", "false", "True", "False", "TRUE", "FALSE"})


class Types:
    """The narrowest type that holds every value of each column seen: bool, int, float or string.

    In a csv, a cell counts as a number only where nothing of its spelling is lost: `007`, `+49`, an integer that does
    not fit into 64 bits are strings. `samples` holds the first value of each column that is not null.
    """

    def __init__(self, *, text_cells: bool) -> None:
        self.found: dict[str, str] = {}
        self.samples: dict[str, Any] = {}
        self._text_cells = text_cells

    def see(self, row: Mapping[str, Any]) -> None:
        """Widen the types to hold one more row; nulls say nothing."""
        for name, value in row.items():
            known = self.found.setdefault(name, "")
            if value is not None and known != "string":
                self.samples.setdefault(name, value)
                self.found[name] = wider(known, self._type(value))

    def columns(self) -> dict[str, str]:
        """Return each column's type; one of nulls alone is a string."""
        return {name: kind or "string" for name, kind in self.found.items()}

    def _type(self, value: Any) -> str:
        if isinstance(value, bool):
            return "bool"
        if isinstance(value, int):
            return "int" if -(2**63) <= value < 2**63 else "string"
        if isinstance(value, Decimal) and value.is_finite() and value == int(value):
            return self._type(int(value))
        if isinstance(value, (float, Decimal)):
            return "float"
        return _cell_type(value) if self._text_cells and isinstance(value, str) else "string"


def _cell_type(cell: str) -> str:
    if INTEGER.fullmatch(cell):
        return "int" if -(2**63) <= int(cell) < 2**63 else "string"
    if NUMBER.fullmatch(cell):
        return "float" if math.isfinite(float(cell)) else "string"
    return "bool" if cell in BOOLEANS else "string"


def wider(a: str, b: str) -> str:
    """Return the narrowest type that holds values of both; `a` may be "", which is none yet."""
    if not a or a == b:
        return b
    return "float" if {a, b} == {"int", "float"} else "string"


def convert(value: Any, kind: str) -> Any:
    """Return a value as its column's type; a float that is not finite becomes null."""
    if value is None:
        return None
    if kind == "string":
        return as_text(value)
    if kind == "bool":
        return value if isinstance(value, bool) else value.lower() == "true"
    if kind == "int":
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def as_text(value: Any) -> str:
    """Return a value as a string: nested ones as JSON, bytes as base64."""
    if isinstance(value, str):
        return value
    plain = _plain(value)
    return plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False, allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, bytes):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value if value is None or isinstance(value, (str, bool, int, float)) else str(value)
