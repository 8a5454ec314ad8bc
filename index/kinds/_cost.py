"""What a kind says about itself before anything is built: memory, and time on one core."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Estimate:
    """What an index over `n` vectors will cost.

    `bytes`: what a search holds in memory. Pages of the mapped matrix count for `flat` alone, which reads all of them;
    the others read a few hundred rows a query, and the system may drop those.
    `build_bytes`: the most that building holds, besides the mapped matrix.
    `build_seconds`, `query_ms`: on one core of 2020 or later, within about a factor of three. They rank kinds and carry
    a measurement on a sample over to all rows; nothing is promised to a user by them.
    """

    bytes: int
    build_bytes: int
    build_seconds: float
    query_ms: float


BLOCK_ROWS = 50_000


def block_bytes(n: int, dim: int) -> int:
    """Return the bytes of the block of float32 rows that is added at a time."""
    return min(n, BLOCK_ROWS) * dim * 4


def refine_ms(shortlist: int, dim: int) -> float:
    """Return the time to gather and score a shortlist exactly: a miss of the cache for each row, then its values."""
    return 0.03 + shortlist * (150 + 0.3 * dim) * 1e-6


def graph_seconds(n: int, dim_bytes: float, links: int, breadth: int) -> float:
    """Return the time of `n` walks through a graph of this breadth, at about one miss of the cache a neighbour."""
    return n * breadth * links * (50 + 0.1 * dim_bytes) * 1e-9 * math.log2(max(2, n)) / 17


def doubling(least: int, most: int) -> tuple[int, ...]:
    """Return the values between two bounds, each about 1.4 times the one before."""
    values = {
        max(1, min(most, round(least * 2 ** (step / 2)))) for step in range(64) if least * 2 ** (step / 2) <= most
    }
    return tuple(sorted(values | {max(1, most)}))
