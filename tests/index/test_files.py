from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from embedder.errors import Damaged, Locked
from index import files

HOLDER = """
import sys, time
from pathlib import Path
from index import files
with files.lease(Path(sys.argv[1]), what="a run"):
    print("held", flush=True)
    time.sleep(60)
"""


def test_a_write_that_fails_leaves_the_old_bytes_and_no_litter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    files.write_json(path, {"n": 1})

    def broken(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", broken)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"n": 2})
    assert files.read_json(path) == {"n": 1}
    assert os.listdir(tmp_path) == ["a.json"]


def test_a_long_name_can_be_written(tmp_path: Path) -> None:
    path = tmp_path / ("n" * 255)
    files.write_bytes(path, b"x")
    assert path.read_bytes() == b"x"


def test_nan_is_refused_and_bad_json_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        files.write_json(tmp_path / "a.json", {"a": float("nan")})
    (tmp_path / "b.json").write_text("{")
    with pytest.raises(Damaged, match=r"b\.json"):
        files.read_json(tmp_path / "b.json")


def test_every_write_passes_the_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    monkeypatch.setattr(files, "fault", seen.append)
    files.write_bytes(tmp_path / "x", b"1")
    assert seen == ["file:x"]


def test_a_flipped_bit_is_noticed_also_after_the_file_was_found_good(tmp_path: Path) -> None:
    path = tmp_path / "data"
    path.write_bytes(b"abcdef")
    good = files.sha256(path)
    files.check_sha256(path, good)
    path.write_bytes(b"abcdeg")
    with pytest.raises(Damaged, match="checksum"):
        files.check_sha256(path, good)
    path.unlink()
    with pytest.raises(Damaged, match="missing"):
        files.check_sha256(path, good)


def test_a_second_lease_is_refused_and_names_the_holder_until_it_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "locks" / "run.lock"
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(path)], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        assert files.is_leased(path)
        with pytest.raises(Locked, match=f"process {holder.pid} on "), files.lease(path, what="a run"):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert not files.is_leased(path)
    with files.lease(path, what="a run"):
        assert files.is_leased(path)
    assert not path.with_suffix(".owner.json").exists()


def test_a_lock_is_waited_for_only_so_long(tmp_path: Path) -> None:
    path = tmp_path / "commit.lock"
    with files.lock(path), pytest.raises(Locked, match=r"commit\.lock"), files.lock(path, wait_s=0.05):
        pass
