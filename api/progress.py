"""Progress on stderr: a live line in a terminal; elsewhere a plain line first, every half minute, and last."""

from __future__ import annotations

import statistics
import sys
import time
from collections import deque
from collections.abc import Callable
from itertools import pairwise
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from api import show

if TYPE_CHECKING:
    from index.ingest import Run

EVERY_S = 30.0
WINDOW_S = 60.0
CELLS = 80


class Speed:
    """Items a second: the median of the last minute, so that one stall or one burst does not move the estimate."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, int]] = deque()

    def see(self, now: float, done: int) -> None:
        """Remember a count, at most once a second."""
        if not self._samples or now - self._samples[-1][0] >= 1.0:
            self._samples.append((now, done))
        while now - self._samples[0][0] > WINDOW_S:
            self._samples.popleft()

    def rate(self) -> float | None:
        """Return items a second, or None before the second count."""
        steps = [(d2 - d1) / (t2 - t1) for (t1, d1), (t2, d2) in pairwise(self._samples)]
        return statistics.median(steps) if steps else None


class Progress:
    """Shows runs as they go. Call `watch` after each batch, inside `with`; `limit` caps the total that is expected."""

    def __init__(
        self, *, limit: int | None = None, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream or sys.stderr
        self._limit, self._clock = limit, clock
        self._live: Any = None
        self._encoder, self._speed, self._shown_at = "", Speed(), -EVERY_S
        self._line = ""

    def __enter__(self) -> Progress:
        if self._stream.isatty():
            self._live = _live_line(self._stream)
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._finish()

    def watch(self, encoder: str, run: Run) -> None:
        """Show where a run is."""
        if encoder != self._encoder:
            self._finish()
            self._encoder, self._speed, self._shown_at = encoder, Speed(), -EVERY_S
        now = self._clock()
        self._speed.see(now, run.done + run.pending)
        line = progress_line(run, self._speed.rate(), self._limit)
        if self._live is not None:
            self._live.update(_text(line), refresh=False)
        elif now - self._shown_at >= EVERY_S:
            self._write(line)
            self._shown_at, self._line = now, ""
        else:
            self._line = line

    def _finish(self) -> None:
        """Write the last line of a run that was not written yet."""
        if self._line and self._live is None:
            self._write(self._line)
        self._line = ""

    def _write(self, line: str) -> None:
        self._stream.write(line + "\n")
        self._stream.flush()


def progress_line(run: Run, rate: float | None, limit: int | None) -> str:
    """Return one line of at most 80 cells: count, share, speed, time left, and as many stages as fit, largest first."""
    done = run.done + run.pending
    total = min(run.total, limit) if run.total is not None and limit is not None else run.total
    parts = [f"{run.verb} {done}/{total}" if total else f"{run.verb} {done}"]
    if total:
        parts.append(f"{min(1.0, done / total):.0%}")
    if rate:
        parts.append(f"{rate:.0f}/s" if rate >= 10 else f"{rate:.1f}/s")
        if total and total > done:
            parts.append(f"eta {_short((total - done) / rate)}")
    line, joint = " ".join(parts), " | "
    for name, share in show.shares(run.stages.as_json()):
        stage = f"{joint}{name} {share:.0%}"
        if len(line + stage) > CELLS:
            break
        line, joint = line + stage, " "
    return line


def _short(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    if minutes >= 60:
        return f"{minutes // 60}h{minutes % 60:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _live_line(stream: TextIO) -> Any:
    from rich.console import Console
    from rich.live import Live

    return Live(_text("starting"), console=Console(file=stream), transient=True, refresh_per_second=4)


def _text(line: str) -> Any:
    from rich.text import Text

    return Text(line, no_wrap=True, overflow="ellipsis")


def plain_line(message: str, stream: TextIO | None = None) -> None:
    """Write one line about what is being done."""
    out = stream or sys.stderr
    out.write(show.safe(message) + "\n")
    out.flush()
