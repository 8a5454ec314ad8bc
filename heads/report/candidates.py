"""What is compared: encoders, layers, and the controls that any encoder must beat."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedder.records import FloatMatrix
from heads.folds import Ints
from heads.report.terms import TermCounts

ENCODERS = frozenset({"encoder", "layer"})
LARGE_PIXELS, SMALL_PIXELS, LARGE_UP_TO = 32, 16, 4000
BINS = 4


@dataclass(frozen=True)
class Candidate:
    """One way to turn the same n items into features.

    Attributes:
        name: an encoder's name or the control's; unique in a report.
        kind: `encoder` or `layer` (what is ranked); `random`, `pixels`, `histogram`, `tfidf`, `majority` (controls).
        X: (n, d) float32, or for `tfidf` the counts of terms, weighted inside each fold.
        items_per_second: measured speed of extraction, None where it was not measured.
        bytes_per_vector: of one stored vector, None where nothing is stored.
        of: the encoder that a layer is of, or the architecture of an untrained twin; None for others.
        head: what reads it, `linear` or `knn`.
    """

    name: str
    kind: str
    X: FloatMatrix | TermCounts
    items_per_second: float | None = None
    bytes_per_vector: int | None = None
    of: str | None = None
    head: str = "linear"

    def __len__(self) -> int:
        return len(self.X)

    @property
    def control(self) -> bool:
        """Whether it is a bar to pass rather than something to choose."""
        return self.kind not in ENCODERS


def majority(n: int) -> Candidate:
    """Return features that say nothing: a probe on them knows the share of each class alone."""
    return Candidate("majority", "majority", np.zeros((n, 1), dtype=np.float32))


def pixels(images: Iterable[NDArray[np.uint8]], n: int) -> Candidate:
    """Return mean colours of a grid: 32 x 32 cells up to 4,000 images, 16 x 16 above, where 3,072 features would take
    longer than all encoders together.

    Args:
        images: n arrays (h, w, 3) uint8, already square or padded as the encoder saw them.
    """
    side = LARGE_PIXELS if n <= LARGE_UP_TO else SMALL_PIXELS
    rows = np.empty((n, side * side * 3), dtype=np.float32)
    for row, image in zip(rows, images, strict=True):
        cells = Image.fromarray(image).resize((side, side), Image.Resampling.BOX)
        row[:] = np.asarray(cells, dtype=np.float32).ravel() / 255
    return Candidate("pixels", "pixels", rows)


def histogram(images: Iterable[NDArray[np.uint8]], n: int) -> Candidate:
    """Return the share of each of 4 x 4 x 4 colours; images as for `pixels`."""
    rows = np.empty((n, BINS**3), dtype=np.float32)
    for row, image in zip(rows, images, strict=True):
        cell = image.reshape(-1, 3) // (256 // BINS)
        code = cell.astype(np.intp) @ np.array([BINS * BINS, BINS, 1])
        row[:] = np.bincount(code, minlength=BINS**3) / len(code)
    return Candidate("histogram", "histogram", rows)


def tfidf(texts: Iterable[str]) -> Candidate:
    """Return counts of words, pairs of words and runs of characters; the weights are learned inside each fold."""
    return Candidate("tfidf", "tfidf", TermCounts.of(list(texts)))


def permuted(y: Ints, units: NDArray[np.intp], fold: Ints, seed: int) -> Ints:
    """Return labels in which units have swapped places within their fold: what is left is chance.

    A unit gets the labels of another, repeated or cut to its size, so rows that belong together stay alike. Swapping
    between folds would unbalance folds that are stratified, and even features that say nothing would look better than
    that.
    """
    rng = np.random.default_rng(seed)
    out = y.copy()
    for k in np.unique(fold):
        rows = np.flatnonzero(fold == k)
        if len(np.unique(units[rows])) == len(rows):
            out[rows] = y[rng.permutation(rows)]
            continue
        order = rows[np.argsort(units[rows], kind="stable")]
        blocks = np.split(order, np.flatnonzero(np.diff(units[order])) + 1)
        for block, other in zip(blocks, rng.permutation(len(blocks)), strict=True):
            out[block] = np.resize(y[blocks[other]], len(block))
    return out


def control_task(types: NDArray[np.intp], y: Ints, seed: int) -> Ints:
    """Return Hewitt and Liang's control labels (EMNLP 2019): every type of item gets one class, drawn as in `y`.

    A probe that learns these as well as the real labels memorises types; its accuracy says little of the features.
    """
    named, codes = np.unique(types, return_inverse=True)
    drawn = np.random.default_rng(seed).choice(y, size=len(named))
    return np.asarray(drawn[codes], dtype=np.intp)
