"""The acts on heads: train one from stored vectors, and predict with it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from api.acts.held import Held
from api.shapes import Query, input_of, one_of, shown
from embedder.errors import UsageError
from heads import saved
from heads.doubts import doubts
from heads.honest import Wishes
from heads.train import train as train_head
from index.store import Collection

WISHES = frozenset(field.name for field in fields(Wishes))


class Classifying(Held):
    """From stored vectors and labels to predictions."""

    def train(self, name: str, /, *, label: str, space: str | None = None, **choices: Any) -> dict[str, Any]:
        """Train a head from stored vectors: `head version kind space label classes n_train n_test metrics seconds`.

        `choices` are those of `heads.train.train` and the fields of `heads.tasks.Asked`, and `coverage`, `per_class`,
        `max_risk` and `controls`.
        """
        collection = self.collection(name)
        wishes = Wishes(**{field: choices.pop(field) for field in WISHES & set(choices)})
        trained = train_head(collection, label=label, space=collection.space(space), wishes=wishes, **choices)
        return trained.as_json()

    def label_errors(self, name: str, head: str, *, limit: int = 20) -> dict[str, Any]:
        """List the items whose label a head doubts, most suspicious first, beside what they look most like.

        Returns:
            `collection head version label space stale`, and what `heads.doubts.doubts` says.
        """
        if limit < 1:
            raise UsageError(f"the limit is at least 1, not {limit}")
        collection = self.collection(name)
        loaded = saved.load_head(collection, head)
        return {"collection": name, **self._facts(collection, loaded), **doubts(collection, loaded, limit)}

    def classify(
        self, name: str, head: str, inputs: Sequence[Query], *, top_k: int | None = None, space: str | None = None
    ) -> dict[str, Any]:
        """Predict with a head.

        Args:
            head: `NAME[@VERSION]`; the newest version without one.
            inputs: each one of `text`, `image`, `vector`, `id`.
            space: the Space that the vectors are said to be of; a head of another one is refused, and both are named.

        Returns:
            `head version space stale results:[{input id label probabilities prediction_set abstained why domain value
            interval labels}]`, in the order of the inputs. With `top_k` only the likeliest classes have their
            probabilities shown. A head that predicts numbers gives `value` and `interval`, one of several classes an
            item `labels`; these are null for others.
        """
        if not inputs:
            raise UsageError("nothing to classify", hint="give texts, paths of pictures, or --id")
        collection = self.collection(name)
        loaded = saved.load_head(collection, head)
        if space is not None:
            loaded.require_space(collection.space(space))
        rows = self.query_vectors(collection, loaded.space, [one_of(one) for one in inputs])
        if loaded.looks_up:
            loaded.standing_on(self.view(collection, loaded.space))
        predictions = loaded.predict(rows, top_k=top_k)
        results = [
            {"input": shown(one), "id": one.get("id"), **p.as_json()}
            for one, p in zip(inputs, predictions, strict=True)
        ]
        return {"collection": name, **self._facts(collection, loaded), "results": results}

    def _facts(self, collection: Collection, head: saved.Head) -> dict[str, Any]:
        return {
            "head": head.name, "version": head.version, "label": head.label, "space": head.space.fingerprint,
            "stale": self._stale_now(collection, head),
        }  # fmt: skip

    def _stale_now(self, collection: Collection, head: saved.Head) -> str | None:
        """Say whether a head is stale; the items are read again only once the table has another version."""
        stamp = (str(collection.path), head.name, str(head.version), str(head.manifest["sha256"]))
        version = int(collection.items.version)
        with self._lock:
            known = self._stale.get(stamp)
        if known is None or known[0] != version:
            known = (version, head.stale(collection))
            with self._lock:
                self._stale[stamp] = known
        return known[1]

    def inputs(self, name: str, head: str, values: Sequence[str]) -> list[Query]:
        """Say what each value is for a head: the path of a picture or of a text file, or a text."""
        media = saved.load_head(self.collection(name), head).space.media if values else ()
        return [input_of(value, media) for value in values]

    def export_head(self, name: str, head: str, to: str | os.PathLike[str]) -> dict[str, Any]:
        """Write a head as ONNX or arrays, with the keys of `heads.export.export`."""
        loaded = saved.load_head(self.collection(name), head)
        facts = {"head": loaded.name, "version": loaded.version, "space": loaded.space.fingerprint}
        from heads.export import export

        return {"collection": name, **facts, **export(loaded, Path(to))}

    def heads(self, name: str) -> dict[str, Any]:
        """Return the heads of a collection, with every version."""
        return {"collection": name, "heads": saved.list_heads(self.collection(name))}
