"""The command line as a process: signals, locks, full disks, pipes, and stdout that holds one document."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index import files
from index.store import Store
from tests.api.conftest import NOTES, Run, environment, finish, start, write_notes

MANY = 60_000


def wait_for(condition: str, process: subprocess.Popen[str], timeout: float = 60) -> None:
    """Read stderr until a line holds `condition`."""
    assert process.stderr is not None
    ends = time.monotonic() + timeout
    while time.monotonic() < ends:
        line = process.stderr.readline()
        if condition in line:
            return
        assert line, f"the process ended without {condition!r}"
    raise AssertionError(f"{condition!r} did not come")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_was_encoded_and_the_same_command_goes_on(
    run: Run, tmp_path: Path, number: int, code: int
) -> None:
    notes = write_notes(tmp_path / "notes.csv", MANY)
    words = (
        "--store",
        tmp_path / "s",
        "embed",
        notes,
        "--into",
        "c",
        "--encoder",
        "hashing:64",
        "--batch-size",
        "16",
        "--json",
    )
    process = start(*words)
    wait_for("embed ", process)
    collection = Store.open(tmp_path / "s").collection("c")
    ends = time.monotonic() + 60
    while not collection.count() and time.monotonic() < ends:
        time.sleep(0.05)
    process.send_signal(number)
    said = finish(process)
    assert said.code == code
    assert said.json["error"]["exit_code"] == code
    assert "goes on where it stopped" in said.err
    stored = Store.open(tmp_path / "s").collection("c").count()
    assert 0 < stored < MANY
    resumed = run(*words)
    assert resumed.code == 0
    assert resumed.json["unchanged"] == stored
    assert resumed.json["embedded"] == MANY - stored


def test_a_run_of_the_same_space_is_locked_out(run: Run, store: Path, tmp_path: Path) -> None:
    collection = Store.open(store).collection("notes")
    notes = write_notes(tmp_path / "notes.csv")
    with files.lease(collection.lock_path(collection.space().fingerprint), what="the test"):
        said = run(
            "--store", store, "embed", notes, "--into", "notes", "--encoder", "hashing:64", "--relocate", "--json"
        )
        assert said.code == 5
        assert said.json["error"]["type"] == "locked"
        assert str(os.getpid()) in said.err
        assert "held by another run" in run("--store", store, "doctor").out
    assert run("--store", store, "embed", notes, "--into", "notes", "--encoder", "hashing:64", "--relocate").code == 0


def test_a_full_disk_exits_6_and_says_what_to_do(
    run: Run, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(point: str) -> None:
        if point == "items":
            raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path))

    monkeypatch.setattr(files, "fault", full)
    notes = write_notes(tmp_path / "notes.csv", NOTES + 1)
    said = run("--store", store, "embed", notes, "--into", "notes", "--encoder", "hashing:64", "--relocate")
    assert said.code == 6
    assert "error: the disk is full" in said.err
    assert "free some space" in said.err


def test_a_store_of_a_later_format_is_not_touched(run: Run, store: Path) -> None:
    (store / "permafrost.json").write_text('{"format": 99}')
    said = run("--store", store, "ls", "--json")
    assert said.code == 1
    assert said.json["error"]["type"] == "damaged"


def test_a_search_gives_one_document_and_imports_no_library_that_it_does_not_need(built: Path) -> None:
    program = f"""
import sys
from api.cli import main
code = main(["--store", {str(built)!r}, "search", "notes", "a red boat", "--json"])
print([n for n in ("torch", "sklearn", "transformers", "fastapi", "faiss") if n in sys.modules], file=sys.stderr)
sys.exit(code)
"""
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment(), timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "[]\n")
    assert len(json.loads(done.stdout)["hits"]) == 10


DELIVER = (
    "from api.cli import _deliver as d; from api.calls import Result; code = d(Result({}, 'x' * 9**6), as_json=False)"
)
HELP = "from api.cli import main; code = main(['--help'])"


@pytest.mark.parametrize("act", [DELIVER, HELP])
def test_a_reader_that_leaves_early_is_no_error(act: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    program = [sys.executable, "-c", f"import sys; {act}; sys.exit(code)"]
    done = subprocess.run(program, stdout=writer, stderr=subprocess.PIPE, env=environment(), timeout=60, check=False)
    os.close(writer)
    assert done.stderr == b""
    assert done.returncode == 0
