"""`permafrost vacuum C`: sweep, compact, clean; with `--purge` erase what was deleted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from api import options, show
from api.calls import Call, Result
from api.options import option


def run(
    call: Call,
    collection: options.Name,
    purge: Annotated[bool, option("Erase deleted rows from every file. Waits for readers.", "--purge")] = False,
    keep: Annotated[float | None, option("Keep versions for so many hours. Default: 1.", metavar="HOURS")] = None,
) -> Result:
    """Sweep what was deleted, merge files, drop old versions.

    Runs and searches go on meanwhile. With --purge nothing deleted stays in any file.
    """
    with call.service() as service:
        done = service.vacuum(collection, purge=purge, keep_s=None if keep is None else keep * 3600)
    return Result(done, text(done))


def text(done: Mapping[str, Any]) -> str:
    """Return what was swept and what it freed."""
    facts = [
        ("swept", show.count(done["swept"], "vector") + " of deleted items"),
        ("leftovers", show.count(done["leftovers"]) if done["leftovers"] else ""),
        ("index builds", show.count(done["builds"]) if done["builds"] else ""),
        ("pictures of no item", show.count(done["pictures"]) if done["pictures"] else ""),
        ("fragments", show.count(done["fragments"])),
        ("bytes", f"{show.size(done['bytes_before'])} before, {show.size(done['bytes_after'])} now"),
        ("restore", "one that was killed is finished" if done["finished_restore"] else ""),
        ("kept", ", ".join(done["kept_by_lance_tags"]) and "versions that Lance's own tags name"),
    ]
    lines = [show.block(f"{done['collection']}: {'purged' if done['purged'] else 'vacuumed'}", facts)]
    if done["purged"]:
        lines += [f"  {_rebuilt(one)}" for one in done["rebuilt"]]
        lines += [f"  head {h['head']}@{h['version']} {h['state']}: {show.safe(h['why'])}" for h in done["heads"]]
    return "\n".join(lines)


def _rebuilt(one: Mapping[str, Any]) -> str:
    name = f"index {one['kind']} of {one['space'][:12]}"
    return f"{name} was built again" if one["built"] else f"{name} held deleted rows and is gone: {one['why']}"
