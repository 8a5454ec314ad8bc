"""The act of classifying without training: classes by their names, through an encoder that reads texts too."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from api.acts.classifying import Classifying
from api.shapes import Query, input_of, one_of, shown
from embedder.encoder import Encoder
from embedder.errors import UsageError
from heads.kind import reads_texts

TEMPLATES = {"image": "a photo of a {}", "text": "{}"}


class Naming(Classifying):
    """From names of classes to predictions."""

    def classify_by_name(
        self, inputs: Sequence[Query], labels: Sequence[str], *, collection: str | None = None,
        model: str | None = None, templates: Sequence[str] = (), space: str | None = None, top_k: int | None = None,
    ) -> dict[str, Any]:  # fmt: skip
        """Say which of the labels each input is like most.

        Args:
            inputs: each one of `text`, `image`, `vector`; with a collection also `id`.
            labels: names of classes, two or more.
            collection: whose Space is meant; or `model`, the name of an encoder.
            templates: texts with `{}` where a label goes; none means "a photo of a {}" where pictures are read.

        Returns:
            `labels templates space model logit_scale results:[{input id label probabilities prediction_set abstained
            domain}]`; nothing was learned that could fill a set or know a domain, so these are null, and none abstains.
        """
        # scikit-learn takes a second to import, and a search has no use for it
        from heads.zero_shot import SCALE, ZeroShot, prompts

        if not inputs:
            raise UsageError("nothing to classify", hint="give texts, paths of pictures, or --id")
        asked = [one_of(one) for one in inputs]
        with self._naming_encoder(collection, model, space) as encoder:
            used = list(templates) or [TEMPLATES["image" if "image" in encoder.space.media else "text"]]
            named = [("text", prompt) for prompt in prompts(labels, used)]
            head = ZeroShot.of(labels, np.concatenate(self.encoded(encoder, encoder.space, named)))
            if collection is not None:
                rows = self.query_vectors(self.collection(collection), encoder.space, asked)
            elif any(kind == "id" for kind, _ in asked):
                raise UsageError("an id needs a collection", hint="send a text, a picture or a vector")
            else:
                rows = np.concatenate(self.encoded(encoder, encoder.space, asked))
        found = [_ranked(head.classes, p.tolist(), top_k) for p in head.predict_proba(rows)]
        unknown = {
            **dict.fromkeys(("prediction_set", "why", "domain", "value", "interval", "labels")),
            "abstained": False,
        }
        results = [
            {"input": shown(one), "id": one.get("id"), "label": next(iter(p)), "probabilities": p, **unknown}
            for one, p in zip(inputs, found, strict=True)
        ]
        facts = {"labels": head.classes, "templates": used, "logit_scale": SCALE, "model": encoder.space.encoder}
        return {"collection": collection, **facts, "space": encoder.space.fingerprint, "results": results}

    def train(
        self, name: str, /, *, label: str, space: str | None = None, kind: str = "linear",
        templates: Sequence[str] = (), **choices: Any,
    ) -> dict[str, Any]:  # fmt: skip
        """Train a head as `Classifying.train`; a kind that reads texts gets names of classes in `templates`."""
        if reads_texts(kind):
            with self._naming_encoder(name, None, space) as encoder:
                used = list(templates) or [TEMPLATES["image" if "image" in encoder.space.media else "text"]]
            choices |= {"templates": used, "texts": partial(self._texts, name, space)}
        elif templates:
            choices["templates"] = list(templates)
        return super().train(name, label=label, space=space, kind=kind, **choices)

    def inputs_of(self, name: str, values: Sequence[str], space: str | None = None) -> list[Query]:
        """Say what each value is for a Space of a collection: the path of a picture or of a text file, or a text."""
        return [input_of(value, self.collection(name).space(space).media) for value in values]

    def _texts(self, name: str, space: str | None, labels: Sequence[str], templates: Sequence[str]) -> Any:
        from heads.zero_shot import ZeroShot, prompts

        with self._naming_encoder(name, None, space) as encoder:
            named = [("text", prompt) for prompt in prompts(labels, templates)]
            return ZeroShot.of(labels, np.concatenate(self.encoded(encoder, encoder.space, named))).weights

    @contextmanager
    def _naming_encoder(self, collection: str | None, model: str | None, space: str | None) -> Iterator[Encoder]:
        if (collection is None) == (model is None):
            raise UsageError("a collection or a model is needed, and not both", hint="name an encoder")
        opened = self.collection(collection) if collection is not None else None
        chosen = opened.space(space) if opened is not None else None
        with self.using(chosen.encoder if chosen is not None else str(model)) as loaded:
            encoder = self.encoder_of(opened, chosen) if opened is not None and chosen is not None else loaded
            if "text" not in encoder.space.media:
                raise UsageError(
                    f"{encoder.name} reads no texts, so that names of classes mean nothing to it",
                    where=f"Space {encoder.space}",
                    hint="embed with a joint encoder, such as open_clip:… or bundled:conse",
                )
            yield encoder


def _ranked(classes: Sequence[str], probabilities: Sequence[float], top_k: int | None) -> dict[str, float]:
    pairs = sorted(zip(classes, probabilities, strict=True), key=lambda pair: -pair[1])
    return dict(pairs[:top_k])
