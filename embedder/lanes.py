"""Forward passes side by side on a processor: two on half of the cores each end sooner than one after the other.

MiniLM encoded 100 texts a second so on 2 cores, and 82 one pass at a time: small operations do not fill two threads,
and a thread that something else interrupts is waited for by all others of its pass.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from pathlib import Path

from threadpoolctl import ThreadpoolController

from embedder.encoder import Encoder

LANES = 2


def count(encoder: Encoder) -> int:
    """Return how many passes of an encoder may go on at once; 1 where its network is not run by torch on a processor.

    No encoder of torch keeps anything between passes, so that two of them do not meet.
    """
    plain = encoder.module is not None and encoder.runtime == "torch" and encoder.device == "cpu"
    return min(LANES, threads()) if plain else 1


def threads() -> int:
    """Return how many threads torch uses in one pass, as it was told or as there are cores."""
    import torch

    return int(torch.get_num_threads())


def use(count: int) -> None:
    """Let the passes of the calling thread use so many threads, and those of no other thread."""
    for tell in _told():
        tell(max(1, count))


@cache
def _told() -> list[Callable[[int], object]]:
    # torch's own function would also tell the threads that begin later
    import torch

    told = [library.set_num_threads for library in ThreadpoolController().select(user_api="openmp").lib_controllers]
    path = Path(torch.__file__).parent / "lib" / "libtorch_cpu.so"
    # MKL has a number of its own where MKL_NUM_THREADS is set
    mkl = getattr(ctypes.CDLL(str(path)), "MKL_Set_Num_Threads_Local", None) if path.exists() else None
    return [*told, mkl] if mkl else told
