"""Exact search on a device of torch: the matrix copied there once, a product and a top-k for each block of queries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.records import FloatMatrix

DRIVER = Path("/dev/nvidiactl")
ROOM = 0.5
SCORES = 1 << 28


def device_for(matrix: FloatMatrix) -> str | None:
    """Return the device whose free memory is at least twice the matrix; None where there is none.

    torch takes seconds to import, so that nothing is imported on a machine without a driver.
    """
    if not DRIVER.exists():
        return None
    import torch

    if not torch.cuda.is_available() or matrix.nbytes > ROOM * torch.cuda.mem_get_info()[0]:
        return None
    return "cuda"


class OnDevice:
    """All scores, exactly, on a device; the same answers as `flat.Flat` up to the rounding of float32."""

    def __init__(self, matrix: FloatMatrix, args: Any, device: str) -> None:
        import torch

        self.torch, self.args, self.device = torch, args, device
        self.matrix = torch.from_numpy(np.array(matrix, dtype=np.float32)).to(device)

    def search(
        self, queries: FloatMatrix, k: int, allowed: NDArray[np.bool_] | None = None
    ) -> tuple[NDArray[np.int64], FloatMatrix]:
        """Return the `k` best rows for each query; shapes and padding as in `flat`."""
        torch, n = self.torch, len(self.matrix)
        positions = np.full((len(queries), k), -1, dtype=np.int64)
        scores = np.full((len(queries), k), -np.inf, dtype=np.float32)
        barred = None if allowed is None else torch.from_numpy(~allowed).to(self.device)
        step = max(1, SCORES // max(1, n))
        with torch.inference_mode():
            for start in range(0, len(queries), step):
                part = torch.from_numpy(np.ascontiguousarray(queries[start : start + step])).to(self.device)
                found = part @ self.matrix.T
                if barred is not None:
                    found.masked_fill_(barred, -torch.inf)
                best = found.topk(min(k, n), dim=1)
                positions[start : start + step, : min(k, n)] = best.indices.cpu().numpy()
                scores[start : start + step, : min(k, n)] = best.values.cpu().numpy()
        positions[~np.isfinite(scores)] = -1
        return positions, scores
