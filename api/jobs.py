"""Long acts over HTTP: one at a time, with progress, cancelled on request, and told honestly after a restart.

    STORE/.jobs/<id>.json        state, what was asked, progress, result or error; replaced by a rename

A job is `queued`, `running`, `finished`, `failed` or `cancelled`. One that was not ended when the service stopped is
`failed` from the next start on: what it had committed is stored, and the same request goes on where it stopped.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from contextvars import ContextVar
from pathlib import Path
from queue import SimpleQueue
from threading import RLock, Thread
from typing import Any

from api.documents import plain
from api.failure import Failure, explain
from embedder.errors import Damaged, Overloaded, Refused, UnknownName, UsageError
from index import files

log = logging.getLogger("permafrost.jobs")
HOME = ".jobs"
ENDED = frozenset({"finished", "failed", "cancelled"})
ONCE_S = 24 * 3600.0
MOST_QUEUED, MOST_KEPT, WRITE_EVERY_S = 64, 1000, 1.0
CLOSE_WAIT_S = 15.0
STOPPED = Failure(
    "stopped", "the server was stopped before this was done",
    hint="what was committed is stored; ask for the same again and it goes on where it stopped",
)  # fmt: skip


class Cancelled(Exception):
    """Raised within a job's act, from its progress, once somebody asked for the end of it."""


Progress = Callable[[Mapping[str, Any]], None]
Act = Callable[[Progress], Mapping[str, Any]]


once: ContextVar[str | None] = ContextVar("once", default=None)
"""What the caller names a request by, so that it is not begun twice: a hash of the caller and an Idempotency-Key."""


class Jobs:
    """The jobs of one store. `act` of a job is called with what takes its progress, and may be ended from there."""

    def __init__(self, store: Path, *, count: Callable[[int, int], None] = lambda queued, running: None) -> None:
        self._home, self._count = store / HOME, count
        self._jobs: dict[str, dict[str, Any]] = {}
        self._ending: set[str] = set()
        self._change = RLock()
        self._queue: SimpleQueue[tuple[str, Act] | None] = SimpleQueue()
        self._thread = Thread(target=self._work, name="jobs", daemon=True)
        self._thread.start()
        self._closed = False

    def recover(self) -> int:
        """Read the jobs of earlier processes; those that had not ended are failed from now on. Returns how many."""
        stopped = 0
        for path in sorted(self._home.glob("*.json"))[-MOST_KEPT:]:
            with suppress(Damaged, OSError):
                record = files.read_json(path)
                if record["state"] not in ENDED:
                    record |= {"state": "failed", "error": STOPPED.as_json(), "ended": time.time()}
                    files.write_json(path, record)
                    stopped += 1
                self._jobs.setdefault(record["id"], record)
        return stopped

    def begin(self, kind: str, collection: str, asked: Mapping[str, Any], act: Act) -> dict[str, Any]:
        """Queue a job and return it; under a name of `once`, within 24 hours, the job that was begun by that name.

        Raises:
            Overloaded: too many are waiting.
            UsageError: the name was given to another request.
        """
        request, name = {"kind": kind, "collection": collection, "asked": plain(asked)}, once.get()
        with self._change:
            if (begun := self._begun(name)) is not None:
                if {field: begun[field] for field in request} != request:
                    raise UsageError(
                        f"this Idempotency-Key began another request, job {begun['id']}", hint="use a new key"
                    )
                return _shown(begun)
            waiting = sum(job["state"] == "queued" for job in self._jobs.values())
            if waiting >= MOST_QUEUED or self._closed:
                raise Overloaded(f"{waiting} jobs are waiting already", retry_after=30)
            id = time.strftime("%Y%m%dt%H%M%S-", time.gmtime()) + secrets.token_hex(4)
            job = {
                "id": id, **request, "once": name, "state": "queued",
                "created": time.time(), "started": None, "ended": None, "progress": {}, "result": None, "error": None,
                "revision": 0,
            }  # fmt: skip
            self._jobs[id] = job
            self._write(job)
            self._forget()
        self._queue.put((id, act))
        self._tell()
        return _shown(job)

    def _forget(self) -> None:
        """Let go of the oldest jobs that have ended, in memory and on the disk, where there are too many."""
        ended = sorted(id for id, job in self._jobs.items() if job["state"] in ENDED)
        for id in ended[: max(0, len(self._jobs) - MOST_KEPT)]:
            del self._jobs[id]
            (self._home / f"{id}.json").unlink(missing_ok=True)

    def _begun(self, name: str | None) -> dict[str, Any] | None:
        since = time.time() - ONCE_S
        named = (job for job in self._jobs.values() if name is not None and job.get("once") == name)
        return next((job for job in named if job["created"] > since), None)

    def get(self, id: str) -> dict[str, Any]:
        """Return a job. Raises `UnknownName` where there is none."""
        with self._change:
            if id not in self._jobs:
                raise UnknownName.of("job", id, self._jobs, hint="GET /v1/jobs lists them")
            return _shown(self._jobs[id])

    def listed(self) -> list[dict[str, Any]]:
        """Return all jobs, the newest first."""
        with self._change:
            return [_shown(self._jobs[id]) for id in sorted(self._jobs, reverse=True)]

    def cancel(self, id: str) -> dict[str, Any]:
        """Ask for the end of a job: at once where it waits, else at its next step, with what it committed kept.

        Raises:
            UnknownName: there is none.
            Refused: it has ended already.
        """
        job = self.get(id)
        if job["state"] in ENDED:
            raise Refused(f"job {id} is {job['state']} already", hint="there is nothing to cancel")
        with self._change:
            self._ending.add(id)
            if self._jobs[id]["state"] == "queued":
                self._end(id, "cancelled")
        return self.get(id)

    def close(self) -> None:
        """Stop what runs at its next step; what waits stays on the disk as it is, and is told after a restart.

        An act that has no step for a while is left behind: it ends with the process, and is told as stopped as well.
        """
        with self._change:
            self._closed = True
        self._queue.put(None)
        self._thread.join(CLOSE_WAIT_S)

    def _work(self) -> None:
        while (found := self._queue.get()) is not None:
            self._run(*found)

    def _run(self, id: str, act: Act) -> None:
        with self._change:
            if self._closed or self._jobs[id]["state"] != "queued":
                return
            self._set(id, state="running", started=time.time())
        written = time.monotonic()

        def progress(facts: Mapping[str, Any]) -> None:
            nonlocal written
            if id in self._ending or self._closed:
                raise Cancelled
            durable = time.monotonic() - written > WRITE_EVERY_S
            written = time.monotonic() if durable else written
            with self._change:
                self._set(id, durable=durable, progress=plain(facts))

        try:
            result = plain(act(progress))
        except Cancelled:
            with self._change:
                self._end(id, "cancelled" if id in self._ending else "failed", STOPPED)
        except Exception as error:
            if explain(error).unexpected:
                log.exception("job %s failed", id)
            with self._change:
                self._end(id, "failed", explain(error), getattr(error, "result", None))
        else:
            with self._change:
                self._end(id, "finished", result=result)
        self._tell()

    def _end(self, id: str, state: str, failure: Failure | None = None, result: Any = None) -> None:
        error = failure.as_json() if failure is not None and state == "failed" else None
        self._ending.discard(id)
        self._set(id, state=state, ended=time.time(), error=error, result=plain(result))

    def _set(self, id: str, *, durable: bool = True, **facts: Any) -> None:
        job = self._jobs[id]
        job |= {**facts, "revision": job["revision"] + 1}
        if durable:
            self._write(job)

    def _write(self, job: Mapping[str, Any]) -> None:
        files.write_json(self._home / f"{job['id']}.json", dict(job))

    def _tell(self) -> None:
        states = [job["state"] for job in self.listed()]
        self._count(states.count("queued"), states.count("running"))


def _shown(job: Mapping[str, Any]) -> dict[str, Any]:
    """Return a job as it is told of: without the name that its request was known by."""
    return {name: value for name, value in job.items() if name != "once"}
