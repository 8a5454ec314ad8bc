from __future__ import annotations

import numpy as np
import pytest
from scipy.special import softmax

from embedder.errors import UsageError
from heads.zero_shot import ZeroShot, prompts


def test_labels_go_into_every_template() -> None:
    assert prompts(["a", " b"], ["{}", "one {}."]) == ["a", "one a.", "b", "one b."]


@pytest.mark.parametrize("labels", [["a"], ["a", "a "], ["a", " "], []])
def test_labels_that_cannot_be_told_apart_are_refused(labels: list[str]) -> None:
    with pytest.raises(UsageError, match="two different labels"):
        prompts(labels, ["{}"])


def test_a_template_says_where_the_label_goes() -> None:
    with pytest.raises(UsageError, match="where the label goes"):
        prompts(["a", "b"], ["a photo"])


def test_probabilities_are_clips() -> None:
    rng = np.random.default_rng(0)
    texts, X = rng.normal(size=(6, 8)).astype(np.float32), rng.normal(size=(5, 8))
    unit = texts / np.linalg.norm(texts, axis=1, keepdims=True)
    W = unit.reshape(3, 2, 8).mean(axis=1)
    W /= np.linalg.norm(W, axis=1, keepdims=True)
    rows = X / np.linalg.norm(X, axis=1, keepdims=True)
    found = ZeroShot.of(["z", "y", "x"], texts)
    assert found.predict_proba(X) == pytest.approx(softmax(100 * rows @ W.T, axis=1), abs=1e-6)
    assert found.classes == ["z", "y", "x"]
