from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer

from heads.report.candidates import tfidf
from heads.report.probes import linear, neighbours, plan
from heads.report.terms import SparseLinear, TermCounts

TEXTS = [
    "cold soup of tomatoes", "cold winter soup", "a boat on the sea", "the sea is cold cold cold", "a small boat",
    "tomatoes and soup", "winter on the sea", "",
]  # fmt: skip


def test_weights_are_those_of_scikit_learn_fitted_to_the_training_rows() -> None:
    counts = TermCounts.of(TEXTS)
    train, rows = np.arange(5), np.array([5, 6, 7])
    found = counts.weighted(train, rows).toarray()
    vocabularies = {}
    for half, options in (("words", ("word", (1, 2))), ("characters", ("char_wb", (3, 5)))):
        every = TfidfVectorizer(analyzer=options[0], ngram_range=options[1], min_df=2).fit(TEXTS).vocabulary_
        oracle = TfidfVectorizer(
            analyzer=options[0], ngram_range=options[1], sublinear_tf=True, vocabulary=every
        ).fit([TEXTS[i] for i in train])  # fmt: skip
        seen = np.asarray(TfidfVectorizer(analyzer=options[0], ngram_range=options[1], vocabulary=every)
                          .fit_transform([TEXTS[i] for i in train]).sum(axis=0))[0] > 0  # fmt: skip
        raw = oracle.transform([TEXTS[i] for i in rows]).toarray() * seen
        norm = np.linalg.norm(raw, axis=1, keepdims=True)
        vocabularies[half] = raw / np.where(norm > 0, norm, 1)
    assert np.allclose(found, np.concatenate(list(vocabularies.values()), axis=1), atol=1e-5)
    assert (found[2] == 0).all()


def test_texts_that_share_nothing_say_nothing() -> None:
    counts = TermCounts.of(["1", "2", "", "?"])
    assert len(counts) == 4
    assert counts.weighted(np.arange(4), np.arange(4)).nnz == 0


def worded(n: int) -> tuple[list[str], np.ndarray]:
    rng = np.random.default_rng(0)
    y = rng.permutation(np.arange(n) % 2)
    own = (["frost", "ice", "snow"], ["boat", "sea", "wave"])
    return [f"{rng.choice(own[k])} {rng.choice(own[k])} of the {rng.integers(9)}th day" for k in y], y


def test_probes_read_words() -> None:
    texts, y = worded(80)
    on = plan(y, [f"u{i}" for i in range(80)], repeats=1)
    found = linear(tfidf(texts), on)
    assert found.accuracy == 1.0
    assert np.isfinite(found.inner).all()
    assert neighbours(tfidf(texts), on).accuracy == 1.0
    shuffled = plan(np.random.default_rng(1).permutation(y), [f"u{i}" for i in range(80)], repeats=1)
    assert linear(tfidf(texts), shuffled).accuracy < 0.7


def test_noise_is_regularised_most() -> None:
    texts, y = worded(80)
    X = TermCounts.of(texts).weighted(np.arange(80), np.arange(80))
    clear = SparseLinear().fit(X, y, groups=np.arange(80))
    noise = SparseLinear().fit(X, np.random.default_rng(1).permutation(y), groups=np.arange(80))
    assert clear.model_.C > noise.model_.C
    assert clear.inner_ > noise.inner_


@pytest.mark.parametrize("y", [np.arange(10), np.array([0] * 9 + [1]), np.array([0] * 5 + [1, 2, 3, 4, 5])])
def test_few_rows_of_many_classes_leave_nothing_to_choose_by_and_still_fit(y: np.ndarray) -> None:
    counts = TermCounts.of([f"cold soup number {k} of the day" for k in range(10)])
    rows = np.arange(10)
    made = SparseLinear().fit(counts.weighted(rows, rows), y, rows)
    assert made.predict_proba(counts.weighted(rows, rows)).shape == (10, len(np.unique(y)))
    assert made.C_ in (0.1, 1.0, 10.0, 100.0, 1000.0)
