"""The acts of a store's life: names, tags, restores, clean-up, backups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from api.acts.held import Held
from embedder.errors import PermafrostError, UsageError
from heads import kept
from index import aliases, backup, build, files, restoring, tags, vacuum
from index.purge import Purged, purge


class Lifecycle(Held):
    """What keeps a store in order, and what brings it back."""

    def alias(self, name: str, alias: str | None = None, space: str | None = None, *, delete: bool = False) -> Any:
        """Point an alias at a Space, delete one, or list all: `collection aliases`, and `alias space before`."""
        collection = self.collection(name)
        done: dict[str, Any] = {}
        if alias is None:
            if delete:
                raise UsageError("say which alias to delete", where=f"permafrost alias {name}")
        elif delete:
            done = {"alias": alias, "space": None, "before": aliases.remove(collection, alias)}
        elif space is None:
            raise UsageError(
                f"alias {alias!r} needs the Space that it shall mean", where=f"permafrost alias {name}",
                hint=f"one of: {'; '.join(map(str, collection.spaces().values())) or 'there are none yet'}",
            )  # fmt: skip
        else:
            before = aliases.point(collection, alias, space)
            done = {"alias": alias, "space": aliases.listed(collection)[alias], "before": before}
        return {"collection": name, "aliases": aliases.listed(collection), **done}

    def tag(self, name: str, tag: str | None = None, *, delete: bool = False) -> dict[str, Any]:
        """Name a collection as it is now, delete a tag, or list all: `collection tags`, and `tag` or `deleted`."""
        collection = self.collection(name)
        done: dict[str, Any] = {}
        if tag is None:
            if delete:
                raise UsageError("say which tag to delete", where=f"permafrost tag {name}")
        elif delete:
            done = {"deleted": tags.remove(collection, tag).as_json()}
        else:
            done = {"tag": tags.create(collection, tag).as_json()}
        return {"collection": name, "tags": [one.as_json() for one in tags.listed(collection)], **done}

    def restore(self, name: str, tag: str | None = None, *, version: int | None = None) -> dict[str, Any]:
        """Make a collection what it was: `source before after undo items changed vectors`, and `stale_heads`."""
        collection = self.collection(name)
        if (tag is None) == (version is None):
            known = ", ".join(one.name for one in tags.listed(collection)) or "none"
            raise UsageError(
                "restore needs a tag or --version, one of the two", where=f"permafrost restore {name}",
                hint=f"tags: {known}; the version now is {int(collection.items.version)}",
            )  # fmt: skip
        if tag is not None:
            done = restoring.to_tag(collection, tag)
        else:
            done = restoring.to_version(collection, int(version or 0))
        return {"collection": name, **asdict(done), "stale_heads": kept.stale(collection)}

    def restore_backup(self, name: str, source: str, *, into: str | None = None) -> dict[str, Any]:
        """Put a collection of a backup into the store: `collection at items vectors root`."""
        store = self.store(create=True)
        with files.lock(store.path / f".{into or name}.lock"):
            done = backup.restore(store, Path(source).expanduser(), name, into=into)
        return {**asdict(done), "collection": into or name, "from": source}

    def backup(self, names: Sequence[str], dest: str) -> dict[str, Any]:
        """Back up collections (none: all) into a new folder: `dest collections`, each with its `at items root`."""
        store = self.store()
        chosen = list(names) or store.names()
        if not chosen:
            raise UsageError("the store is empty: there is nothing to back up", where=str(store.path))
        for name in chosen:
            store.collection(name)
        return {"dest": dest, "collections": [asdict(one) for one in backup.write(store, chosen, Path(dest))]}

    def check_backup(self, source: str) -> dict[str, Any]:
        """Compare every file of a backup with its checksum: `dest ok collections`."""
        found = backup.check(Path(source).expanduser())
        return {"dest": source, "ok": True, "collections": [asdict(one) for one in found]}

    def vacuum(self, name: str, *, purge: bool = False, keep_s: float | None = None) -> dict[str, Any]:
        """Sweep, compact and clean; with `purge`, erase what was deleted from disk.

        Returns:
            `collection swept fragments leftovers builds pictures bytes_before bytes_after freed`; of a purge also
            `purged edits failures rebuilt heads`.
        """
        collection = self.collection(name)
        if not purge:
            done = vacuum.vacuum(collection, keep_s=vacuum.KEEP_S if keep_s is None else keep_s)
            return {"collection": name, "purged": False, **done.as_json()}
        if keep_s is not None:
            raise UsageError("--purge keeps no old version; --keep is for a vacuum without it")
        erased = self._purged(name)
        return {
            "collection": name, "purged": True, **erased.swept.as_json(), "edits": erased.edits,
            "failures": erased.failures, "rebuilt": self._rebuilt(name, erased), "heads": kept.erase(collection),
        }  # fmt: skip

    def _purged(self, name: str) -> Purged:
        erased = purge(self.collection(name))
        with self._lock:
            # an opened view maps the matrix of an index that was dropped
            self._views = {k: v for k, v in self._views.items() if v.collection.name != name}
        return erased

    def _rebuilt(self, name: str, erased: Purged) -> list[dict[str, Any]]:
        rows = []
        for space, kind, args in erased.indexes:
            row: dict[str, Any] = {"space": space.fingerprint, "kind": kind, "built": True}
            try:
                build.build(self.collection(name), space, kind=kind, args=args)
            except PermafrostError as error:
                row |= {"built": False, "why": error.what}
            rows.append(row)
        return rows
