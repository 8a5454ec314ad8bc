"""Classes by their names: the text vectors of a joint encoder are the weights (Radford et al. 2021).

w_c = normalise(mean_t normalise(text(t(c)))) over the templates t; probabilities are softmax(scale · cos(x, w_c)). Nothing
is learned from labels. The scale is CLIP's, 100; for an encoder that was trained with another one the order of the
classes holds and the probabilities do not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np

from embedder.errors import UsageError
from embedder.records import FloatMatrix
from heads.kinds._affine import Affine, unit

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
            raise UsageError(f"the template {template[:60]!r} does not say where the label goes", hint="a photo of a {}")
    return [template.replace(BLANK, name) for name in names for template in templates]


class ZeroShot(Affine):
    """A classifier that is not fitted; see `of`."""

    UNIT = True

    @classmethod
    def of(cls, labels: Sequence[str], vectors: FloatMatrix, scale: float = SCALE) -> Self:
        """Make one from the vectors (C · T, d) of `prompts`."""
        each = unit(vectors.astype(np.float64)).reshape(len(labels), -1, vectors.shape[1])
        made = cls()
        made.classes_, made.n_features_in_ = np.asarray([label.strip() for label in labels]), vectors.shape[1]
        made._set(scale * unit(each.mean(axis=1)), np.zeros(len(labels)))
        return made
