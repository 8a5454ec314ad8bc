"""What the service counts, for `/metrics`. Every series is there from the start, at zero; no id is ever a label."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
SIZES = (1, 2, 4, 8, 16, 32, 64, 128)
TOKENS = (16, 64, 256, 1024, 4096, 8192, 16384)
STAGES = ("prepare", "forward", "whole", "search")
STATUSES = ("2xx", "3xx", "4xx", "5xx")
REFUSED = {408: "slow_client", 413: "too_large", 429: "overloaded", 504: "deadline_exceeded"}
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE", "OTHER")
STATUS_FILE, PAGE = Path("/proc/self/statm"), 4096
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Meter:
    """The counters of one service."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        own = self.registry
        self._requests = Counter(
            "permafrost_requests", "Requests by method and status.", ["method", "status"], registry=own
        )
        self._seconds = Histogram("permafrost_request_seconds", "Time to the last byte.", buckets=SECONDS, registry=own)
        self._refused = Counter("permafrost_refused", "Requests refused, by reason.", ["reason"], registry=own)
        self._stages = Histogram(
            "permafrost_stage_seconds", "Time in a stage.", ["stage"], buckets=SECONDS, registry=own
        )
        self._queue = Gauge("permafrost_queue_inputs", "Inputs that wait for a model.", ["model"], registry=own)
        self._batch = Histogram("permafrost_batch_inputs", "Inputs in a batch.", buckets=SIZES, registry=own)
        self._tokens = Histogram("permafrost_batch_tokens", "Tokens in a batch.", buckets=TOKENS, registry=own)
        self._cache = Counter("permafrost_query_cache", "Vectors found in the cache, or not.", ["found"], registry=own)
        self._recall = Gauge(
            "permafrost_index_recall_at_10", "Recall measured when built.", ["collection", "space"], registry=own
        )
        self._fresh = Gauge(
            "permafrost_rows_not_indexed", "Rows outside the index.", ["collection", "space"], registry=own
        )
        self._jobs = Gauge("permafrost_jobs", "Jobs by state.", ["state"], registry=own)
        memory = Gauge("permafrost_memory_bytes", "Resident memory of the process.", registry=own)
        memory.set_function(resident)
        self._at_zero()

    def _at_zero(self) -> None:
        for method in METHODS:
            for status in STATUSES:
                self._requests.labels(method, status)
        for reason in REFUSED.values():
            self._refused.labels(reason)
        for stage in STAGES:
            self._stages.labels(stage)
        for found in ("yes", "no"):
            self._cache.labels(found)
        for state in ("queued", "running"):
            self._jobs.labels(state).set(0)
        self._queue.labels("none").set(0)
        self._recall.labels("none", "none").set(0)
        self._fresh.labels("none", "none").set(0)

    def request(self, method: str, status: int, seconds: float) -> None:
        """Count an answer."""
        self._requests.labels(method if method in METHODS else "OTHER", f"{status // 100}xx").inc()
        self._seconds.observe(seconds)
        if status in REFUSED:
            self._refused.labels(REFUSED[status]).inc()

    def stage(self, name: str, seconds: float) -> None:
        """Note the time of a stage."""
        self._stages.labels(name).observe(seconds)

    def queue(self, model: str, inputs: int) -> None:
        """Note how many inputs wait."""
        self._queue.labels(model).set(inputs)

    def batch(self, inputs: int, tokens: int) -> None:
        """Note one batch."""
        self._batch.observe(inputs)
        self._tokens.observe(tokens)

    def cached(self, found: int, missing: int) -> None:
        """Count vectors that the cache had, and had not."""
        self._cache.labels("yes").inc(found)
        self._cache.labels("no").inc(missing)

    def jobs(self, queued: int, running: int) -> None:
        """Note how many jobs there are that have not ended."""
        self._jobs.labels("queued").set(queued)
        self._jobs.labels("running").set(running)

    def indexes(self, found: Iterable[tuple[str, str, float | None, int]]) -> None:
        """Note (collection, Space, recall or None, rows outside the index) of every index; what is gone is dropped."""
        self._recall.clear()
        self._fresh.clear()
        for collection, space, recall, fresh in found:
            self._recall.labels(collection, space).set(recall if recall is not None else 1.0)
            self._fresh.labels(collection, space).set(fresh)

    def text(self) -> bytes:
        """Return all series, as Prometheus reads them."""
        return generate_latest(self.registry)


def resident() -> float:
    """Return the bytes of memory that this process holds; 0 where the system does not say."""
    if not STATUS_FILE.exists():
        return 0.0
    return float(int(STATUS_FILE.read_text().split()[1]) * PAGE)
