"""Small collections with labels: texts `word number`, whose vector is the word's direction plus noise of the text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.encoder import Encoder, TextTower
from embedder.naming import EncoderName
from embedder.records import Failure, Item
from embedder.space import Space
from heads.labels import Task, columns, task
from index.features import features
from index.store import Collection
from tests.index.tools import Rows, fresh, planted_vector, run

ANIMALS = ("ape", "bee", "cow")


def worded(strength: float, dim: int = 16, salt: str = "") -> Encoder:
    """An encoder whose vectors tell a text's first word apart, the better the larger `strength` is."""

    def forward(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = [planted_vector(t, dim, salt) + strength * planted_vector(t.split()[0], dim, salt) for t in texts]
        return np.stack(rows)

    tower = TextTower(tokenize=lambda text, role: text, length=len, forward=forward, max_chars=1000)
    identity = {"architecture": "worded", "salt": salt, "strength": strength, "dtype": "float32", "normalize": True}
    space = Space(f"worded:{salt}", dim, ("text",), identity)
    return Encoder(EncoderName("hashing", f"{dim}"), space, "cpu", text=tower)


class Grouped(Rows):
    """Rows whose column `family` is also their group."""

    def __iter__(self) -> Iterator[Item | Failure]:
        for item in super().__iter__():
            yield replace(item, group=item.columns["family"]) if isinstance(item, Item) else item


def labelled(
    folder: Path, texts: Mapping[str, str], labels: Mapping[str, Any], *, kind: str = "string",
    encoder: Encoder | None = None, more: Mapping[str, Mapping[str, Any]] | None = None, source: type[Rows] = Rows,
) -> Collection:  # fmt: skip
    """A collection of texts by id with a column `label`, and string columns `more` by name and id."""
    extra = more or {}
    values = {id: {"label": labels.get(id), **{n: v.get(id) for n, v in extra.items()}} for id in texts}
    types = {"label": kind, **dict.fromkeys(extra, "string")}
    collection = fresh(folder)
    run(collection, source(texts, values, types), encoder or worded(3.0))
    return collection


def animals(folder: Path, per_class: int = 20, **kwargs: Any) -> Collection:
    """Three classes that the planted encoder separates."""
    texts = {f"{word}{i:03d}": f"{word} {i}" for word in ANIMALS for i in range(per_class)}
    return labelled(folder, texts, {id: text.split()[0] for id, text in texts.items()}, **kwargs)


def task_of(collection: Collection, space: Space | None = None, split: str | None = None, least: int = 5) -> Task:
    rows = features(collection, space or collection.space(), columns("label", split))
    return task(rows, "label", split, least)
