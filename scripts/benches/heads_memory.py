"""How much memory a head takes from many stored vectors: `python scripts/benches/heads_memory.py --rows 2000000`.

Synthetic rows are written to a file as `train` does with a large collection, and a head is held out, fitted and
accounted for as `train` does it. The peak is that of RssAnon, what this process holds itself; pages of the file that
the system keeps are not counted, and go when it needs the room.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

# not the folder of this file: its `heads.py` would hide the room of that name
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
from heads import holding  # noqa: E402
from heads.honest import Wishes, account  # noqa: E402
from heads.kind import estimator  # noqa: E402
from heads.labels import Task  # noqa: E402
from index.spill import Spilled  # noqa: E402


def main() -> int:
    """Measure one kind."""
    parser = argparse.ArgumentParser(prog="heads_memory", description=__doc__)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--classes", type=int, default=10)
    parser.add_argument("--kind", default="ridge")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        task, seconds = planted(options.rows, options.dim, options.classes, Path(folder)), time.process_time()
        watch = Watch()
        print(f"written, {watch.peak >> 20} MiB with the units' names")
        made = estimator(options.kind)
        held = holding.held_out(task, made, 0)
        print(f"held out: {time.process_time() - seconds:.0f} CPU s, {watch.peak >> 20} MiB", flush=True)
        model = holding.fitted(task, task.train, made, 0)
        print(f"fitted: {time.process_time() - seconds:.0f} CPU s, {watch.peak >> 20} MiB", flush=True)
        again = holding.settled(made, model)
        found = account(task, held, lambda part, most: holding.held_out(part, again, 0, most=most), Wishes(), 0)
        print(
            f"{options.kind}, {options.rows:,} x {options.dim}, {options.classes} classes: "
            f"{time.process_time() - seconds:.0f} CPU s, RssAnon {watch.stop() >> 20} MiB at most, "
            f"accuracy {found.metrics['accuracy']:.4f}"
        )
    return 0


def planted(n: int, dim: int, n_classes: int, folder: Path) -> Task:
    """Return a task of n rows in a file."""
    rng, X = np.random.default_rng(0), Spilled((n, dim), folder)
    y = rng.integers(0, n_classes, n)
    centres = rng.standard_normal((n_classes, dim), dtype=np.float32) * 0.15
    for start in range(0, n, 8192):
        labels = y[start : start + 8192]
        X.write(
            np.arange(start, start + len(labels)),
            centres[labels] + rng.standard_normal((len(labels), dim), dtype=np.float32),
        )
    names = [f"{i:064x}" for i in range(n)]
    classes = [f"class {c}" for c in range(n_classes)]
    return Task(np.arange(n), X.array, y.astype(np.intp), classes, names, np.arange(n), None, {}, spilled=X)


class Watch:
    """The peak of RssAnon, looked at ten times a second."""

    def __init__(self) -> None:
        self.peak, self._over = anonymous(), threading.Event()
        self._thread = threading.Thread(target=self._look)
        self._thread.start()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self.peak = max(self.peak, anonymous())

    def stop(self) -> int:
        """Return the peak, in bytes."""
        self._over.set()
        self._thread.join()
        return self.peak


def anonymous() -> int:
    """Return this process's RssAnon, in bytes."""
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return next(int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("RssAnon"))


if __name__ == "__main__":
    sys.exit(main())
