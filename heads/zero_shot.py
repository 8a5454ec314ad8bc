"""Classes by their names: the text vectors of a joint encoder are the weights (Radford et al. 2021).

w_c = normalise(mean_t normalise(text(t(c)))) over the templates t; probabilities are softmax(scale · cos(x, w_c)).
Nothing is learned from labels. The scale is CLIP's, 100; for an encoder that was trained with another one the order of
the classes holds and the probabilities do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from heads.kinds._affine import unit

SCALE = 100.0
BLANK = "{}"


def prompts(labels: Sequence[str], templates: Sequence[str]) -> list[str]:
    """Return every label in every template, label by label; `{}` in a template is where the label goes.

    Raises:
        UsageError: fewer than two labels, one twice or blank, or a template without `{}`.
    """
    names = [label.strip() for label in labels]
    if len(names) < 2 or len(set(names)) < len(names) or not all(names):
        raise UsageError("two different labels are needed at least, none of them blank", hint="--labels cat,dog")
    for template in templates:
        if BLANK not in template:
            raise UsageError(
                f"the template {template[:60]!r} does not say where the label goes", hint="a photo of a {}"
            )
    return [template.replace(BLANK, name) for name in names for template in templates]


@dataclass(frozen=True)
class ZeroShot:
    """Classes in the order they were named, and their unit weights (C, d)."""

    classes: list[str]
    weights: NDArray[np.float64]
    scale: float = SCALE

    @classmethod
    def of(cls, labels: Sequence[str], vectors: FloatMatrix) -> Self:
        """Make one from the vectors (C · T, d) of `prompts`."""
        each = unit(vectors.astype(np.float64)).reshape(len(labels), -1, vectors.shape[1])
        return cls([label.strip() for label in labels], np.asarray(unit(each.mean(axis=1)), dtype=np.float64))

    def predict_proba(self, X: FloatMatrix) -> NDArray[np.float64]:
        """Return (m, C) probabilities of vectors (m, d)."""
        return np.asarray(softmax(self.scale * unit(X.astype(np.float64)) @ self.weights.T, axis=1))
