"""The act of reporting: missing Spaces are extracted first, then five questions are answered and kept."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from api import compared, report_page
from api.acts.again import Again
from api.acts.embedding import Watch, unwatched
from api.acts.reported import Reported, keep
from api.compared import DRAWS, Wanted
from embedder import kinds
from embedder.checkpoint import SEEN, Checkpoint
from embedder.encoder import Encoder
from embedder.errors import EncoderError, UnknownName, UsageError
from embedder.records import Pixels
from embedder.space import Space
from heads.kind import FOLDER, estimator
from heads.report.steps import Say, Step, silent
from index import tuned
from index.features import require_columns
from index.store import Collection

if TYPE_CHECKING:
    from heads.report.domain import Reference
    from heads.report.gather import Chosen, Gathered
    from heads.report.pilot import TunedSpace

THUMBNAILS = 12
TUNED = f"{tuned.KIND}:"


class Reporting(Again, Reported):
    """From stored vectors and labels to verdicts."""

    def report(
        self, name: str, /, *, label: str, encoders: Sequence[str] = (), reference: str | None = None,
        target: float | None = None, human: float | None = None, delta: float = 0.02,
        layers: bool = True, controls: bool = True, group: str | None = None, where: Any = None,
        min_class_size: int = 5, html: bool = True, seed: int = 0, watch: Watch = unwatched, say: Say = silent,
    ) -> dict[str, Any]:  # fmt: skip
        """Make the transfer report of a collection and keep it under `reports/<n>/`.

        Args:
            encoders: names or Spaces to compare; none means all that the collection has.
            reference: another collection, whose items the domain is compared with.
            target: the accuracy that is wanted; `human`: the share of items that people label differently; `delta`: the
                smallest gain worth paying for. All are shares.
            layers: whether to read earlier layers and another pooling too, where the kind of encoder has them.
            controls: whether to extract untrained twins, and read pixels and words.
            html: whether to make the page too.
            watch: sees extractions as they go; `say` is told of each step before it begins. Either may raise to end it.

        Returns:
            `verdicts encoders tables figures`, and `collection label report path notes seed seconds`.

        Raises:
            UnknownName: no such collection, column, encoder or Space.
            UsageError: the label has fewer than two classes or is a measurement; a share is not between 0 and 1.
        """
        # scikit-learn takes a second to import, and other acts have no use for it
        from heads.report.answers import Asked
        from heads.report.gather import gather
        from heads.report.report import report as answer

        started = time.monotonic()
        asked = Asked(seed=seed, **_shares(delta=delta, target=target, human=human))
        collection, other = self.collection(name), None if reference is None else self.collection(reference)
        # before anything is extracted, which may take hours
        require_columns(collection, [column for column in (label, group) if column is not None])
        notes: list[str] = []
        frozen, best = self._parted(collection, encoders, label, notes, watch)
        chosen = self._chosen(collection, frozen, layers, controls, notes, watch, say)
        found = gather(
            collection, label, chosen, group=group, where=where, min_class_size=min_class_size, raw_controls=controls,
            workers=self.settings.decode_workers, seed=seed, tuned=best, say=say,
        )  # fmt: skip
        found = self._drawn_again(collection, found, seed, notes, watch, say) if controls else found
        found.notes[:0] = notes
        refer = self._referring(other, chosen, seed, watch)
        made = answer(found, replace(asked, default=_default(collection, chosen)), refer, _mlp(seed), say)
        made |= {"collection": name, "label": label, "reference": reference, "seed": seed}
        made["seconds"] = round(time.monotonic() - started, 3)
        page = report_page.html(made, self._thumbnails(collection, found, made)) if html else None
        return {**made, **keep(collection, made, page)}

    def _parted(
        self, collection: Collection, names: Sequence[str], label: str, notes: list[str], watch: Watch
    ) -> tuple[list[str], TunedSpace | None]:
        """Part frozen encoders from tuned ones, which saw labels, and choose one of the latter for this label: the one
        of the least loss on its own validation rows, which says nothing of the items that it is scored on."""
        asked = [self.named(collection, one) for one in names] or [s.encoder for s in collection.spaces().values()]
        frozen = [name for name in asked if not name.startswith(TUNED)]
        found, bases = list[tuple[float, str, Checkpoint]](), list[str]()
        for name in (one for one in asked if one.startswith(TUNED)):
            if not _here(collection, name):
                self.extract(collection, self.encoders([name]), watch)
            try:
                one = tuned.of(collection, collection.space(name))
            except EncoderError as error:
                notes.append(f"{name} was left out: {error.what}.")
                continue
            bases.append(one.base)
            if one.facts["label"] == label:
                found.append((one.facts["metrics"]["validation_loss"], name, one))
            else:
                notes.append(f"{name} was left out: it was tuned on {one.facts['label']!r}.")
        if not found:
            return frozen or bases, None
        from heads.report.pilot import TunedSpace

        _, name, best = min(found, key=lambda line: line[:2])
        return frozen or bases, TunedSpace(collection.space(name), best.rows[SEEN])

    def _chosen(
        self, collection: Collection, names: Sequence[str], layers: bool, controls: bool, notes: list[str],
        watch: Watch, say: Say,
    ) -> list[Chosen]:  # fmt: skip
        """Return the Spaces to compare, those that are missing extracted, each model in one pass of its own."""
        return self._present(collection, compared.wanted(names, layers=layers, controls=controls), notes, watch, say)

    def _drawn_again(
        self, collection: Collection, found: Gathered, seed: int, notes: list[str], watch: Watch, say: Say
    ) -> Gathered:  # fmt: skip
        """Return the same with the best untrained twin drawn three times."""
        from heads.report.gather import drawn_again
        from heads.report.twins import worth_drawing

        of = worth_drawing(found, DRAWS, seed)
        if of is None:
            return found
        have = {control.name for control in found.controls}
        wanted = [Wanted(one, "random", of, derived=True) for one in compared.twins(of, DRAWS) if one not in have]
        return drawn_again(found, collection, self._present(collection, wanted, notes, watch, say))

    def _present(
        self, collection: Collection, every: Sequence[Wanted], notes: list[str], watch: Watch, say: Say
    ) -> list[Chosen]:  # fmt: skip
        """Extract what is missing, and return what is there."""
        passes = _passes([one for one in every if not _here(collection, one.name)])
        for at, passed in enumerate(passes):
            say(Step("embedding", passed[0].name, at, len(passes)))
            ready = self._loaded(passed, notes)
            self.extract(collection, ready, watch)
        present = [one for one in every if _here(collection, one.name)]
        from heads.report.gather import Chosen

        return [Chosen(collection.space(one.name), one.kind, one.of) for one in present]

    def _loaded(self, passed: Sequence[Wanted], notes: list[str]) -> list[Encoder]:
        """Load encoders together; of those that nobody asked for, one that cannot be had is left out, and said."""
        try:
            return self.encoders([one.name for one in passed])
        except (EncoderError, UsageError):
            ready = []
            for one in passed:
                try:
                    ready += self.encoders([one.name])
                except (EncoderError, UsageError) as error:
                    if not one.derived:
                        raise
                    notes.append(f"{one.name} was left out: {error.what}.")
            return ready

    def _referring(
        self, other: Collection | None, chosen: Sequence[Chosen], seed: int, watch: Watch
    ) -> Callable[[str], Reference] | None:
        """Return what gives a reference by the name of an encoder; None where no collection is one."""
        spaces = {one.name: one.space for one in chosen}
        return None if other is None else partial(self._reference, other, spaces, seed, watch)

    def _reference(
        self, other: Collection, spaces: Mapping[str, Space], seed: int, watch: Watch, name: str
    ) -> Reference:
        """Return the reference's vectors in the Space of an encoder, extracted where they are missing."""
        space = spaces[name]
        if not other.has_space(space):
            self.extract(other, self.encoders([name]), watch)
        from heads.report.gather import reference_of

        return reference_of(other, space, seed)

    def _thumbnails(self, collection: Collection, found: Gathered, made: Mapping[str, Any]) -> dict[str, Pixels]:
        """Return small pictures of the strangest and of the doubted items, by id; none of texts."""
        from heads.report import raw

        tables = made["tables"]
        shown = [one["id"] for part in ("strangest", "review") for one in tables.get(part, [])[:THUMBNAILS]]
        if not shown or found.task is None:
            return {}
        at = dict(zip(found.ids, found.task.keys.tolist(), strict=True))
        ids = list(dict.fromkeys(shown))
        rows = raw.rows(collection, np.array([at[one] for one in ids], dtype=np.int64))
        if any(raw.medium(row) != "image" for row in rows):
            return {}
        images, good = raw.pictures(collection, rows, 1)
        return {one: image for one, image, fine in zip(ids, images, good, strict=True) if fine}


def _here(collection: Collection, name: str) -> bool:
    return any(space.encoder == name for space in collection.spaces().values())


def _passes(missing: Sequence[Wanted]) -> list[list[Wanted]]:
    """Put the readings of one model together: they share its pass, and its speed is measured alone. So are the draws of
    an untrained twin, whose speed nobody asks for: items are read and decoded once for all."""
    together: dict[str, list[Wanted]] = {}
    for one in missing:
        model = one.of if one.kind == "layer" and one.of else one.name
        together.setdefault(f"untrained {one.of}" if one.kind == "random" else model, []).append(one)
    return list(together.values())


def _default(collection: Collection, chosen: Sequence[Chosen]) -> str | None:
    """Return the encoder in use, where it is among those compared."""
    with suppress(UnknownName, UsageError):
        space = collection.space()
        return next((one.name for one in chosen if one.space == space), None)
    return None


def _mlp(seed: int) -> Callable[[], Any] | None:
    """Return what makes the non-linear head, where this version has one."""
    if "mlp" not in kinds.names(FOLDER):
        return None
    return partial(estimator("mlp"), seed=seed)


def _shares(**shares: Any) -> dict[str, Any]:
    for name, value in shares.items():
        if value is not None and not 0 <= value <= 1:
            raise UsageError(f"{name} is a share from 0 to 1, not {value}", hint="2 points are 0.02")
    return shares
