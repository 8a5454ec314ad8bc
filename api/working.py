"""What a job does: the long acts of the service, with their progress."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

from api.acts.held import Held
from api.jobs import Jobs, Progress
from api.metering import Meter
from embedder import recipe
from embedder.errors import Refused
from heads.report.steps import Step
from index.ingest import Run
from index.selection import IngestOptions

SELECTION = ("where", "prefix", "limit", "prune")


class Working(Held):
    """The long acts of a service. `sources` are the folders that runs may read from, besides a collection itself."""

    meter: Meter
    sources: tuple[str, ...] = ()
    _jobs: Jobs | None = None

    @property
    def jobs(self) -> Jobs:
        """The jobs of this store; those that an earlier process left are told as failed."""
        with self._lock:
            if self._jobs is None:
                self._jobs = Jobs(Path(self.settings.store).expanduser().resolve(), count=self.meter.jobs)
                self._jobs.recover()
            return self._jobs

    def close(self) -> None:
        """End the job that runs at its next step, then what else is open."""
        if self._jobs is not None:
            self._jobs.close()
        super().close()

    def begin(self, kind: str, name: str, asked: Mapping[str, Any]) -> dict[str, Any]:
        """Queue a job and return it.

        Args:
            kind: runs, indexes, heads, reports or finetune.
            asked: what the act takes, by name.

        Raises:
            UnknownName: no such collection.
            Refused: a source outside the folders that may be read.
        """
        acts: dict[str, Callable[[str, Mapping[str, Any], Progress], Mapping[str, Any]]] = {
            "runs": self._job_runs,
            "indexes": self._job_indexes,
            "heads": self._job_heads,
            "reports": self._job_reports,
            "finetune": self._job_finetune,
        }
        act = acts[kind]
        if kind == "runs":
            asked = {**asked, "source": self._readable(name, asked.get("source"))}
        else:
            self.collection(name)
        if kind == "reports" and asked.get("reference") is not None:
            self.collection(asked["reference"])
        return self.jobs.begin(kind, name, asked, lambda progress: act(name, asked, progress))

    def _readable(self, name: str, source: str | None) -> str:
        """Return a source that may be read: the collection itself, or what lies in one of the folders of `sources`."""
        if source is None or source == name:
            self.collection(name)
            return name
        path = os.path.realpath(source)
        roots = [os.path.realpath(root) for root in self.sources]
        if "://" in source or not any(os.path.commonpath([path, root]) == root for root in roots):
            raise Refused(
                "the service may not read from there", where="source",
                hint="start it with --source FOLDER, or PUT the items",
            )  # fmt: skip
        return path

    def _job_runs(self, name: str, asked: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
        given = dict(asked)
        chosen = {key: given.pop(key) for key in SELECTION if given.get(key) is not None}
        options = IngestOptions(workers=self.settings.decode_workers, **chosen)

        def watch(encoder: str, run: Run) -> None:
            done = {"done": run.done + run.pending, "total": run.total, "failed": run.failed}
            progress({"encoder": encoder, "phase": "embedding", **done, "stages": run.stages.as_json()})

        progress({"phase": "opening"})
        embed = cast(Any, self).embed
        result: Mapping[str, Any] = embed(given.pop("source"), name, options=options, watch=watch, **given)
        return result

    def _job_indexes(self, name: str, asked: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
        progress({"phase": "building"})
        say = {"say": lambda message: progress({"phase": "measuring", "what": message})}
        result: Mapping[str, Any] = cast(Any, self).index(name, **asked, **say)
        return result

    def _job_heads(self, name: str, asked: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
        progress({"phase": "training"})
        result: Mapping[str, Any] = cast(Any, self).train(name, **asked)
        return result

    def _job_reports(self, name: str, asked: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
        now: dict[str, Any] = {}

        def say(step: Step) -> None:
            now.clear()
            now.update(step.as_json())
            progress(now)

        def watch(encoder: str, run: Run) -> None:
            items = {"items": run.done + run.pending, "of": run.total, "failed": run.failed}
            progress({**now, "encoder": encoder, **items, "stages": run.stages.as_json()})

        made: dict[str, Any] = cast(Any, self).report(name, **asked, watch=watch, say=say)
        return {**made, "path": f"/v1/collections/{name}/reports/{made['report']}/html"}

    def _job_finetune(self, name: str, asked: Mapping[str, Any], progress: Progress) -> Mapping[str, Any]:
        def watch(encoder: str, run: Run) -> None:
            progress({"encoder": encoder, "phase": "embedding", "done": run.done + run.pending, "total": run.total})

        def step(now: recipe.Step) -> None:
            progress({"phase": "tuning", **asdict(now)})

        progress({"phase": "opening"})
        say = {"say": lambda message: progress({"phase": "preparing", "what": message})}
        result: Mapping[str, Any] = cast(Any, self).finetune(name, **asked, watch=watch, step=step, **say)
        return result
