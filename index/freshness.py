"""Whether anything was written since the last look, without opening a table: microseconds instead of milliseconds.

A commit of Lance adds a file to the table's `_versions`, whoever makes it, so the folder tells; so do the inode and
time of a JSON file that is replaced by a rename.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

SETTLED_NS = 2_000_000_000


class Folder:
    """The entries of one folder, listed again only when its own time changed or is too young to be trusted."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stamp: tuple[int, int] | None = None
        self._settled = False
        self._token: tuple[Any, ...] | None = None

    def token(self) -> tuple[Any, ...] | None:
        """Return what differs from an earlier answer once an entry came or went; None where there is no folder."""
        try:
            facts = os.stat(self.path)
            stamp = (facts.st_ino, facts.st_mtime_ns)
            if stamp == self._stamp and self._settled:
                return self._token
            # two commits within the clock's grain leave one time: a young folder is listed every time
            settled = time.time_ns() - facts.st_mtime_ns > SETTLED_NS
            token = (facts.st_ino, frozenset(os.listdir(self.path)))
        except (FileNotFoundError, NotADirectoryError):
            return None
        if token != self._token:
            self._token = token
        self._stamp, self._settled = stamp, settled
        return self._token


def versions(table: Path) -> Folder:
    """Return the folder in which every commit of a Lance table adds a file."""
    return Folder(table / "_versions")


def file_token(path: Path) -> tuple[int, int, int] | None:
    """Return inode, time and size of a file that is replaced whole; None where there is none."""
    try:
        facts = os.stat(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return facts.st_ino, facts.st_mtime_ns, facts.st_size
