"""The act of moving a collection to another encoder: a second Space, a comparison, and an alias that is swapped."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from api.acts.embedding import Embedding, Watch, unwatched
from api.shapes import run_json
from embedder.encoder import Encoder
from embedder.errors import Refused, UnknownName, UsageError
from embedder.records import MEDIA, Medium
from embedder.space import Space
from index.features import features
from index.ingest import Run, ingest_all
from index.itself import Itself
from index.overlap import overlap
from index.selection import IngestOptions
from index.store import NAME, Collection

BEFORE = "-before"
LISTED = 20


class Reembedding(Embedding):
    """From one Space to another, with queries answered all the while."""

    def reembed(
        self,
        name: str,
        encoder: str,
        *,
        alias: str = "default",
        keep: bool = False,
        min_overlap: float | None = None,
        allow_missing: bool = False,
        seed: int = 0,
        options: IngestOptions | None = None,
        watch: Watch = unwatched,
    ) -> dict[str, Any]:
        """Embed every item with another encoder, compare neighbours, and let the alias name the new Space.

        Whoever asks by the alias is answered from the old Space until the swap, which is one rename of a file; the old
        one is then called `ALIAS-before`. Texts are embedded as they are stored, pictures from their files.

        Args:
            keep: compare only, and leave the alias where it is.
            min_overlap: the least overlap@10 that is swapped in, 0 to 1.
            allow_missing: swap also where items have a vector in the old Space alone.

        Returns:
            `collection alias from to swapped why_not overlap missing missing_items runs`: `overlap` has `k mean
            interval queries`, `missing_items` the `id` and `reason` of the first items that were not embedded again.

        Raises:
            Refused: the alias was not swapped; `.result` is what would have been returned.
            UsageError: the alias names this Space already. NothingToDo, Locked: see `index.ingest`.
        """
        _check_alias(alias)
        collection = self.collection(name)
        old, loaded, asked = self._aliased(collection, alias), self.encoder(encoder), options or IngestOptions()
        if old.fingerprint == loaded.space.fingerprint:
            raise UsageError(f"{alias!r} is {old} already", where=f"collection {name}", hint="name another encoder")
        runs = self._embed_again(collection, loaded, asked, watch)
        result: dict[str, Any] = {
            "collection": name, "alias": alias, "from": old.fingerprint, "to": loaded.space.fingerprint,
            "swapped": False, "why_not": "dry run", "overlap": None, "missing": 0, "missing_items": [], "runs": runs,
        }  # fmt: skip
        if asked.dry_run:
            return result
        result |= _compared(collection, old, loaded, runs, seed)
        self._refresh_matrix(collection, loaded.space)
        if keep:
            return {**result, "why_not": "asked to keep the alias"}
        _check_gates(result, min_overlap=min_overlap, allow_missing=allow_missing)
        _swap(collection, alias, old, loaded.space)
        return {**result, "swapped": True}

    def rollback(self, name: str, *, alias: str = "default") -> dict[str, Any]:
        """Let the alias name the Space that it named before the last swap: `collection alias from to swapped`.

        Raises:
            UnknownName: it was never swapped, or that Space is gone.
        """
        _check_alias(alias)
        collection = self.collection(name)
        now = collection.space(alias)
        before = collection.settings["aliases"].get(alias + BEFORE)
        if before not in collection.spaces():
            raise UnknownName(f"the alias {alias!r} was not swapped by reembed", where=f"collection {name}",
                              hint="permafrost info shows the aliases")  # fmt: skip
        collection.change_settings("aliases", alias, before)
        collection.change_settings("aliases", alias + BEFORE, now.fingerprint)
        return {
            "collection": name, "alias": alias, "from": now.fingerprint, "to": before,
            "swapped": before != now.fingerprint,
        }  # fmt: skip

    def _aliased(self, collection: Collection, alias: str) -> Space:
        """Return the Space of an alias; one that is new begins where `default` is."""
        known = collection.settings["aliases"]
        return collection.space(alias if alias in known else None)

    def _embed_again(
        self, collection: Collection, encoder: Encoder, options: IngestOptions, watch: Watch
    ) -> list[dict[str, Any]]:
        """Run once for each medium that is here and that the encoder reads."""

        def progress(encoder: Encoder, run: Run) -> None:
            watch(str(encoder.name), run)

        sources = [Itself(collection, medium) for medium in MEDIA if medium in encoder.space.media]
        sources = [source for source in sources if len(source)]
        if not sources:
            raise UsageError(
                f"{encoder.name} reads {' and '.join(encoder.space.media)}, and {collection.name} holds none of it",
                hint="permafrost encoders lists others",
            )
        return [
            {**run_json(ingest_all(collection, source, [encoder], options, progress)[0], encoder.space),
             "media": source.medium}
            for source in sources
        ]  # fmt: skip


def _swap(collection: Collection, alias: str, old: Space, new: Space) -> None:
    # first where the way back leads, so that there is one at every moment
    collection.change_settings("aliases", alias + BEFORE, old.fingerprint)
    collection.change_settings("aliases", alias, new.fingerprint)


def _compared(
    collection: Collection, old: Space, encoder: Encoder, runs: list[dict[str, Any]], seed: int
) -> dict[str, Any]:
    missing = _missing(collection, old, encoder, runs)
    measured = overlap(collection, old, encoder.space, seed=seed)
    return {
        "why_not": None, "overlap": asdict(measured) if measured else None, "missing": len(missing),
        "missing_items": missing[:LISTED],
    }  # fmt: skip


def _check_alias(alias: str) -> None:
    if not NAME.fullmatch(alias) or alias.endswith(BEFORE):
        raise UsageError(
            f"{alias!r} cannot name an alias here", hint=f"lower-case letters, digits, _ and -; not …{BEFORE}"
        )


def _missing(collection: Collection, old: Space, encoder: Encoder, runs: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Return the items with a vector in the old Space alone, and why each has none in the new one."""
    before = features(collection, old, ["media_type"])
    after = set(features(collection, encoder.space).ids)
    reasons = dict[str, str]()
    for run in runs:
        for line in Path(run["failures"]).read_text(encoding="utf-8").splitlines() if run["failures"] else ():
            failure = json.loads(line)
            reasons[failure["id"]] = f"{failure['reason']}: {failure['message']}"
    media = encoder.space.media
    found = []
    for id, kind in zip(before.ids, before.columns["media_type"], strict=True):
        if id not in after:
            medium: Medium = "text" if kind.startswith("text") else "image"
            other = f"{encoder.name} does not read {medium}s" if medium not in media else "it was not embedded"
            found.append({"id": id, "reason": reasons.get(id, other)})
    return found


def _check_gates(result: Mapping[str, Any], *, min_overlap: float | None, allow_missing: bool) -> None:
    measured, why, hint = result["overlap"], None, ""
    if result["missing"] and not allow_missing:
        why = f"{result['missing']} items have no vector in the new Space"
        hint = "embed their source again with the new encoder, or --allow-missing leaves them out of its answers"
    elif min_overlap is not None and (measured is None or measured["mean"] < min_overlap):
        said = "cannot be measured on fewer than two items" if measured is None else f"is {measured['mean']:.3f}"
        why = f"overlap@{measured['k'] if measured else 10} {said}, {min_overlap:.3f} is needed"
        hint = "look at both: permafrost search C --space FINGERPRINT"
    if why:
        refused = {**result, "why_not": why}
        raise Refused(
            f"the alias {result['alias']!r} was not swapped: {why}",
            where=f"collection {result['collection']}", hint=hint, result=refused,
        )  # fmt: skip
