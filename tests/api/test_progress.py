"""Progress: plain lines now and then in a log, a live one in a terminal; one stall does not move the estimate."""

from __future__ import annotations

import io

from api.progress import Progress, Speed, progress_line
from embedder.stages import Stages
from index.ingest import Run


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_speed_is_the_median_of_the_last_minute() -> None:
    speed = Speed()
    assert speed.rate() is None
    for second in range(200):
        stall = 5000 if second == 150 else 0
        speed.see(float(second), 10 * second + stall)
    assert speed.rate() == 10
    assert len(speed._samples) <= 61


def test_a_line_says_how_far_how_fast_and_what_holds_it_up() -> None:
    stages = Stages(read=1, decode=3, wait=4, encode=10, write=2)
    run = Run("r", embedded=3000, failed=100, pending=600, total=7390, stages=stages)
    assert (
        progress_line(run, 100.0, None) == "embed 3700/7390 50% 100/s eta 37s | encode 62% decode 19% write 12% read 6%"
    )
    assert progress_line(run, 100.0, 4000).startswith("embed 3700/4000 92% 100/s eta 3s")
    assert progress_line(Run("r", embedded=5), 2.5, None) == "embed 5 2.5/s"
    assert progress_line(Run("r", total=9_999_999, embedded=1), 1405, None).split(" | ")[0].endswith("eta 1h58m")


def test_the_longest_line_fits_a_terminal() -> None:
    stages = Stages(read=2, decode=10, wait=12, encode=77, write=11)
    line = progress_line(Run("r", embedded=1_234_567, total=9_999_999, stages=stages), 12345.0, None)
    assert 70 <= len(line) <= 80
    assert "encode 77%" in line
    assert line.endswith("%")


def test_a_log_gets_a_line_first_then_every_half_minute_then_the_last() -> None:
    out, now = io.StringIO(), [0.0]
    with Progress(stream=out, clock=lambda: now[0]) as progress:
        for second in range(65):
            now[0] = float(second)
            progress.watch("e", Run("r", embedded=second, total=64))
    counts = [line.split()[1] for line in out.getvalue().splitlines()]
    assert counts == ["0/64", "30/64", "60/64", "64/64"]
    assert "\r" not in out.getvalue()


def test_each_encoder_starts_anew() -> None:
    out = io.StringIO()
    with Progress(stream=out, clock=lambda: 0.0) as progress:
        for encoder in ("a", "b"):
            progress.watch(encoder, Run("r", embedded=1, total=2))
            progress.watch(encoder, Run("r", embedded=2, total=2))
    assert [line.split()[1] for line in out.getvalue().splitlines()] == ["1/2", "2/2", "1/2", "2/2"]


def test_a_terminal_gets_a_live_line_that_is_gone_at_the_end() -> None:
    out = Terminal()
    with Progress(stream=out) as progress:
        progress.watch("e", Run("r", embedded=1, total=2))
        progress._live.refresh()
    assert "embed 1/2" in out.getvalue()
    assert out.getvalue().rstrip().endswith("\x1b[2K")
