"""One hidden layer: what a linear head cannot say.

ReLU, AdamW with weight decay, on rows centred and scaled as for `linear`. It stops where the NLL of a held-out fifth
(whole groups) is least, and is fitted again to all rows for as many epochs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from threadpoolctl import threadpool_limits

from heads.folds import assign
from heads.kind import Arrays
from heads.kinds._affine import Codes, Doubles, ordered
from heads.stream import Floats

FOLDS, EPOCHS, PATIENCE, BATCH, RATE = 5, 200, 10, 128, 2e-3
LAYERS = ("W1", "b1", "W2", "b2")


class Mlp(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier after scikit-learn's contract.

    Attributes after `fit`: `classes_`, `mean_` (d,), `scale_`, `epochs_`, and `W1_` (d, h), `b1_`, `W2_` (h, C), `b2_`.
    """

    def __init__(self, hidden: int = 256, weight_decay: float = 1e-2, *, seed: int = 0) -> None:
        self.hidden, self.weight_decay, self.seed = hidden, weight_decay, seed

    def fit(self, X: ArrayLike, y: ArrayLike, groups: ArrayLike | None = None) -> Self:
        """Learn from X (n, d) and labels y (n,). Without `groups`, equal rows are one group."""
        rows, labels = validate_data(self, X, y, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        self.classes_, codes = np.unique(labels, return_inverse=True)
        order, units = ordered(rows, codes, groups)
        rows, codes = rows[order].astype(np.float64), codes[order]
        self.mean_ = rows.mean(axis=0)
        self.scale_ = float(np.sqrt(rows.var(axis=0).mean())) or 1.0
        ready = ((rows - self.mean_) / self.scale_).astype(np.float32)
        held = assign(units, codes, FOLDS, self.seed) == 0
        with threadpool_limits(limits=1):
            self.epochs_ = self._epochs(ready, codes, held) if 0 < held.sum() < len(held) else EPOCHS // 10
            weights = _trained(ready, codes, self, self.epochs_)[-1]
        for name, value in zip(LAYERS, weights, strict=True):
            setattr(self, f"{name}_", value)
        return self

    def _epochs(self, X: Floats, y: Codes, held: NDArray[np.bool_]) -> int:
        losses = [_nll(w, X[held], y[held]) for w in _trained(X[~held], y[~held], self, EPOCHS, (X[held], y[held]))]
        return int(np.argmin(losses)) + 1

    def predict_proba(self, X: ArrayLike) -> Doubles:
        """Return (m, C) probabilities, in the order of `classes_`."""
        check_is_fitted(self)
        rows = validate_data(self, X, dtype=np.float64, reset=False)
        return np.asarray(softmax(_logits(self._weights(), (rows - self.mean_) / self.scale_), axis=1))

    def predict(self, X: ArrayLike) -> NDArray[Any]:
        """Return the most probable label of each row, (m,)."""
        check_is_fitted(self)
        return np.asarray(self.classes_[self.predict_proba(X).argmax(axis=1)])

    def _weights(self) -> list[Doubles]:
        return [getattr(self, f"{name}_") for name in LAYERS]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the layers and the mean, float64."""
        return {**dict(zip(LAYERS, self._weights(), strict=True)), "mean": self.mean_}

    def params(self) -> dict[str, Any]:
        """Return the rest as JSON values."""
        facts = {"classes": self.classes_.tolist(), "scale": self.scale_, "epochs": self.epochs_}
        return {**facts, "arguments": self.get_params()}

    @classmethod
    def restore(cls, arrays: Arrays, params: Mapping[str, Any]) -> Self:
        """Make one from what `arrays` and `params` returned."""
        made = cls(**params["arguments"])
        made.classes_, made.scale_ = np.asarray(params["classes"]), float(params["scale"])
        made.epochs_, made.mean_ = int(params["epochs"]), arrays["mean"]
        for name in LAYERS:
            setattr(made, f"{name}_", arrays[name])
        d, h, c = len(made.mean_), made.hidden, len(made.classes_)
        shapes = [w.shape for w in made._weights()]
        if shapes != [(d, h), (h,), (h, c), (c,)]:
            raise ValueError(f"layers {shapes} do not fit {d} dimensions, {h} hidden units and {c} classes")
        made.n_features_in_ = d
        return made


def _logits(weights: list[Doubles], X: Doubles) -> Doubles:
    W1, b1, W2, b2 = weights
    return np.asarray(np.maximum(X @ W1 + b1, 0) @ W2 + b2)


def _nll(weights: list[Doubles], X: Floats, y: Codes) -> float:
    return float(-log_softmax(_logits(weights, X.astype(np.float64)), axis=1)[np.arange(len(y)), y].mean())


def _trained(
    X: Floats, y: Codes, model: Mlp, epochs: int, watched: tuple[Floats, Codes] | None = None
) -> list[list[Doubles]]:
    """Return the layers after each epoch, or the last; with `watched` rows, until their NLL has not fallen for 10."""
    import torch

    chance = torch.Generator().manual_seed(model.seed)
    d, h, c = X.shape[1], model.hidden, len(model.classes_)
    shapes = [(d, h), (h,), (h, c), (c,)]
    layers = [torch.randn(s, generator=chance) * (2 / s[0]) ** 0.5 if len(s) == 2 else torch.zeros(s) for s in shapes]
    layers = [layer.requires_grad_() for layer in layers]
    optimizer = torch.optim.AdamW(layers, lr=RATE, weight_decay=model.weight_decay)
    rows, codes = torch.from_numpy(np.ascontiguousarray(X)), torch.from_numpy(np.asarray(y, dtype=np.int64))
    found: list[list[Doubles]] = []
    best, since = np.inf, 0
    for _ in range(epochs):
        for part in torch.split(torch.randperm(len(rows), generator=chance), BATCH):
            hidden = torch.relu(rows[part] @ layers[0] + layers[1])
            loss = torch.nn.functional.cross_entropy(hidden @ layers[2] + layers[3], codes[part])
            optimizer.zero_grad()
            torch.autograd.backward([loss])
            optimizer.step()
        now = [layer.detach().numpy().astype(np.float64) for layer in layers]
        found = [*found, now] if watched else [now]
        if watched:
            value = _nll(now, *watched)
            best, since = (value, 0) if value < best else (best, since + 1)
            if since >= PATIENCE:
                break
    return found


ESTIMATOR = Mlp
