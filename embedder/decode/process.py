"""One worker process, seen from its parent: start it, ask it, kill it."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import select
import signal
import subprocess
import sys
import tempfile
from dataclasses import astuple, dataclass
from pathlib import Path
from time import monotonic
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from embedder.decode import frames
from embedder.errors import OutOfResource, Undecodable

ROOT = str(Path(__file__).resolve().parents[2])
# numpy's threads would take their stacks out of the memory limit, one for each core
BOOT = """\
import os, sys
os.putenv("OPENBLAS_NUM_THREADS", "1")
root = sys.argv[1]
sys.path[:0] = [] if root in sys.path else [root]
from embedder.decode.worker import main
main(*sys.argv[2:])
"""
START_S = 60.0
KILL_S = 5.0
PIPE_BYTES = 1 << 20
TAIL_BYTES = 2048


@dataclass(frozen=True, slots=True)
class Limits:
    """What a worker may take: address space in bytes, seconds for one item; and the module whose `decode` it calls."""

    memory_bytes: int
    timeout_s: float
    decoder: str


class WorkerProcess:
    """A running worker. One thread at a time may `ask`; `kill` may be called from any.

    It is a plain subprocess and not one of `multiprocessing`, which would import the user's main script again (and so
    break every script without a main guard) and would pickle.
    """

    def __init__(self, limits: Limits) -> None:
        """Start a worker, without waiting for it: that is `start`.

        Raises:
            OutOfResource: the system refuses to start a process.
        """
        # -P: the current folder is the user's, and may hold a file called like one of our imports
        command = [sys.executable, "-P", "-c", BOOT, ROOT, *map(str, astuple(limits))]
        try:
            self._log, self._process = _start(command)
        except OSError as error:
            raise OutOfResource(f"cannot start a decode worker: {error}", hint="use fewer workers") from error
        if self._process.stdin is None or self._process.stdout is None:
            raise AssertionError("both were asked to be pipes")
        self._in, self._out = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._polls = {self._in: select.poll(), self._out: select.poll()}
        for pipe, event in ((self._in, select.POLLOUT), (self._out, select.POLLIN)):
            self._polls[pipe].register(pipe, event)
            os.set_blocking(pipe, False)
            # without it each picture takes several turns through a pipe of 64 KiB; a user over quota keeps those
            with contextlib.suppress(OSError, AttributeError):
                fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._timeout_s = limits.timeout_s
        self._ready = self._killed = False
        self.asked = 0

    @property
    def usable(self) -> bool:
        """Whether it was neither killed nor has ended by itself."""
        return not self._killed and self._process.poll() is None

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.pid

    def start(self) -> None:
        """Wait until the worker is ready.

        Raises:
            OutOfResource: it ended, or was silent for a minute, before it was ready.
        """
        if self._ready:
            return
        try:
            self._receive(monotonic() + START_S, 0)
        except Undecodable as error:
            raise OutOfResource(
                f"a decode worker did not start: {error.what}",
                where=self._last_words(),
                hint="check memory and process limits, or use fewer workers",
            ) from error
        self._ready = True

    def ask(
        self, transform: bytes, path: str | None, content: bytes, pixel_bytes: int
    ) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        """Have one picture decoded: return its facts and `pixel_bytes` bytes, or why there are none.

        Raises:
            Undecodable: stage `decode`, reason `timeout` or `worker_died`; the worker is of no use any more.
        """
        self.asked += 1
        # so that what is found there later is of this item
        if os.fstat(self._log.fileno()).st_size:
            self._log.seek(0)
            self._log.truncate()
        deadline = monotonic() + self._timeout_s
        self._send(frames.request(transform, path, content), deadline)
        self._send(content, deadline)
        return self._receive(deadline, pixel_bytes)

    def kill(self) -> None:
        """End the process, whatever it does; a thread that asks it is told that it died."""
        self._killed = True
        self._process.kill()

    def close(self) -> None:
        """End the process, collect it, and free its pipes. Only by the thread that owns this worker."""
        self.kill()
        # a process that waits for a lost network disk cannot be killed, nor waited for
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(timeout=KILL_S)
        for stream in (self._process.stdin, self._process.stdout, self._log):
            if stream is not None:
                stream.close()

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self._in, view) :]
            except BlockingIOError:
                self._wait(self._in, deadline)
            except BrokenPipeError:
                raise self._died() from None

    def _receive(self, deadline: float, pixel_bytes: int) -> tuple[dict[str, Any], NDArray[np.uint8]]:
        start, pixels = bytearray(frames.PIXELS.size + frames.HEADER), np.empty(pixel_bytes, dtype=np.uint8)
        left = [memoryview(start), memoryview(pixels.data)]
        got, found = 0, 0
        while got < len(start) + found:
            known = got >= len(start)
            got += self._some(left, deadline)
            if not known and got >= len(start):
                (found,) = frames.PIXELS.unpack_from(start)
                if found not in (0, pixel_bytes):
                    raise self._died("gave an answer that makes no sense")
        try:
            header: dict[str, Any] = json.loads(start[frames.PIXELS.size :].rstrip())
        except ValueError:
            raise self._died("gave an answer that makes no sense") from None
        return header, pixels[:found]

    def _some(self, left: list[memoryview], deadline: float) -> int:
        """Read into what is left to fill, and take that off it."""
        self._wait(self._out, deadline)
        if not (got := os.readv(self._out, left)):
            raise self._died()
        frames.advance(left, got)
        return got

    def _wait(self, pipe: int, deadline: float) -> None:
        if not self._polls[pipe].poll(max(0.0, 1e3 * (deadline - monotonic()))):
            self.kill()
            raise _lost(f"no answer in {self._timeout_s:g} s", "timeout")

    def _died(self, how: str = "") -> Undecodable:
        self.kill()
        try:
            code = self._process.wait(timeout=KILL_S)
        except subprocess.TimeoutExpired:
            return _lost("the decoder cannot be ended: it waits for a disk", "worker_died")
        if code == -signal.SIGALRM:
            return _lost(f"no answer in {self._timeout_s:g} s", "timeout")
        if not how:
            how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
        return _lost(": ".join(filter(None, (f"the decoder {how}", self._last_words()))), "worker_died")

    def _last_words(self) -> str:
        size = os.fstat(self._log.fileno()).st_size
        tail = os.pread(self._log.fileno(), TAIL_BYTES, max(0, size - TAIL_BYTES)).decode("utf-8", "replace").strip()
        return tail.rsplit("\n", 1)[-1]


def _start(command: list[str]) -> tuple[IO[bytes], subprocess.Popen[bytes]]:
    log = tempfile.TemporaryFile()  # noqa: SIM115  closed with the worker
    try:
        return log, subprocess.Popen(  # noqa: S603  our own interpreter and arguments
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, bufsize=0, process_group=0
        )
    except OSError:
        log.close()
        raise


def _lost(what: str, reason: str) -> Undecodable:
    hint = "leave this file out, or look at it with another program"
    return Undecodable(what, stage="decode", reason=reason, hint=hint)
