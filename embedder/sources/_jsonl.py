"""Rows of jsonl files: one JSON object a line, read strictly; a line that is not one costs one row."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedder.sources._rows import LIMIT, BadRow, Row, require_utf8

MAX_DEPTH = 100


def rows(path: Path) -> Iterator[tuple[int, Row]]:
    """Yield (line number from 1, row); blank lines count but are not rows. Raises `UsageError` for UTF-16."""
    require_utf8(path)
    number = 0
    with path.open("rb") as file:
        while line := file.readline(LIMIT):
            number += 1
            if len(line) == LIMIT and not line.endswith(b"\n"):
                while line and not line.endswith(b"\n"):
                    line = file.readline(LIMIT)
                yield number, BadRow("too_large", f"a line of more than {LIMIT:,} bytes")
            elif line.strip():
                yield number, row(line)


def row(line: bytes) -> Row:
    try:
        row = json.loads(line.decode("utf-8-sig"), parse_constant=_no_constant, object_pairs_hook=_unique)
        _require_plain(row, MAX_DEPTH)
        if b"\\u" in line:
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeDecodeError as error:
        return BadRow("bad_unicode", f"byte {error.start} is not UTF-8")
    except UnicodeEncodeError:
        return BadRow("bad_unicode", "half of a surrogate pair")
    except RecursionError:
        return BadRow("bad_json", f"nested more than {MAX_DEPTH} deep")
    except ValueError as error:
        return BadRow("bad_json", str(error))
    return row if isinstance(row, dict) else BadRow("bad_json", f"the line is not an object but {type(row).__name__}")


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"key {next(name for name in names if names.count(name) > 1)!r} is given twice")
    return row


def _require_plain(value: Any, left: int) -> None:
    """Refuse what is nested deeper than `left`, and a number that has become infinite."""
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        if isinstance(inner, float) and not math.isfinite(inner):
            raise ValueError("a number is too large")
        if isinstance(inner, (dict, list)):
            if left <= 1:
                raise ValueError(f"nested more than {MAX_DEPTH} deep")
            _require_plain(inner, left - 1)
