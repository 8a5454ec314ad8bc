"""The act of fine-tuning: a new encoder, hence a new Space, compared with the frozen one on rows it never saw."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from api.acts.again import Again, medium_of
from api.acts.embedding import Watch, unwatched
from api.shapes import run_json
from embedder import checkpoint, declared, golden, rereading
from embedder.encoder import Encoder, load_encoder
from embedder.errors import EncoderError, Undecodable, UsageError
from embedder.recipe import Recipe, Step
from embedder.records import FloatMatrix, Medium
from embedder.rereading import Reread
from embedder.space import Space
from index import tuned
from index.features import Features, features, require_columns
from index.store import Collection

if TYPE_CHECKING:
    from heads.labels import Task
    from heads.tuning import Split

MOST_GONE = 0.05
BATCH = 32
Say = Callable[[str], None]


@dataclass(frozen=True)
class _Asked:
    label: str
    split: str | None
    group: str | None
    where: Any
    min_class_size: int
    limit: int | None


class Finetuning(Again):
    """From labels and a frozen encoder to a tuned one."""

    def finetune(
        self, name: str, /, *, label: str, encoder: str, split: str | None = None, group: str | None = None,
        where: Any = None, min_class_size: int = 5, limit: int | None = None, out: str | None = None,
        watch: Watch = unwatched, step: Callable[[Step], None] = lambda step: None,
        say: Say = lambda message: None, **recipe: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Tune an encoder on the labelled items of a collection, embed all its items with it, and say what was gained.

        Args:
            encoder: the name of a frozen encoder, or one of its Spaces here; embedded first where it is missing.
            split: a column of train and test; without one a fifth is held out, on the folds that heads are scored on.
            limit: tune on so many labelled items, drawn by the seed.
            out: a new folder for the weights; without one they are kept in the store.
            recipe: see `embedder.recipe.Recipe`: `method`, `epochs`, `lr`, `interpolate`, `minutes`, `seed`, …
            watch, step, say: see what is embedded, every step of the tuning, and what else is done.

        Returns:
            `collection label encoder space method metrics compared_with sentence recipe history best_epoch n_classes
            left_out unreadable path runs seconds`; `compared_with` has `encoder` and `space` of the frozen one.

        Raises:
            UsageError: an encoder that cannot be tuned here, or too few labelled items.
            Undecodable: more than 5 % of the labelled items cannot be read again.
            EncoderError: the tuning diverged.
        """
        started = time.monotonic()
        chosen = _recipe(recipe)
        asked = _Asked(label, split, group, where, min_class_size, limit)
        folder = None if out is None else tuned.check_out(out)
        collection = self.collection(name)
        require_columns(collection, [column for column in (label, split, group) if column is not None])
        frozen, medium = self._frozen(collection, encoder)
        if not _complete(collection, frozen):
            self.extract(collection, [frozen], watch)
        golden.check(frozen, collection.golden(frozen.space))
        made, base = self._finetuned(collection, frozen, medium, asked, chosen, step, say), frozen.space
        full, place = _saved(collection, base, made, folder)
        say(f"embedding {name} with {full}")
        loaded = self.encoder(full)
        runs = self.extract(collection, [loaded], watch)
        return {
            "collection": name, "label": label, "encoder": str(loaded.name), "space": loaded.space.fingerprint,
            "method": chosen.method, "metrics": made["facts"]["metrics"],
            "compared_with": {"encoder": base.encoder, "space": base.fingerprint}, **made["told"],
            "recipe": asdict(chosen), "path": str(place), "runs": [run_json(run, loaded.space) for run in runs],
            "seconds": round(time.monotonic() - started, 3),
        }  # fmt: skip

    def _frozen(self, collection: Collection, selector: str) -> tuple[Encoder, Medium]:
        """Load an encoder that nobody else holds: its weights will change."""
        # torch takes seconds to import, and other acts may have no use for it
        from embedder.finetune import require_module

        name = self.named(collection, selector)
        declared.refuse(name)
        if name.startswith("tuned:"):
            raise UsageError(f"{name} was tuned already", hint="tune its base again, with more labels or epochs")
        encoder = load_encoder(name, device=self.settings.device, endpoint=self.settings.endpoint)
        medium = medium_of(collection, encoder)
        require_module(encoder, medium)
        return encoder, medium

    def _finetuned(
        self, collection: Collection, frozen: Encoder, medium: Medium, asked: _Asked, recipe: Recipe,
        step: Callable[[Step], None], say: Say,
    ) -> dict[str, Any]:  # fmt: skip
        """Tune in memory: `tensors rows facts told`; nothing is written."""
        from embedder.finetune import Labels, finetune
        from heads import labels, tuning

        rows = features(collection, frozen.space, labels.columns(asked.label, asked.split, asked.group), asked.where)
        task = labels.task(
            _limited(rows, asked, recipe.seed), asked.label, asked.split, asked.min_class_size, asked.group
        )
        hashes = _hashes(rows, task)
        say(f"reading {len(task.y)} items again")
        inputs = self._reread(collection, task, frozen, medium)
        readable = np.array([a == b for a, b in zip(inputs.hashes, hashes, strict=True)], dtype=bool)
        _require_readable(inputs, readable)
        parts = tuning.split(task, readable, recipe.seed)
        head = tuning.first_head(task, parts.fit, recipe.seed)
        fit, stop, test = map(len, (parts.fit, parts.validation, parts.test))
        say(f"tuning on {fit} items; {stop} say when to stop, {test} are held out")
        made = finetune(frozen, medium, inputs, Labels(task.y, parts.fit, parts.validation), head, recipe, step)
        vectors = _encoded(frozen, medium, inputs, parts, task)
        metrics, gain = tuning.account(task, parts, vectors, (made.weight, made.bias), recipe.seed)
        metrics["tuning_seconds"] = round(made.seconds, 3)
        metrics["validation_loss"] = made.history[made.best]["validation"]
        return {
            "tensors": {key: tensor.numpy() for key, tensor in made.tensors.items()},
            "rows": {
                checkpoint.SEEN: [hashes[i] for i in parts.seen],
                checkpoint.HELD_OUT: [hashes[i] for i in parts.test],
            },
            "facts": {
                "method": recipe.method, "label": asked.label, "recipe": asdict(recipe), "metrics": metrics,
                "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
            },
            "told": {
                "sentence": tuning.sentence(gain, metrics), "history": made.history, "best_epoch": made.best,
                "n_classes": len(task.classes), "left_out": task.left_out, "unreadable": int((~readable).sum()),
            },
        }  # fmt: skip

    def _reread(self, collection: Collection, task: Task, frozen: Encoder, medium: Medium) -> Reread:
        from heads.report import raw
        from index.itself import item_of

        entries = [item_of(row, collection) for row in raw.rows(collection, task.keys)]
        workers = self.settings.decode_workers
        return rereading.reread(entries, frozen, medium, workers=workers, scratch=collection.path)


def _saved(collection: Collection, base: Space, made: Mapping[str, Any], out: Path | None) -> tuple[str, Path]:
    """Keep what was tuned, whole or not at all, and return its encoder's name and its folder."""
    facts = made["facts"] | {"collection": collection.name}
    title, contents = checkpoint.pack(made["tensors"], base, made["rows"], facts)
    if out is None:
        return f"tuned:{title}", tuned.save(collection.path / tuned.HOME, title, contents)
    place = tuned.save(out.parent, out.name, contents)
    return tuned.name_of(place), place


def _recipe(given: Mapping[str, Any]) -> Recipe:
    known = {name: value for name, value in given.items() if value is not None}
    if unknown := sorted(set(known) - set(Recipe.__dataclass_fields__)):
        raise UsageError(
            f"finetune takes no {unknown[0]!r}", hint=f"it takes {', '.join(sorted(Recipe.__dataclass_fields__))}"
        )
    return Recipe(**known)


def _complete(collection: Collection, encoder: Encoder) -> bool:
    return collection.has_space(encoder.space) and bool(collection.vectors(encoder.space).count_rows())


def _limited(rows: Features, asked: _Asked, seed: int) -> Features:
    """Return so many of the labelled rows, drawn by the seed; all without a limit."""
    from heads.labels import word

    has = np.array([at for at, value in enumerate(rows.columns[asked.label]) if word(value) is not None], dtype=np.intp)
    if asked.limit is None or asked.limit >= len(has):
        return rows
    if asked.limit < 1:
        raise UsageError(f"the limit is at least 1, not {asked.limit}")
    kept = np.sort(np.random.default_rng(seed).choice(has, asked.limit, replace=False))
    columns = {name: [values[i] for i in kept] for name, values in rows.columns.items()}
    return Features(rows.space, rows.keys[kept], [rows.ids[i] for i in kept], rows.X[kept], columns)


def _hashes(rows: Features, task: Task) -> list[str]:
    found = dict(zip(rows.keys.tolist(), rows.columns["content_hash"], strict=True))
    return [str(found[key]) for key in task.keys.tolist()]


def _require_readable(inputs: Reread, readable: NDArray[np.bool_]) -> None:
    gone = int((~readable).sum())
    if gone > MOST_GONE * len(readable):
        first = inputs.failures[0] if inputs.failures else None
        why = "their contents changed since they were embedded" if first is None else f"{first.id}: {first.message}"
        raise Undecodable(
            f"{gone} of {len(readable)} labelled items cannot be read again, and tuning reads them all",
            stage="read", reason="missing" if first is None else first.reason, where=why,
            hint="bring the files back, or embed their source again",
        )  # fmt: skip


def _encoded(encoder: Encoder, medium: Medium, inputs: Reread, parts: Split, task: Task) -> FloatMatrix:
    """Return the vectors of all rows that are seen or held out, as the tuned Space will have them."""
    out: FloatMatrix = np.zeros(task.X.shape, dtype=np.float32)
    rows: Sequence[int] = np.concatenate([parts.seen, parts.test]).tolist()
    for start in range(0, len(rows), BATCH):
        part = list(rows[start : start + BATCH])
        vectors, good = encoder.forward(medium, inputs.take(part))
        if not good.all():
            raise EncoderError(
                "the tuning diverged: the tuned encoder gives vectors that are not finite",
                hint="lower the learning rate: --lr 1e-5",
            )
        out[part] = vectors
    return out
