"""What was set by hand: read from the table `edits`, where the latest wins."""

from __future__ import annotations

import json
from typing import Any

from index import schema
from index.store import Collection, scan

Edits = dict[tuple[str, str], Any]


def edits(collection: Collection) -> Edits:
    """Return what was set by a person or a head, by (id, column); the latest wins."""
    rows = sorted(
        scan(collection.table(schema.EDITS), ["id", "name", "value", "at"]).to_pylist(), key=lambda r: r["at"]
    )
    return {(row["id"], row["name"]): json.loads(row["value"]) for row in rows}
