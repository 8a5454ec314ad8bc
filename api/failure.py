"""Any exception in the words of the contract: what, where, what to do, and the number or status that goes with it."""

from __future__ import annotations

import errno
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.errors import OutOfResource, PermafrostError

OUR_ROOT = Path(__file__).resolve().parent.parent
FULL_DISK = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_ROOM = ("no space left on device", "disk quota exceeded")
NO_MEMORY = ("out of memory", "cannot allocate memory", "can't allocate memory")
RESUME = "what was committed is stored; the same command goes on where it stopped"
TERMINATED = 143


@dataclass(frozen=True)
class Failure:
    """An error for people and programs. `type` is a stable word; `unexpected` says that nobody raised it on purpose.

    `retry_after` is when to ask again, in whole seconds, where asking again may help.
    """

    type: str
    what: str
    where: str = ""
    hint: str = ""
    exit_code: int = 1
    status: int = 500
    unexpected: bool = False
    retry_after: int | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the body of `{"error": …}` on a command line."""
        return {
            "type": self.type,
            "message": self.what,
            "where": self.where,
            "hint": self.hint,
            "exit_code": self.exit_code,
        }


def explain(error: BaseException) -> Failure:
    """Say what an exception means to the person who asked."""
    if isinstance(error, PermafrostError):
        return Failure(
            error.type,
            error.what,
            error.where,
            error.hint,
            error.exit_code,
            error.status,
            retry_after=getattr(error, "retry_after", None),
        )
    if isinstance(error, KeyboardInterrupt):
        return Failure("interrupted", "interrupted", hint=RESUME, exit_code=130)
    if isinstance(error, SystemExit):
        code = error.code if isinstance(error.code, int) else 1
        return Failure("terminated", "terminated", hint=RESUME, exit_code=code)
    if (resource := _resource(error)) is not None:
        return resource
    if isinstance(error, OSError) and error.strerror:
        return Failure(
            "system_error", error.strerror, str(error.filename or ""), "check that it exists and may be used"
        )
    first_line = (str(error).splitlines() or [""])[0][:200]
    return Failure(
        "internal_error", f"unexpected {type(error).__name__}: {first_line}", where_of(error),
        "this is a defect: run it again with --debug and report the traceback", unexpected=True,
    )  # fmt: skip


def _resource(error: BaseException) -> Failure | None:
    text = str(error).lower()
    full = (isinstance(error, OSError) and error.errno in FULL_DISK) or any(words in text for words in NO_ROOM)
    memory = isinstance(error, MemoryError) or any(words in text for words in NO_MEMORY)
    if not full and not memory:
        return None
    what = "the disk is full" if full else "out of memory"
    hint = "free some space" if full else "give a smaller --batch-size or fewer --workers"
    where = str(getattr(error, "filename", None) or where_of(error))
    return Failure(OutOfResource.type, what, where, f"{hint}; {RESUME}", OutOfResource.exit_code, OutOfResource.status)


def where_of(error: BaseException) -> str:
    """Return the last place of ours that an exception came through, such as `index/build.py:120`."""
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        path = Path(frame.filename)
        if path.is_relative_to(OUR_ROOT) and "site-packages" not in path.relative_to(OUR_ROOT).parts:
            return f"{path.relative_to(OUR_ROOT)}:{frame.lineno}"
    return ""
