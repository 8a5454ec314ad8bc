"""Recall as a live figure: a share of real queries is answered again, by the index and exactly, in the background.

The figure is kept for each collection, Space and range of selectivity, over the last `WINDOW` replays. Where it is
surely under the index's target the answers come from a scan, until the figure recovers or the index is built anew.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from queue import Empty, Full, Queue
from statistics import fmean, stdev
from typing import Any

import numpy as np

from embedder.errors import PermafrostError
from embedder.records import FloatMatrix
from index.derived import Loaded
from index.planner import Subset
from index.search import Answer, Where, search
from index.view import Moment, View

log = logging.getLogger("permafrost.index")
WINDOW, ENOUGH, WAITING = 100, 20, 64
TARGET = 0.95
SURE = 1.645
EDGES = ((0.5, "over 50%"), (0.1, "10-50%"), (0.01, "1-10%"), (0.0, "up to 1%"))


@dataclass
class Figure:
    """The recalls of the last replays on one build of an index; `distrusted` while its answers come from a scan."""

    build: str
    target: float
    recalls: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    replays: int = 0
    distrusted: bool = False

    def add(self, recall: float) -> None:
        """Count one replay, and judge: distrust needs the upper bound (one-sided, 95 %) under the target."""
        self.recalls.append(recall)
        self.replays += 1
        if len(self.recalls) >= ENOUGH:
            late = list(self.recalls)
            mean, spread = fmean(late), stdev(late) / len(late) ** 0.5
            recovered = fmean(late[-ENOUGH:]) >= self.target
            self.distrusted = mean + SURE * spread < self.target and not recovered


@dataclass(frozen=True)
class _Replay:
    view: View
    query: FloatMatrix
    k: int
    where: Where


def bucket(share: float) -> str:
    """Return the range of selectivity that a share of the rows is in."""
    return next((name for edge, name in EDGES if share > edge), EDGES[-1][1])


def target_of(base: Loaded) -> float:
    """Return the recall that an index was built for."""
    return float(base.manifest["measured"].get("wanted", {}).get("recall", TARGET))


class Sampler:
    """Replays queries in one thread of low priority, which starts with the first of them."""

    def __init__(self, share: float, *, seed: int | None = None) -> None:
        self.share = share
        self._chance = np.random.default_rng(seed)
        self._queue: Queue[_Replay | None] = Queue(maxsize=WAITING)
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._figures: dict[tuple[str, str, str], Figure] = {}

    def offer(self, view: View, queries: FloatMatrix, k: int, where: Where, answers: Sequence[Answer]) -> None:
        """Take a share of the queries to replay; where too many wait they are passed over. Never blocks."""
        for i, answer in enumerate(answers):
            replayable = not answer.exact or answer.fallback is not None
            if replayable and self._drawn():
                self._start()
                try:
                    self._queue.put_nowait(_Replay(view, queries[i : i + 1].copy(), k, where))
                except Full:
                    return

    def fallback(self, moment: Moment, subset: Subset, view: View) -> str | None:
        """Return why the index of a view is not to be trusted under this filter; None where it is."""
        if moment.base is None or not self._figures:
            return None
        share = subset.searched / moment.rows if moment.rows else 1.0
        with self._lock:
            figure = self._figures.get((view.collection.name, view.space.fingerprint, bucket(share)))
        if figure is None or not figure.distrusted or figure.build != moment.base.name:
            return None
        return f"recall {fmean(figure.recalls):.3f} over {len(figure.recalls)} replays, {figure.target:g} wanted"

    def figures(self) -> list[dict[str, Any]]:
        """Return `collection space selectivity recall target replays fallback` for each figure there is."""
        with self._lock:
            return [
                {"collection": name, "space": space, "selectivity": range_, "recall": round(fmean(f.recalls), 4),
                 "target": f.target, "replays": f.replays, "fallback": f.distrusted}
                for (name, space, range_), f in sorted(self._figures.items())
            ]  # fmt: skip

    def replay(self, view: View, query: FloatMatrix, k: int, where: Where = None) -> None:
        """Answer one query by the index and exactly, and count which of the exact hits the index found."""
        moment = view.now()
        found = search(view, query, k=k, where=where)[0]
        if found.exact or moment.base is None:
            return
        truth = search(view, query, k=k, where=where, exact=True)[0]
        if not truth.hits:
            return
        # an item as near as the last exact one is as right an answer
        scores = np.array([hit.score for hit in found.hits])
        recall = float((scores >= truth.hits[-1].score - 1e-12).sum()) / len(truth.hits)
        with self._lock:
            key = view.collection.name, view.space.fingerprint, bucket(found.selectivity)
            figure = self._figures.get(key)
            if figure is None or figure.build != moment.base.name:
                figure = self._figures[key] = Figure(moment.base.name, target_of(moment.base))
            figure.add(min(1.0, recall))

    def close(self) -> None:
        """End the thread; what waits is not replayed."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            while True:
                try:
                    self._queue.get_nowait()
                    self._queue.task_done()
                except Empty:
                    break
            self._queue.put(None)
            thread.join()

    def _drawn(self) -> bool:
        with self._lock:
            return bool(self._chance.random() < self.share)

    def _start(self) -> None:
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="recall sampler", daemon=True)
                self._thread.start()

    def _work(self) -> None:
        if sys.platform == "linux":
            # on Linux the priority is of this thread alone
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
        while (one := self._queue.get()) is not None:
            try:
                self.replay(one.view, one.query, one.k, one.where)
            except (PermafrostError, OSError, ValueError, RuntimeError) as error:
                # the collection may be gone by now; a replay answers nobody
                log.warning("a query could not be replayed: %s", error)
            finally:
                self._queue.task_done()
        self._queue.task_done()
