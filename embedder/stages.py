"""Where the seconds of a run went, what held it up, and the one thing that would help."""

from __future__ import annotations

import math
from dataclasses import dataclass

from embedder.records import Medium

SHORT_S = 2.0
SMALL = {"cpu": 8, "cuda": 64}
STRAY = 0.5
FASTER_TEXTS = "it takes one core beside the encoder, and nothing here makes it faster"
FASTER_DISK = "copy the source to a disk nearer to this machine"
FASTER_STORE = "put the store on a faster disk"


@dataclass(frozen=True)
class Setup:
    """What a run was made with, as far as it says what would help.

    `cores`: those of this process; `half`: whether bfloat16 is faster than float32 on its device; `runtimes`: others
    that could run this encoder here; `given`: the `--batch-size`, where there was one; `side`: of the pictures that the
    encoder reads, in pixels.
    """

    medium: Medium
    device: str
    dtype: str = "float32"
    cores: int = 1
    half: bool = False
    runtimes: tuple[str, ...] = ()
    given: int | None = None
    side: int = 0


@dataclass
class Stages:
    """Seconds spent in each stage; `wait`, `encode` and `write` add up to the run.

    `wait` is the time in which the forward pass stood idle for what comes before it: `read` (listing and reading) and
    `decode` (decoding, tokenising), which for pictures are summed over the `workers`. `batch_size` is the number of
    pictures, or of tokens for texts, in a full batch, the best found so far; it was `measured` once others were tried.
    """

    read: float = 0.0
    decode: float = 0.0
    wait: float = 0.0
    encode: float = 0.0
    write: float = 0.0
    workers: int = 0
    batch_size: int | None = None
    measured: bool = False
    setup: Setup | None = None

    def bottleneck(self) -> str:
        """Return the stage on which the run spent most of its own time: decode (with reading), encode or write."""
        own = {"decode": self.wait, "encode": self.encode, "write": self.write}
        return max(own, key=lambda name: own[name])

    def as_json(self) -> dict[str, float]:
        """Return the seconds, rounded."""
        return {name: round(getattr(self, name), 3) for name in ("read", "decode", "wait", "encode", "write")}

    def batch_of(self) -> str:
        """Return what `batch_size` counts."""
        return "tokens" if self.setup is not None and self.setup.medium == "text" else "pictures"

    def advice(self) -> str | None:
        """Return the one thing that would make such a run faster; None where it was too short to tell."""
        if self.setup is None or self.wait + self.encode + self.write < SHORT_S:
            return None
        stage = self.bottleneck()
        if stage == "write":
            return FASTER_STORE
        return _for_encoding(self.setup) if stage == "encode" else self._for_decoding(self.setup)

    def _for_decoding(self, setup: Setup) -> str:
        """Say what helps a forward pass that waits.

        Where reading takes more than decoding, or the two explain less than half of the wait, the source is slow. Else
        pictures need as many workers as would keep up, while there are cores; then they need to be smaller.
        """
        at_once = max(1, self.workers)
        if self.read > self.decode or (self.read + self.decode) / at_once < STRAY * self.wait:
            return FASTER_DISK
        if setup.medium == "text":
            return FASTER_TEXTS
        enough = math.ceil(at_once * (self.wait + self.encode) / max(self.encode, 1e-9))
        if at_once < setup.cores:
            return f"--workers {min(setup.cores, max(at_once + 1, enough))}"
        return f"keep the pictures smaller: this encoder reads {setup.side} pixels a side"


def _for_encoding(setup: Setup) -> str:
    """Say what helps the forward pass, cheapest first: a larger batch, another runtime, half precision, a GPU."""
    where = setup.device.partition(":")[0]
    if where not in SMALL:
        return "the endpoint sets the pace: a faster one, or an encoder that runs here"
    if setup.given is not None and setup.given < SMALL[where]:
        return "--batch-size auto, which measures the fastest"
    if setup.runtimes:
        return "--runtime auto, which takes the fastest that is installed"
    if setup.half and setup.dtype == "float32":
        return "dtype=bfloat16 in the encoder's name (a Space of its own)"
    return "a GPU, or a smaller encoder" if where == "cpu" else "a smaller encoder, or a faster GPU"
