"""Threads of the passes that go on side by side: of one thread alone, whatever the environment says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SAYS = """
import threading, torch
from embedder import lanes
said = [lanes.threads()]
def lane():
    for count in (1, 2, 0):
        lanes.use(count)
        said.append(lanes.threads())
for act in (lane, lambda: said.append(lanes.threads())):
    thread = threading.Thread(target=act)
    thread.start()
    thread.join()
print(*said, lanes.threads())
"""


@pytest.mark.parametrize("more", [{}, {"MKL_NUM_THREADS": "2"}], ids=["plain", "MKL told apart"])
def test_a_lane_tells_no_other_thread(more: dict[str, str]) -> None:
    """MKL, where it has a number of its own, is what torch counts by."""
    given = {name: value for name, value in os.environ.items() if name != "MKL_NUM_THREADS"}
    env = {**given, "OMP_NUM_THREADS": "2", "PYTHONPATH": str(ROOT), **more}
    command = [sys.executable, "-c", SAYS]
    found = subprocess.run(command, env=env, capture_output=True, text=True, check=True, timeout=120)
    assert found.stdout.split() == ["2", "1", "2", "1", "2", "2"]
