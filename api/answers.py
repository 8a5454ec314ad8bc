"""What the Python door gives back: dictionaries with attributes, and hits and predictions that print as tables."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from api import show, told
from index import files


class Record(dict[str, Any]):
    """A result as a dictionary whose keys can be read as attributes too."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError:
            raise AttributeError(f"{name!r} is not among {', '.join(self)}") from None


@dataclass(frozen=True)
class Hit:
    """One neighbour; higher scores are nearer."""

    id: str
    score: float
    item: Mapping[str, Any]


class Hits(Sequence[Hit]):
    """Neighbours, nearest first. `ids` (n,), `scores` (n,) float64 and `items`; prints as a table."""

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = Record(document)
        self._hits = [Hit(hit["id"], hit["score"], hit["item"]) for hit in document["hits"]]

    @property
    def ids(self) -> list[str]:
        """The ids of the hits."""
        return [hit.id for hit in self._hits]

    @property
    def scores(self) -> NDArray[np.float64]:
        """The scores, (n,) float64."""
        return np.array([hit.score for hit in self._hits], dtype=np.float64)

    @property
    def items(self) -> list[Mapping[str, Any]]:
        """The columns of the hits."""
        return [hit.item for hit in self._hits]

    def __getitem__(self, at: Any) -> Any:
        return self._hits[at]

    def __len__(self) -> int:
        return len(self._hits)

    def __iter__(self) -> Iterator[Hit]:
        return iter(self._hits)

    def __repr__(self) -> str:
        rows = [
            [f"{hit.score:.4f}", show.safe(hit.id), show.fields(hit.item, without=("source",))] for hit in self._hits
        ]
        return "\n".join(show.cut(line, 120) for line in show.aligned([["score", "id", ""], *rows]))


class Predictions(Sequence[Record]):
    """What a head says, in the order of the inputs; `labels` has the labels alone.

    Each has `label`, `probabilities`, `prediction_set`, `abstained`, `why`, `domain`, `value` and `interval`.
    """

    def __init__(self, document: Mapping[str, Any]) -> None:
        self.document = Record(document)
        self._results = [Record(one) for one in document["results"]]

    @property
    def labels(self) -> list[str]:
        """The most probable label of each input."""
        return [one["label"] for one in self._results]

    def __getitem__(self, at: Any) -> Any:
        return self._results[at]

    def __len__(self) -> int:
        return len(self._results)

    def __repr__(self) -> str:
        rows = [[show.safe(r["input"]), show.safe(r["label"]), _sure(r), r["why"] or ""] for r in self._results]
        return "\n".join(show.aligned([["input", "label", "p", "abstained"], *rows]))


class Report(Record):
    """A transfer report: `verdicts`, `encoders`, `tables`, `figures`, `notes`; prints as the page of text.

    Args:
        page: returns the bytes of its page, from wherever the store is.
    """

    def __init__(self, document: Mapping[str, Any], page: Callable[[], bytes]) -> None:
        super().__init__(document)
        self._page = page

    def html(self, path: str | os.PathLike[str]) -> None:
        """Write its page, which needs nothing but itself."""
        files.write_bytes(Path(path).expanduser().absolute(), self._page())

    def __repr__(self) -> str:
        return told.text(self)


def _sure(row: Mapping[str, Any]) -> str:
    return f"{row['probabilities'][row['label']]:.3f}" if row["probabilities"] else ""
