"""The acts of daily life: list, inspect, verify, label and delete."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from api import doctor
from api.acts.held import Held
from embedder.encoder import Encoder, catalogue
from embedder.errors import PermafrostError, Refused, SpaceMismatch, UnknownName, UsageError
from embedder.space import Space
from heads import kept, saved
from index import commit, filters, inspect, ledger, resample, schema, standing, tuned, vacuum
from index.readers import reading
from index.store import Collection
from index.view import matching_keys


class Keeping(Held):
    """What a store is made of, and its care."""

    def ls(self) -> dict[str, Any]:
        """Return every collection with its items, Spaces and heads."""
        store = self.store()
        rows = []
        for name in store.names():
            collection = store.collection(name)
            spaces = [
                {"fingerprint": s.fingerprint, "encoder": s.encoder, "dim": s.dim} for s in collection.spaces().values()
            ]
            rows.append(
                {"name": name, "items": collection.count(), "spaces": spaces, "heads": saved.list_heads(collection)}
            )
        return {"store": str(store.path), "collections": rows}

    def catalogue(self, pattern: str = "") -> list[str]:
        """Return the names of encoders that contain `pattern`: those tuned in the store, if there is one, first."""
        here = tuned.names(Path(self.settings.store).expanduser().resolve())
        return [name for name in here if pattern.lower() in name.lower()] + catalogue(pattern)

    def columns(self, name: str) -> dict[str, str]:
        """Return the names and types of a collection's own columns."""
        return {
            f.name: schema.type_name(f.type)
            for f in self.collection(name).items.schema
            if f.name not in schema.RESERVED
        }

    def doctor(self, *, mend: bool = False) -> dict[str, Any]:
        """Check the installation, the machine and the store: `ok checks:[{name ok detail do}] mended`."""
        return doctor.examine(self.settings.store, mend=mend)

    def info(self, name: str) -> dict[str, Any]:
        """Return the whole truth about one collection."""
        collection = self.collection(name)
        with reading(collection):
            facts = {**inspect.describe(collection), **standing.standing(collection)}
            more = standing.spaces(collection)
        spaces = [{**space, **more[space["fingerprint"]]} for space in facts["spaces"]]
        heads = [
            {**head, "stale": kept.reason(collection, f"{head['head']}@{head['version']}")}
            for head in saved.list_heads(collection)
        ]
        return {**facts, "spaces": spaces, "heads": heads, "recall": self._recall_of(name)}

    def recall(self) -> dict[str, Any]:
        """Return the live recall of indexes: `share`, the part of queries that is replayed, and `figures`."""
        return {"share": self.sampler.share, "figures": self.sampler.figures()}

    def _recall_of(self, name: str) -> list[dict[str, Any]]:
        return [figure for figure in self.sampler.figures() if figure["collection"] == name]

    def verify(self, name: str, *, mend: bool = False, sample: int = 32, seed: int = 0) -> dict[str, Any]:
        """Check every row and file, and embed `sample` items of each Space again, drawn by `seed`.

        Returns:
            `ok checked problems`, `reembedded: [{space encoder compared lowest skipped why}]`, `mended`, the number of
            damaged rows removed, and `repaired`, what became of lost or damaged manifests.
        """
        collection = self.store().collection(name, check=False)
        repaired = ledger.repair(collection) if mend and ledger.faults(collection) else []
        with reading(collection):
            verdict = inspect.verify(collection)
        for reference, what in saved.damaged(collection):
            verdict.report(what, f"heads/{reference}", "train it again: permafrost train")
        for folder, what in tuned.damaged(collection):
            verdict.report(what, f"tuned/{folder}", "bring it back from a backup, or tune again: permafrost finetune")
        # what cannot be read was reported above, and has nothing to compare
        spaces = [] if any(p.row is None for p in verdict.problems) or not sample else collection.spaces().values()
        again = [self._compare_again(collection, space, sample, seed, verdict) for space in spaces]
        mended = inspect.mend(collection, verdict) if mend else 0
        return {"collection": name, **verdict.as_json(), "reembedded": again, "mended": mended, "repaired": repaired}

    def _compare_again(
        self, collection: Collection, space: Space, sample: int, seed: int, verdict: inspect.Verdict
    ) -> dict[str, Any]:
        facts = {"space": space.fingerprint, "encoder": space.encoder}
        try:
            encoder = self._encoder_here(collection, space)
        except SpaceMismatch as error:
            verdict.report(error.what, f"Space {space.short}", error.hint or "install what it was made with")
            return {**facts, "compared": 0, "lowest": None, "skipped": {}, "why": error.what}
        except PermafrostError as error:
            return {**facts, "compared": 0, "lowest": None, "skipped": {}, "why": error.what}
        damaged = {p.id for p in verdict.problems}
        rows = [row for row in resample.draw(collection, space, sample, seed) if row["id"] not in damaged]
        found = resample.resample(collection, space, encoder, rows, verdict)
        return {
            **facts, "compared": found.compared, "lowest": found.lowest, "skipped": dict(found.skipped), "why": None,
        }  # fmt: skip

    def _encoder_here(self, collection: Collection, space: Space) -> Encoder:
        if space.encoder.startswith("openai:"):
            raise Refused("the encoder is at an endpoint, to which verify sends nothing")
        return self.encoder_of(collection, space)

    def delete(
        self,
        name: str,
        *,
        ids: Sequence[str] = (),
        where: str | Mapping[str, Any] | None = None,
        everything: bool = False,
    ) -> dict[str, Any]:
        """Delete items by id or by filter, or with `everything` the whole collection: `deleted` counts the items."""
        if everything:
            count = self.collection(name).count()
            self.store().delete(name)
            with self._lock:
                self._views = {k: v for k, v in self._views.items() if v.collection.name != name}
            return {"collection": name, "deleted": count, "removed": True}
        collection = self.collection(name)
        chosen = list(ids) or self._ids_where(collection, where)
        deleted = commit.delete_ids(collection, chosen)
        vacuum.tidy_often_written(collection)
        if not deleted:
            raise UnknownName(
                f"no item of {name!r} was deleted: none has this id or passes this filter",
                hint=f"permafrost info {name}",
            )
        return {"collection": name, "deleted": deleted, "removed": False}

    def _ids_where(self, collection: Collection, where: str | Mapping[str, Any] | None) -> list[str]:
        if where is None:
            raise UsageError("say what to delete", hint="--id I, --where FILTER, or --all for the whole collection")
        items = collection.items
        keys = set(matching_keys(items, filters.read(where)).tolist())
        return [row["id"] for row in items.search().select(["id", "key"]).to_arrow().to_pylist() if row["key"] in keys]

    def item(self, name: str, id: str) -> dict[str, Any]:
        """Return one item's columns. Raises `UnknownName` where there is none."""
        from lancedb import col, lit

        from index.rowcache import visible

        rows = self.collection(name).items.search().where(col("id") == lit(id)).to_arrow().to_pylist()
        if not rows:
            raise UnknownName(f"no item has the id {id!r}", where=f"collection {name}")
        return {"collection": name, "id": id, "item": visible(rows[0])}

    def label(self, name: str, id: str, values: Mapping[str, Any], *, by: str) -> dict[str, Any]:
        """Set labels or metadata of one item by hand; no re-run reverts them."""
        collection = self.collection(name)
        commit.edit(collection, id, values, by=by)
        vacuum.tidy_often_written(collection)
        return {"collection": name, "id": id, "set": dict(values)}
