"""The steps of a report, in order: told before each begins; who waits sees how many are left, and may end it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

PHASES = {
    "embedding": "embedding what is missing", "vectors": "reading vectors", "contents": "reading contents",
    "ridge": "quick probes", "probes": "probing", "curves": "learning curves", "heads": "other heads",
    "domain": "comparing domains", "scores": "scores without training",
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """What begins now: one of `PHASES`, what it is about, and where it has parts, how many of them are done."""

    phase: str
    what: str = ""
    done: int = 0
    total: int = 0

    @property
    def number(self) -> int:
        """Its place among all, from 1."""
        return list(PHASES).index(self.phase) + 1

    def as_json(self) -> dict[str, Any]:
        """Return `phase step steps what done total`."""
        facts = {"phase": self.phase, "step": self.number, "steps": len(PHASES)}
        return facts | {"what": self.what, "done": self.done, "total": self.total}

    def __str__(self) -> str:
        part = f" {self.done + 1} of {self.total}" if self.total > 1 else ""
        return f"step {self.number} of {len(PHASES)}: {PHASES[self.phase]}{part}" + (self.what and f", {self.what}")


Say = Callable[[Step], None]


def silent(step: Step) -> None:
    """Tell nobody."""
