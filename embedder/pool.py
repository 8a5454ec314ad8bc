"""Decoding in worker processes, so that no file can take the run down, hang it, or fill its memory."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Lock
from time import perf_counter
from types import TracebackType
from typing import Any, Self, cast

from embedder.decode.process import Limits, WorkerProcess
from embedder.errors import OutOfResource, Undecodable, UsageError
from embedder.reading import MAX_BYTES, too_large
from embedder.records import Decoded, Failure, Item, Pixels, Stage
from embedder.transform import ImageTransform

GRACE_S = 1.0


@dataclass(eq=False)
class _Task:
    """One item under way; `worker` is the one that has it now."""

    item: Item
    transform: bytes
    answer_bytes: int
    worker: WorkerProcess | None = None


_UnderWay = deque[tuple[_Task, Future[Decoded | Failure]]]


class DecodePool:
    """`workers` processes that read, hash, decode and transform pictures. A context manager; safe to share by threads.

    A picture that takes longer than `timeout_s` seconds, or ends its worker, or asks for more than `memory_bytes`,
    costs one item, named with its reason, and never its neighbours: at most one item is with a worker at a time. A
    worker is replaced when it was lost and after `recycle` items. `decoder` names the module that has
    `decode(data, background)`.
    """

    def __init__(
        self, workers: int, *, timeout_s: float = 20.0, memory_bytes: int = 2 << 30, recycle: int = 5000,
        decoder: str = "embedder.decode.image",
    ) -> None:  # fmt: skip
        """Start the workers, without waiting for them.

        Raises:
            UsageError: fewer than one worker.
            OutOfResource: the system refuses to start a process.
        """
        if workers < 1 or recycle < 1 or timeout_s <= 0:
            raise UsageError(f"a pool of {workers} workers, {recycle} items each and {timeout_s} s cannot decode")
        self._limits = Limits(memory_bytes, timeout_s, decoder)
        self._recycle = recycle
        self._lock = Lock()
        self._closed = False
        # one place for each thread; None is a worker yet to be started
        self._idle: list[WorkerProcess | None] = []
        self._live: set[WorkerProcess] = set()
        self._threads = ThreadPoolExecutor(workers, thread_name_prefix="decode")
        try:
            self._idle.extend(self._spawn() for _ in range(workers))
        except OutOfResource:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Kill the workers, which hold nothing that could be lost. A `map` under way elsewhere raises `UsageError`."""
        with self._lock:
            self._closed = True
            for worker in self._live:
                worker.kill()
        self._threads.shutdown(wait=True)
        for worker in self._live:
            worker.close()
        self._live.clear()

    def map(self, items: Iterable[Item], transform: ImageTransform, ahead: int = 64) -> Iterator[Decoded | Failure]:
        """Decode items in order, up to `ahead` of them at once; items are taken only as there is room.

        A bad item is a `Failure` in its place. `Decoded.value` has shape (height, width, 3), uint8. Closing the
        iterator early ends what is under way.

        Raises:
            OutOfResource: workers cannot be started.
            UsageError: the pool is closed.
            Exception: whatever `items` raises, after the results of the items before.
        """
        under_way: _UnderWay = deque()
        broken: Exception | None = None
        source, new = iter(items), _task_maker(transform)
        try:
            while broken is None:
                try:
                    task = new(next(source))
                except StopIteration:
                    break
                except Exception as error:  # noqa: BLE001  raised below, behind the results of the items before
                    broken = error
                    break
                under_way.append((task, self._submit(task)))
                while under_way and (len(under_way) >= ahead or under_way[0][1].done()):
                    yield _first(under_way)
            while under_way:
                yield _first(under_way)
            if broken is not None:
                raise broken
        finally:
            self._abandon(under_way)

    def decode(self, item: Item, transform: ImageTransform) -> Decoded:
        """Decode one item.

        Raises:
            Undecodable: with the stage and reason.
            OutOfResource: a worker cannot be started.
            UsageError: the pool is closed.
        """
        found = self._submit(_task_maker(transform)(item)).result()
        if isinstance(found, Failure):
            raise Undecodable(found.message, stage=found.stage, reason=found.reason, where=item.source or item.id)
        return found

    def _submit(self, task: _Task) -> Future[Decoded | Failure]:
        with self._lock:
            self._require_open()
            return self._threads.submit(self._run, task)

    def _run(self, task: _Task) -> Decoded | Failure:
        started = perf_counter()
        item = task.item
        size = item.size if item.data is None else len(item.data)
        try:
            if item.data is not None and len(item.data) > MAX_BYTES:
                raise too_large(len(item.data))
            with self._worker(task) as worker:
                header, pixels = worker.ask(task.transform, item.path, item.data or b"", task.answer_bytes)
        except Undecodable as error:
            # a worker that `close` killed says nothing about its item
            self._require_open()
            return Failure.of(item, error, size=size, ms=1e3 * (perf_counter() - started))
        if "reason" in header:
            return _failure(item, header, size, 1e3 * (perf_counter() - started))
        return _decoded(item, header, pixels)

    @contextmanager
    def _worker(self, task: _Task) -> Iterator[WorkerProcess]:
        worker = self._idle.pop()
        try:
            if worker is None or not worker.usable or worker.asked >= self._recycle:
                self._retire(worker)
                worker = None
                worker = self._spawn()
            with self._lock:
                task.worker = worker
            worker.start()
            yield worker
        finally:
            with self._lock:
                task.worker = None
            self._idle.append(worker)

    def _spawn(self) -> WorkerProcess:
        with self._lock:
            self._require_open()
            worker = WorkerProcess(self._limits)
            self._live.add(worker)
        return worker

    def _retire(self, worker: WorkerProcess | None) -> None:
        if worker is not None:
            with self._lock:
                self._live.discard(worker)
            worker.close()

    def _abandon(self, under_way: _UnderWay) -> None:
        """Drop what waits, give what runs a second, then kill its workers."""
        running = [(task, future) for task, future in under_way if not future.cancel()]
        wait([future for _, future in running], timeout=GRACE_S)
        with self._lock:
            for task, _ in running:
                if task.worker is not None:
                    task.worker.kill()
        wait([future for _, future in running])

    def _require_open(self) -> None:
        if self._closed:
            raise UsageError("the decode pool is closed")


def _task_maker(transform: ImageTransform) -> Callable[[Item], _Task]:
    record, answer_bytes = json.dumps(transform.as_json()).encode(), transform.height * transform.width * 3
    return lambda item: _Task(item, record, answer_bytes)


def _first(under_way: _UnderWay) -> Decoded | Failure:
    """Wait for the oldest task; it leaves the queue only then, so that an interrupt while waiting does not lose it."""
    found = under_way[0][1].result()
    under_way.popleft()
    return found


def _decoded(item: Item, header: dict[str, Any], pixels: Pixels) -> Decoded:
    mtime_ns = item.mtime_ns if header["mtime_ns"] is None else header["mtime_ns"]
    value = pixels.reshape(header["shape"])
    return Decoded(
        item, header["content_hash"], value, header["size"], mtime_ns,
        read_ms=header["read_ms"], decode_ms=header["decode_ms"],
    )  # fmt: skip


def _failure(item: Item, header: dict[str, Any], size: int | None, ms: float) -> Failure:
    return Failure(
        item.id, item.source, cast(Stage, header["stage"]), header["reason"], header["exception"], header["message"],
        bytes=header.get("size", size), ms=ms,
    )  # fmt: skip
