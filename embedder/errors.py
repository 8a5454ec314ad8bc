"""Every error that Permafrost raises on purpose.

    PermafrostError            exit 1 · HTTP 500
    ├── UsageError             exit 2 · HTTP 422   a value that cannot be used
    │   ├── UnknownName        exit 2 · HTTP 404   a wrong name; the nearest right ones are in the hint
    │   └── NothingToDo        exit 2 · HTTP 422   0 items found, or 0 kept
    ├── Undecodable            exit 1 · HTTP 415   one item that cannot be read, decoded or encoded
    ├── EncoderError           exit 1 · HTTP 503   weights that are missing, damaged or incomplete
    │   └── MissingFact        exit 1 · HTTP 503   the weights do not say how their inputs are made
    ├── Damaged                exit 1 · HTTP 500   something stored fails its checksum
    ├── Refused                exit 3 · HTTP 409   a gate that was not met
    │   └── SpaceMismatch      exit 3 · HTTP 409   vectors of two Spaces; both are named
    ├── TooManyFailures        exit 4 · HTTP 422   done, but more items failed than allowed
    ├── Locked                 exit 5 · HTTP 409   another run holds the lease
    ├── Overloaded             exit 1 · HTTP 429   too much is waiting already; ask again later
    ├── DeadlineExceeded       exit 1 · HTTP 504   not answered within its time
    └── OutOfResource          exit 6 · HTTP 507   disk or memory

Each says three things: what was wrong, where, and what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar


class PermafrostError(Exception):
    """What was wrong, where, and what to do; `str()` gives the three as lines, leaving out the empty ones."""

    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500
    type: ClassVar[str] = "permafrost_error"

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.hint = what, where, hint

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"where: {self.where}")
        if self.hint:
            lines.append(f"do:    {self.hint}")
        return "\n".join(lines)


class UsageError(PermafrostError):
    """A value that cannot be used as given."""

    exit_code, status, type = 2, 422, "invalid_request"


class UnknownName(UsageError):
    """A name that does not exist here; `of` builds one with the nearest right names in its hint.

    `subject` says what sort of thing was named, such as `column`, where `of` built it.
    """

    status, type = 404, "not_found"
    subject = ""

    @classmethod
    def of(cls, what: str, name: str, known: Iterable[str], *, where: str = "", hint: str = "") -> UnknownName:
        near = nearest(name, known)
        tip = f"did you mean {' or '.join(near)}?" if near else hint
        error = cls(f"no {what} is called {name!r}", where=where, hint=tip or hint)
        error.subject = what
        return error


class NothingToDo(UsageError):
    """Nothing was found, or nothing was kept, where something was asked."""

    type = "nothing_to_do"


class Undecodable(PermafrostError):
    """One item that could not become a vector.

    `stage` is one of list, read, decode, encode, write; `reason` is a short stable word for counting.
    """

    status, type = 415, "undecodable"

    def __init__(self, what: str, *, stage: str, reason: str, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint)
        self.stage, self.reason = stage, reason


class EncoderError(PermafrostError):
    """Weights that are missing, damaged, incomplete, or not what their name says."""

    status, type = 503, "encoder_unavailable"


class MissingFact(EncoderError):
    """The weights do not say how their inputs are made; nothing about preprocessing defaults silently."""

    type = "missing_preprocessing"


class Damaged(PermafrostError):
    """Something stored fails its checksum or cannot be read back."""

    type = "damaged"


class Refused(PermafrostError):
    """A gate that was not met; nothing was changed. `result` has what was measured at it, if anything."""

    exit_code, status, type = 3, 409, "refused"

    def __init__(self, what: str, *, where: str = "", hint: str = "", result: Mapping[str, Any] | None = None) -> None:
        super().__init__(what, where=where, hint=hint)
        self.result = dict(result or {})


class SpaceMismatch(Refused):
    """Vectors, an index or a head of one Space were asked to meet those of another."""

    type = "space_mismatch"


class TooManyFailures(PermafrostError):
    """The act is done, but more items failed than `--max-failure-rate` allows."""

    exit_code, status, type = 4, 422, "too_many_failures"

    def __init__(self, what: str, *, where: str = "", hint: str = "", result: Mapping[str, Any] | None = None) -> None:
        super().__init__(what, where=where, hint=hint)
        self.result = dict(result or {})


class Locked(PermafrostError):
    """Another run holds the lease."""

    exit_code, status, type = 5, 409, "locked"


class Overloaded(PermafrostError):
    """Too much is waiting already; nothing was begun. `retry_after` is when to ask again, in whole seconds."""

    status, type = 429, "overloaded"

    def __init__(self, what: str, *, retry_after: int = 1, where: str = "", hint: str = "") -> None:
        super().__init__(what, where=where, hint=hint or f"ask again in {retry_after} s")
        self.retry_after = retry_after


class DeadlineExceeded(PermafrostError):
    """An answer did not come within its time; what had not begun was dropped."""

    status, type = 504, "deadline_exceeded"


class OutOfResource(PermafrostError):
    """Out of disk or memory; what was committed stays."""

    exit_code, status, type = 6, 507, "out_of_resource"


def nearest(name: str, known: Iterable[str], n: int = 3) -> list[str]:
    """Return up to `n` of the `known` names that look like `name`, best first; upper and lower case are the same."""
    spelled = {other.casefold(): other for other in sorted(set(known), reverse=True)}
    low = name.casefold()
    close = difflib.get_close_matches(low, sorted(spelled), n=n, cutoff=0.5)
    return [spelled[other] for other in close or [other for other in sorted(spelled) if low and low in other][:n]]
