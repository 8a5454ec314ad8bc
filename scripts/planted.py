"""The planted suite in full: a Markdown table of how often each planted truth was missed or found.

Leaves with 1 where a figure is outside its bound.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "scripts")]

import plants  # noqa: E402
from plants import Case  # noqa: E402

HEAD = "| planted | seeds | found | 95 % | bound | |\n|---|---|---|---|---|---|"


def cases() -> Iterator[Case]:
    """Yield the cases of every file in `plants/`, the slow ones of a file after its others."""
    for module in pkgutil.iter_modules(plants.__path__):
        file = importlib.import_module(f"plants.{module.name}")
        yield from getattr(file, "CASES", [])
        yield from getattr(file, "SLOW", [])


def line(case: Case, seeds: int) -> tuple[str, bool]:
    """Run a case and return its line of the table, and whether it passed."""
    started = time.process_time()
    values = [float(case.run(seed)) for seed in range(seeds)]
    passed = case.passes(values)
    found = f"{int(sum(values))}" if case.share else f"{sum(values) / len(values):.3f}"
    bound = f"{case.low:.0%} to {case.high:.0%}" if case.share else f"{case.low} to {case.high}"
    took = f"{case.name}: {time.process_time() - started:.0f} s"
    print(took, file=sys.stderr)
    return (
        f"| {case.name} | {seeds} | {found} | {case.band(values)} | {bound} | {'' if passed else '**outside**'} |",
        passed,
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, help="of every case; none means each case's own number, mostly 200")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    args = parser.parse_args()
    print(HEAD)
    right = True
    for case in (case for case in cases() if args.only in case.name):
        text, passed = line(case, args.seeds or case.seeds)
        print(text, flush=True)
        right = right and passed
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
