"""A network as a graph: what the runtimes are given."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


class Traced(nn.Module):
    """A network as a module, as exporters want it, that gives float32 whatever its own precision."""

    def __init__(self, network: Callable[..., Tensor]) -> None:
        super().__init__()
        self._network = network

    def forward(self, *inputs: Tensor) -> Tensor:
        """Return (n, dim) float32."""
        return self._network(*inputs).float()


@contextmanager
def tracing() -> Iterator[None]:
    """Trace without gradients and without the fused attention of torch, which no exporter knows.

    What tracing and its deprecation warn of (values that become constants) is found out by comparing vectors.
    """
    fused = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)


def arrays(inputs: tuple[Any, ...]) -> list[Any]:
    """Return tensors as NumPy arrays on the CPU; without a copy where they are there already."""
    return [tensor.detach().cpu().numpy() for tensor in inputs]
