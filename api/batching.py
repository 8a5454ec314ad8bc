"""Concurrent encodes gathered into batches: what waits goes together, and nothing waits for a timer.

A thread or two run the forward passes of a model. Texts are tokenised by another, pictures are decoded in worker
processes, so that the next batch is prepared while one is under way. Each pass takes the oldest text and others of its
length. Requests take turns, so that a large one does not hold up the small ones behind it. What is full says so before
it takes anything.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from threading import Condition, Thread
from typing import Any, cast

import numpy as np

from api.metering import Meter
from api.recent import Name, Recent
from embedder import lanes
from embedder.batches import ITEM_ERRORS, Batches
from embedder.encoder import Encoder, ImageTower, TextTower, means
from embedder.errors import DeadlineExceeded, Overloaded, PermafrostError, Undecodable
from embedder.packing import batches as packed
from embedder.records import Decoded, Failure, FloatMatrix, Item, Medium, Pixels, Role
from embedder.space import Space
from embedder.tuning import PICTURES, TOKENS

MOST_WAITING, MOST_WAITING_BYTES = 4096, 64 << 20
DEADLINE_S = 30.0
TURN, OFFERED = 8, 256
MOST_ROWS, MOST_TOKENS = 128, 8192
MAX_RETRY_S = 30
LATE, SMALLER = "the vectors were not made in time", "ask again, or for fewer at once"

Value = str | bytes


@dataclass(frozen=True)
class Made:
    """`vectors` (n, dim) float32 of `space`, and the `tokens` of the texts, each with those that its model adds."""

    vectors: FloatMatrix
    tokens: int
    space: Space


Decode = Callable[[bytes, ImageTower], Pixels]


@dataclass(eq=False)
class _Piece:
    """One input of `forward`: of which value it is, its cost in tokens, and the hash that names it."""

    at: int
    prepared: Any
    cost: int
    name: str


@dataclass(eq=False)
class _Request:
    """One call of `submit`: `ready` are its prepared pieces, `left` counts those that are not encoded yet."""

    values: Sequence[Value]
    medium: Medium
    role: Role
    until: float
    future: Future[Made]
    size: int
    names: list[Name]
    since: float = field(default_factory=time.perf_counter)
    ready: deque[_Piece] = field(default_factory=deque)
    rows: list[list[FloatMatrix]] = field(default_factory=list)
    tokens: list[int] = field(default_factory=list)
    left: int = 0

    @property
    def over(self) -> bool:
        """Whether nobody waits for this any more."""
        return self.future.done() or time.monotonic() > self.until


class Batcher:
    """The forward passes of one encoder. Safe to share between threads; `close` ends it.

    `decode` turns a picture's bytes into the pixels that a tower asks for.
    """

    def __init__(
        self, encoder: Encoder, *, decode: Decode, recent: Recent, meter: Meter, workers: int = 1,
        most_waiting: int = MOST_WAITING,
    ) -> None:  # fmt: skip
        self.encoder, self._decode, self._recent, self._meter = encoder, decode, recent, meter
        self._most = most_waiting
        self._waiting, self._waiting_bytes = 0, 0
        self._rate = 0.0
        self._turns: deque[_Request] = deque()
        self._change = Condition()
        self._closed = False
        self._lanes, self._cores, self._busy = lanes.count(encoder), lanes.threads() if encoder.module else 1, 0
        # a tokenizer cannot be used by two threads at once
        self._texts = ThreadPoolExecutor(1, thread_name_prefix="tokenise")
        self._pictures = ThreadPoolExecutor(max(1, workers), thread_name_prefix="pictures")
        self._threads = [
            Thread(target=self._work, name=f"encode {encoder.name}", daemon=True) for _ in range(self._lanes)
        ]
        for thread in self._threads:
            thread.start()

    @property
    def waiting(self) -> int:
        """How many values are not encoded yet."""
        return self._waiting

    def close(self) -> None:
        """Refuse what waits, and end the threads after the pass that is under way."""
        with self._change:
            self._closed = True
            left, self._turns = list(self._turns), deque()
            self._change.notify_all()
        for request in left:
            self._fail(request, Overloaded("the model is being unloaded"))
        self._texts.shutdown(wait=False, cancel_futures=True)
        self._pictures.shutdown(wait=False, cancel_futures=True)
        for thread in self._threads:
            thread.join()

    def submit(
        self, values: Sequence[Value], medium: Medium, role: Role, *, deadline_s: float = DEADLINE_S
    ) -> Future[Made]:
        """Encode texts, or pictures' bytes; a text in parts is their mean. A future cancelled drops what has not begun.

        Raises:
            UsageError: a medium that this encoder does not read.
            Overloaded: too much is waiting; nothing was taken.
        """
        self.encoder.tower(medium)
        future: Future[Made] = Future()
        names = [self._name(value, medium, role) for value in values]
        size = sum(len(value) for value in values)
        request = _Request(values, medium, role, time.monotonic() + deadline_s, future, size, names)
        known = [self._recent.get(name) for name in names]
        request.rows = [[] if found is None else [found[0]] for found in known]
        request.tokens = [0 if found is None else found[1] for found in known]
        missing = [at for at, found in enumerate(known) if found is None]
        self._meter.cached(len(values) - len(missing), len(missing))
        if not missing:
            vectors = np.concatenate([row for rows in request.rows for row in rows]).reshape(len(names), -1)
            future.set_result(Made(vectors, sum(request.tokens), self.encoder.space))
            return future
        with self._change:
            self._admit(request, len(missing))
        future.add_done_callback(lambda _: self._leave(request, len(missing)))
        self._prepare(request, missing)
        return future

    def _name(self, value: Value, medium: Medium, role: Role) -> Name:
        raw = value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass")
        return self.encoder.space.fingerprint, medium, role, hashlib.sha256(raw).hexdigest()

    def _admit(self, request: _Request, count: int) -> None:
        full = self._waiting and self._waiting + count > self._most
        if self._closed or full or (self._waiting_bytes and self._waiting_bytes + request.size > MOST_WAITING_BYTES):
            seconds = math.ceil(self._waiting / self._rate) if self._rate else 1
            raise Overloaded(
                f"{self._waiting} inputs are waiting for {self.encoder.name} already",
                retry_after=min(MAX_RETRY_S, max(1, seconds)),
            )
        self._waiting += count
        self._waiting_bytes += request.size
        self._meter.queue(str(self.encoder.name), self._waiting)

    def _leave(self, request: _Request, count: int) -> None:
        with self._change:
            self._waiting -= count
            self._waiting_bytes -= request.size
            self._meter.queue(str(self.encoder.name), self._waiting)

    def _prepare(self, request: _Request, missing: Sequence[int]) -> None:
        if request.medium == "text":
            self._texts.submit(self._guarded, request, partial(self._tokenised, request, missing))
            return
        request.left = len(missing)
        for at in missing:
            self._pictures.submit(self._guarded, request, partial(self._decoded, request, at))

    def _guarded(self, request: _Request, act: Callable[[], Sequence[_Piece]]) -> None:
        """Prepare a part of a request, unless nobody waits for it; what goes wrong is its own answer."""
        try:
            if request.over:
                self._expire(request)
                return
            started = time.perf_counter()
            pieces = act()
            self._meter.stage("prepare", time.perf_counter() - started)
        except (PermafrostError, *ITEM_ERRORS) as error:
            self._fail(request, error)
            return
        if not request.left:
            self._finish(request)
            return
        with self._change:
            idle = not request.ready
            request.ready.extend(pieces)
            if idle:
                self._turns.append(request)
            self._change.notify()

    def _tokenised(self, request: _Request, missing: Sequence[int]) -> list[_Piece]:
        tower = cast(TextTower, self.encoder.tower("text"))
        pieces = []
        for at in missing:
            if request.over:
                raise DeadlineExceeded(LATE, hint=SMALLER)
            for part in self.encoder.pieces(request.values[at]):
                _, prepared = self.encoder.prepare(part, request.role)
                cost = max(1, tower.length(prepared))
                request.tokens[at] += cost
                name = hashlib.sha256(f"{request.role}\0{part}".encode()).hexdigest()
                pieces.append(_Piece(at, prepared, cost, name))
        request.left = len(pieces)
        return sorted(pieces, key=lambda piece: -piece.cost)

    def _decoded(self, request: _Request, at: int) -> list[_Piece]:
        tower = cast(ImageTower, self.encoder.tower("image"))
        return [_Piece(at, self._decode(cast(bytes, request.values[at]), tower), 1, request.names[at][3])]

    def _work(self) -> None:
        # what was asked before is answered in front of this
        batches = {medium: Batches(self.encoder, medium, recent_bytes=0) for medium in self.encoder.space.media}
        while True:
            with self._change:
                while not self._turns and not self._closed:
                    self._change.wait()
                if self._closed:
                    return
                taken = self._take()
                if self._turns:
                    self._change.notify()
                self._busy += 1
                alone = self._busy == 1 and not self._turns
            if taken:
                if self._lanes > 1:
                    lanes.use(self._cores if alone else self._cores // self._lanes)
                self._meter.batch(len(taken), sum(piece.cost for _, piece in taken))
                self._pass(batches[taken[0][0].medium], taken)
            with self._change:
                self._busy -= 1

    def _take(self) -> list[tuple[_Request, _Piece]]:
        """Take the inputs of one pass: the one that has waited longest, and others that cost least beside it."""
        offered = self._offered()
        if not offered:
            return []
        on = self.encoder.where
        if offered[0][0].medium == "image":
            taken = offered[: min(MOST_ROWS, 2 * PICTURES[on].start)]
        else:
            costs, budget = [piece.cost for _, piece in offered], min(MOST_TOKENS, TOKENS[on].start)
            taken = next([offered[at] for at in rows] for rows in packed(costs, budget, MOST_ROWS, on) if 0 in rows)
        gone = {id(piece) for _, piece in taken}
        served = {id(request) for request, _ in taken}
        for request in [one for one in self._turns if id(one) in served]:
            request.ready = deque(piece for piece in request.ready if id(piece) not in gone)
        first = [one for one in self._turns if id(one) not in served]
        self._turns = deque([*first, *(one for one in self._turns if id(one) in served and one.ready)])
        return taken

    def _offered(self) -> list[tuple[_Request, _Piece]]:
        """Return inputs of one medium, a few of each request in turn, the oldest first; drop what nobody waits for."""
        while self._turns and self._turns[0].over:
            late = self._turns.popleft()
            late.ready.clear()
            self._expire(late)
        here = [one for one in self._turns if one.medium == self._turns[0].medium and not one.over]
        offered: list[tuple[_Request, _Piece]] = []
        begin = 0
        while here and len(offered) < OFFERED:
            for request in here:
                offered += [(request, piece) for piece in islice(request.ready, begin, begin + TURN)]
            begin += TURN
            here = [request for request in here if len(request.ready) > begin]
        return offered[:OFFERED]

    def _pass(self, batches: Batches, part: Sequence[tuple[_Request, _Piece]]) -> None:
        started = time.perf_counter()
        batch = [
            (Decoded(Item(piece.name, request.medium, "request"), piece.name, None, None), piece.prepared)
            for request, piece in part
        ]
        try:
            found = batches.encode(batch)
        except (PermafrostError, *ITEM_ERRORS) as error:
            for request, _ in part:
                self._fail(request, error)
            return
        took = time.perf_counter() - started
        self._meter.stage("forward", took)
        self._rate = 0.8 * self._rate + 0.2 * len(part) / max(took, 1e-6) if self._rate else len(part) / max(took, 1e-6)
        rows, faults = _by_name(found)
        whole: list[_Request] = []
        # another pass may have pieces of the same request
        with self._change:
            for request, piece in part:
                if piece.name in faults:
                    continue
                request.rows[piece.at].append(rows[piece.name])
                request.left -= 1
                if not request.left:
                    whole.append(request)
        for request, piece in part:
            if (fault := faults.get(piece.name)) is not None:
                self._fail(
                    request,
                    Undecodable(fault.message, stage=fault.stage, reason=fault.reason, where=f"input {piece.at}"),
                )
        for request in whole:
            self._finish(request)

    def _finish(self, request: _Request) -> None:
        made = [np.stack(rows) if len(rows) > 1 else rows[0][None] for rows in request.rows]
        result = np.concatenate([rows if len(rows) == 1 else means(rows, np.array([len(rows)])) for rows in made])
        for name, row, tokens in zip(request.names, result, request.tokens, strict=True):
            self._recent.put(name, row, tokens)
        self._meter.stage("whole", time.perf_counter() - request.since)
        with contextlib.suppress(InvalidStateError):
            request.future.set_result(Made(result, sum(request.tokens), self.encoder.space))

    def _expire(self, request: _Request) -> None:
        self._fail(request, DeadlineExceeded(LATE, hint=SMALLER))

    def _fail(self, request: _Request, error: Exception) -> None:
        with contextlib.suppress(InvalidStateError):
            request.future.set_exception(error)


def _by_name(found: Sequence[Any]) -> tuple[dict[str, FloatMatrix], dict[str, Failure]]:
    rows: dict[str, FloatMatrix] = {}
    faults: dict[str, Failure] = {}
    for one in found:
        if isinstance(one, Failure):
            faults[one.id] = one
        else:
            rows |= {decoded.content_hash: row for decoded, row in zip(one.decoded, one.array, strict=True)}
    return rows, faults
