"""TF-IDF as a control: terms are counted once, weights and vocabulary come from the rows to train on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.sparse import csr_array, hstack
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import normalize

from heads.folds import Ints, assign

Rows = NDArray[np.intp]
MOST_TERMS = 100_000
GRID = (0.1, 1.0, 10.0, 100.0, 1000.0)
FOLDS, ALL_FOLDS_UP_TO = 5, 2000


@dataclass(frozen=True)
class TermCounts:
    """Counts (n, V) of words and pairs of words, and of runs of 3 to 5 characters inside words; at most V = 100,000
    each, the commonest. Terms of one document alone are left out: no other document could profit from them.
    """

    words: Any
    characters: Any

    @classmethod
    def of(cls, texts: Sequence[str]) -> Self:
        """Count; a text without any word gets an empty row."""
        return cls(_counts(texts, "word", (1, 2)), _counts(texts, "char_wb", (3, 5)))

    def __len__(self) -> int:
        return int(self.words.shape[0])

    def weighted(self, train: Rows, rows: Rows) -> Any:
        """Return (len(rows), 2V) sparse: (1 + ln count)·idf, each half of length 1, the idf from `train` alone."""
        return hstack([_tfidf(half, train, rows) for half in (self.words, self.characters)], format="csr")


def _counts(texts: Sequence[str], analyzer: str, ngrams: tuple[int, int]) -> Any:
    least = min(2, len(texts))
    made = CountVectorizer(analyzer=analyzer, ngram_range=ngrams, min_df=least, max_features=MOST_TERMS)
    try:
        return csr_array(made.fit_transform(texts), dtype=np.float32)
    except ValueError:
        # no term occurs in two texts: features that say nothing, not an error
        return csr_array((len(texts), 1), dtype=np.float32)


def _tfidf(counts: Any, train: Rows, rows: Rows) -> Any:
    held = np.bincount(counts[train].indices, minlength=counts.shape[1])
    idf = np.where(held > 0, np.log((1 + len(train)) / (1 + held)) + 1, 0).astype(np.float32)
    chosen = csr_array(counts[rows])
    chosen.data = (1 + np.log(chosen.data)) * idf[chosen.indices]
    return normalize(chosen)


class SparseLinear:
    """Multinomial logistic regression on sparse rows; C by held-out NLL inside the rows given to `fit`.

    As `heads.kinds.linear`: five inner folds up to 2,000 rows, one of five above; the smallest C within one standard
    error of the best. `C_` is that C, and `inner_` minus its held-out NLL. A C that is given is not chosen.
    """

    classes_: NDArray[Any]

    def __init__(self, C: float | None = None, *, seed: int = 0) -> None:
        self.C, self.seed = C, seed

    def fit(self, X: Any, y: Ints, groups: ArrayLike) -> Self:
        """Learn from sparse X (n, V) and codes y (n,); rows of one group are held out together."""
        self.C_, self.inner_ = (self.C, np.nan) if self.C is not None else self._choose(X, y, groups)
        self.model_ = _logistic(self.C_).fit(X, y)
        self.classes_ = self.model_.classes_
        return self

    def _choose(self, X: Any, y: Ints, groups: ArrayLike) -> tuple[float, float]:
        fold = assign(np.asarray(groups).astype(str).tolist(), y, FOLDS, self.seed)
        parts = [k for k in range(FOLDS if len(y) <= ALL_FOLDS_UP_TO else 1) if _can_score(y, fold == k)]
        if not parts:
            return 1.0, np.nan
        losses = [np.concatenate([_losses(X, y, fold == k, C) for k in parts]) for C in GRID]
        best = int(np.argmin([rows.mean() for rows in losses]))
        worse = [rows - losses[best] for rows in losses]
        chosen = next(k for k, rows in enumerate(worse) if rows.mean() <= rows.std() / np.sqrt(len(rows)))
        return GRID[chosen], -float(losses[chosen].mean())

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return (m, C)."""
        return np.asarray(self.model_.predict_proba(X))


def _logistic(C: float) -> LogisticRegression:
    return LogisticRegression(C=C, tol=1e-3, max_iter=1000)


def _can_score(y: Ints, held: NDArray[np.bool_]) -> bool:
    """Say whether the rows that are not held have two classes, and one that is held has one of these."""
    learned = np.unique(y[~held])
    return len(learned) > 1 and bool(np.isin(y[held], learned).any())


def _losses(X: Any, y: Ints, held: NDArray[np.bool_], C: float) -> NDArray[np.float64]:
    model = _logistic(C).fit(X[~held], y[~held])
    rows = np.flatnonzero(held & np.isin(y, model.classes_))
    odds = model.predict_proba(X[rows])[np.arange(len(rows)), np.searchsorted(model.classes_, y[rows])]
    return np.asarray(-np.log(np.maximum(odds, np.finfo(np.float64).eps)))
