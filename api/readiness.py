"""How far the service is with starting, and whether it is ending."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass
class Readiness:
    """`ready` once every collection is open and every named model is loaded; `draining` once it is asked to end."""

    ready: bool = False
    phase: str = "starting"
    percent: int = 0
    draining: bool = False

    def as_json(self) -> dict[str, object]:
        """Return what `/readyz` says."""
        if self.draining:
            return {"ready": False, "phase": "draining: finishing what is under way", "percent": 100}
        return {"ready": self.ready, "phase": self.phase, "percent": self.percent}
