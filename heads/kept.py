"""Heads after rows were taken away: which stand on rows that are gone, and which still hold something of them."""

from __future__ import annotations

import shutil
from typing import Any

from embedder.errors import Damaged, PermafrostError
from heads import saved
from heads.saved import Head
from index.store import Collection, scan


def stale(collection: Collection) -> list[dict[str, Any]]:
    """Return the newest version of each head that no longer stands on its rows: `head version why`."""
    found = []
    for row in saved.list_heads(collection):
        why = reason(collection, f"{row['head']}@{row['version']}")
        if why:
            found.append({"head": row["head"], "version": row["version"], "why": why})
    return found


def reason(collection: Collection, reference: str) -> str | None:
    """Say why a head needs attention; None where it does not."""
    try:
        return saved.load_head(collection, reference).stale(collection)
    except Damaged as error:
        return error.what
    except PermafrostError as error:
        # a kind that is not installed here, or a label whose column is gone
        return error.what


def erase(collection: Collection) -> list[dict[str, Any]]:
    """Look at every version of every head after a purge; return those that are not as before: `head version state why`.

    `state` is `removed` where the head names a class that no item has any more, or keeps vectors of its training rows,
    of which some are gone: its file held what was purged. It is `stale` where only its training rows are gone.
    """
    found = []
    for row in saved.list_heads(collection):
        for version in row["versions"]:
            one = _judged(collection, row["head"], version)
            if one is not None:
                found.append({"head": row["head"], "version": version, **one})
    return found


def _judged(collection: Collection, name: str, version: int) -> dict[str, Any] | None:
    try:
        head = saved.load_head(collection, f"{name}@{version}")
        why = head.stale(collection)
    except PermafrostError as error:
        return {"state": "stale", "why": f"it cannot be read: {error.what}"}
    if why is None:
        return None
    holds = _holds(collection, head)
    if holds is None:
        return {"state": "stale", "why": why}
    shutil.rmtree(collection.path / "heads" / name / str(version))
    return {"state": "removed", "why": holds}


def _holds(collection: Collection, head: Head) -> str | None:
    values = scan(collection.items, [head.label])[head.label].to_pylist()
    now = {name for value in values for name in head.named(value) or ()}
    gone = [name for name in head.classes if name not in now]
    if gone:
        return f"it names {len(gone)} label(s) that no item has any more: train again"
    if any(array.ndim == 2 and array.shape == (len(head.row_keys), head.space.dim) for array in _arrays(head)):
        return "it keeps the vectors of its training rows, of which some were purged: train again"
    return None


def _arrays(head: Head) -> list[Any]:
    return list(head.model.arrays().values())
