"""The long acts of a store behind a service: each is begun as a job there, and waited for here."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

from api.transport import Transport, raised
from embedder.errors import PermafrostError

FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.05, 2.0
ENDED = ("finished", "failed", "cancelled")


class Awaited:
    """Acts that may take minutes."""

    _http: Transport

    def train(self, name: str, /, **choices: Any) -> dict[str, Any]:
        """Train a head from the vectors that are stored there; arguments as `Classifying.train`."""
        return self._job(name, "heads", choices)

    def index(self, name: str, **targets: Any) -> dict[str, Any]:
        """Build an index there; targets as `Searching.index`."""
        return self._job(name, "indexes", targets)

    def finetune(self, name: str, /, **asked: Any) -> dict[str, Any]:
        """Tune an encoder there; arguments as `Finetuning.finetune`."""
        return self._job(name, "finetune", asked)

    def report(self, name: str, /, *, encoders: Sequence[str] = (), **asked: Any) -> dict[str, Any]:
        """Make the transfer report there; arguments as `Reporting.report`."""
        return self._job(name, "reports", {**asked, "encoders": list(encoders)})

    def _job(self, name: str, kind: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Begin a job, wait for its end, and return its result; an interrupt here asks for its end there.

        Raises:
            PermafrostError: what ended it, in the class that it had there.
        """
        body = {key: value for key, value in asked.items() if value is not None}
        job = self._http.json("POST", "v1", "collections", name, kind, body=body)
        pause = FIRST_PAUSE_S
        try:
            while job["state"] not in ENDED:
                time.sleep(pause)
                pause = min(LONGEST_PAUSE_S, 1.5 * pause)
                job = self._http.json("GET", "v1", "jobs", job["id"])
        except KeyboardInterrupt:
            with suppress(PermafrostError):
                self._http.json("DELETE", "v1", "jobs", job["id"])
            raise
        if job["state"] == "finished":
            return dict(job["result"])
        told = job["error"] or {"type": "cancelled", "message": "the job was cancelled", "where": "", "hint": ""}
        error = raised(told["type"], told["message"], told["where"] or f"job {job['id']}", told["hint"])
        if job["result"] and hasattr(error, "result"):
            error.result = job["result"]
        raise error
