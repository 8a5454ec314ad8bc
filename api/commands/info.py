"""`permafrost info C`: the whole truth about one collection."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from api import options, show
from api.calls import Call, Result


def run(call: Call, collection: options.Name) -> Result:
    """Show all about one collection.

    Its items, columns, Spaces, indexes and heads, as they are now.
    """
    with call.service() as service:
        found = service.info(collection)
    return Result(found, text(found))


def text(found: Mapping[str, Any]) -> str:
    """Return the collection as blocks: itself, then each Space."""
    facts = [
        (
            "items",
            f"{show.count(found['items'])} in {show.count(found['fragments'], 'fragment')}, version {found['version']}",
        ),
        ("bytes", show.size(found["bytes"])),
        ("columns", ", ".join(f"{show.safe(name)} {kind}" for name, kind in found["columns"].items())),
        ("edits", show.count(found["edits"]) if found["edits"] else ""),
        ("versions", f"{show.count(sum(found['versions'].values()))} on disk"),
        ("tags", ", ".join(tag["name"] for tag in found["tags"])),
        *(("locked", _lock(lock)) for lock in found["locks"]),
        ("unfinished", ", ".join(found["unfinished"]) and "a restore was killed: permafrost doctor --mend"),
        *((f"root {show.safe(prefix)}".rstrip(), show.safe(root)) for prefix, root in found["roots"].items()),
        *(("alias", f"{name} = {space[:12]}") for name, space in found["aliases"].items() if name != "default"),
        *(
            ("head", f"{h['head']}@{h['versions'][-1]}, {h['kind']} for {show.safe(h['label'])}{_stale(h)}")
            for h in found["heads"]
        ),
    ]
    return "\n".join([show.block(found["collection"], facts), *(_space(space) for space in found["spaces"])])


def _space(space: Mapping[str, Any]) -> str:
    index = space["index"]
    stale = f" ({show.count(space['stale'])} changed since)" if space["stale"] else ""
    counts = f"{show.count(space['vectors'])}, {show.count(space['missing'], 'item')} without{stale}"
    vectors = f"{counts}, {show.count(space['dead'])} dead in {show.count(space['fragments'], 'fragment')}"
    facts = [
        ("encoder", show.safe(space["encoder"])),
        ("vectors", f"{vectors}; {space['dim']}-d, {' and '.join(space['media'])}"),
        ("index", _index(index) if index else "none: every search is exact"),
    ]
    return show.block(f"space {space['fingerprint']}{' (default)' if space['default'] else ''}", facts)


def _stale(head: Mapping[str, Any]) -> str:
    return f"; stale: {show.safe(head['stale'])}" if head["stale"] else ""


def _lock(lock: Mapping[str, Any]) -> str:
    who = f"process {lock['pid']} on {show.safe(lock['host'])}, since {lock['started']}" if lock["pid"] else "unknown"
    return f"{lock['lock']} by {who}"


def _index(index: Mapping[str, Any]) -> str:
    recall = index.get("recall_at_10")
    measured = f", recall@10 {recall:.3f}, p50 {index['p50_ms']:.2f} ms" if recall is not None else ""
    return f"{index['kind']} over {show.count(index['rows'], 'row')}, {show.count(index['fresh'])} fresh{measured}"
