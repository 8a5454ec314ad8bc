"""Memory: how much a process may still take, and a stretch of work in which what is there is not searched for garbage.

The machine sets a limit, and so does the control group that a process may run in.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MEMINFO = Path("/proc/meminfo")
GROUP = Path("/sys/fs/cgroup")

_lock = threading.Lock()
_settled, _kept = 0, False


@contextmanager
def settled() -> Iterator[None]:
    """Within, the garbage collector passes over all that was there before: encoders, their libraries, what is stored.

    Work that makes an object for each item has it go through everything again and again, and takes twice the time.
    What is made within is collected as ever; the last of several that overlap hands the rest back.
    """
    global _settled
    with _lock:
        _settled += 1
        gc.freeze()
    try:
        yield
    finally:
        with _lock:
            _settled -= 1
            if not _settled:
                _hand_back()


def settle() -> None:
    """Collect what is no longer used, and from now on have the collector pass over what is left.

    For a service: going through its libraries and models took 170 ms, in which nothing was answered, again and again.
    """
    global _kept
    with _lock:
        _kept = True
        if not _settled:
            _hand_back()


def _hand_back() -> None:
    gc.unfreeze()
    if _kept:
        gc.collect()
        gc.freeze()


def available(meminfo: Path = MEMINFO, group: Path = GROUP) -> int | None:
    """Return the bytes that can be taken without swapping or being killed; None where the system does not say."""
    found = [bytes for bytes in (_machine(meminfo), _group(group)) if bytes is not None]
    return min(found, default=None)


def _machine(meminfo: Path) -> int | None:
    if not meminfo.exists():
        return None
    for line in meminfo.read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _group(group: Path) -> int | None:
    limit, used = group / "memory.max", group / "memory.current"
    if not limit.exists() or not used.exists() or not limit.read_text().strip().isdigit():
        return None
    # pages of files are counted as used, and given back when memory is short
    cached = 0
    for line in (group / "memory.stat").read_text().splitlines() if (group / "memory.stat").exists() else ():
        if line.startswith(("inactive_file ", "active_file ")):
            cached += int(line.split()[1])
    return max(0, int(limit.read_text()) - int(used.read_text()) + cached)
