"""One-vs-rest logistic regression: a row may have several classes, or none.

All classes go down one path of penalties together: a product with the rows serves every class at once. They share one
C, chosen as `linear` chooses it, by the held-out log loss meaned over classes; at that C the weights are those of
scikit-learn's `OneVsRestClassifier(LogisticRegression(C))`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import expit
from sklearn.utils import Tags
from sklearn.utils.validation import validate_data

from heads.kinds._affine import Codes, Doubles
from heads.kinds.linear import Linear
from heads.stream import Floats, Rows


class Multilabel(Linear):
    """A classifier after scikit-learn's contract for several labels: `y` is (n, C) of 0 and 1.

    `classes_` are the columns 0 … C-1; other attributes are those of `Linear`.
    """

    def __sklearn_tags__(self) -> Tags:
        """Say that `y` has columns."""
        tags = super().__sklearn_tags__()
        tags.target_tags.multi_output, tags.target_tags.single_output = True, False
        tags.classifier_tags.multi_label, tags.classifier_tags.multi_class = True, False
        return tags

    def decision_function(self, X: ArrayLike) -> Doubles:
        """Return logits (m, C)."""
        return self._logits(X)

    def predict_proba(self, X: ArrayLike) -> Doubles:
        """Return how likely each row has each class, (m, C); rows do not sum to one."""
        return np.asarray(expit(self._logits(X)))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return 1 where a class is at least as likely as not, else 0: (m, C)."""
        return np.asarray(self._logits(X) >= 0, dtype=np.int64)

    def _read(self, X: ArrayLike | Rows, y: ArrayLike) -> tuple[Floats | Rows, Codes]:
        if isinstance(X, Rows):
            given = np.asarray(y)
            self.n_features_in_, rows = X.shape[1], X
        else:
            rows, given = validate_data(self, X, y, dtype=[np.float64, np.float32], multi_output=True)
        if given.ndim != 2 or not np.isin(given, (0, 1)).all():
            raise ValueError(f"y must be (n, C) of 0 and 1, a column for each class; its shape is {given.shape}")
        self.classes_ = np.arange(given.shape[1])
        return rows, np.asarray(given, dtype=np.intp)


MULTILABEL = Multilabel
