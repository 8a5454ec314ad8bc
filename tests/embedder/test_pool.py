from __future__ import annotations

import hashlib
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

import embedder
from embedder.decode.image import decode
from embedder.errors import OutOfResource, Undecodable, UsageError
from embedder.pool import DecodePool
from embedder.records import Decoded, Failure, Item
from embedder.transform import ImageTransform
from tests.embedder import corpus
from tests.embedder.hostile import number_of

ROOT = Path(embedder.__file__).parents[1]
HALF = (0.5, 0.5, 0.5)
REAL = ImageTransform(224, 224, 256, HALF, HALF, "bicubic", "crop")
TINY = ImageTransform(8, 8, 8, HALF, HALF, "nearest", "squash")


@pytest.fixture(autouse=True)
def findable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers find the hostile decoder, whatever other `tests` is installed."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def hostile(workers: int, *, timeout_s: float = 30.0, recycle: int = 5000) -> DecodePool:
    return DecodePool(workers, timeout_s=timeout_s, recycle=recycle, decoder="tests.embedder.hostile")


def told(orders: Iterable[str]) -> list[Item]:
    return [Item(f"item {i}", "image", f"place {i}", data=order.encode()) for i, order in enumerate(orders)]


def numbers(found: Iterable[Decoded | Failure]) -> list[int | str]:
    return [number_of(f.value) if isinstance(f, Decoded) else f.reason for f in found]


def gone(pid: int, within_s: float) -> bool:
    """Whether a process ends, or is only waiting to be collected, in that time."""
    end = time.monotonic() + within_s
    while time.monotonic() < end:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z":
                return True
        except (FileNotFoundError, ProcessLookupError):
            return True
        time.sleep(0.02)
    return False


def test_the_torture_corpus_and_its_neighbours(tmp_path: Path) -> None:
    good = corpus.encoded(corpus.picture(), "JPEG")
    right = REAL.pixels(decode(good, (255, 255, 255)))
    (tmp_path / "good.jpg").write_bytes(good)
    neighbour = Item("good", "image", "", path=str(tmp_path / "good.jpg"))
    items: list[Item] = []
    for case in corpus.cases():
        items += [Item(case.name, "image", case.name, data=case.data), neighbour]
    with DecodePool(2) as pool:
        found = list(pool.map(items, REAL))
        peak = [int(line.split()[1]) for w in pool._live for line in status(w.pid) if line.startswith("VmHWM")]
    for case, result in zip(corpus.cases(), found[::2], strict=True):
        reason = result.reason if isinstance(result, Failure) else corpus.GOOD
        assert reason in case.outcome, case.name
        if isinstance(result, Failure):
            assert (result.id, result.source, result.stage, result.attempt) == (case.name, case.name, "decode", 1)
            assert result.bytes == len(case.data)
            assert result.ms < 5000
        else:
            assert result.content_hash == hashlib.sha256(case.data).hexdigest()
            assert result.decode_ms < 5000
    for result in found[1::2]:
        assert isinstance(result, Decoded)
        np.testing.assert_array_equal(result.value, right)
        assert result.mtime_ns == (tmp_path / "good.jpg").stat().st_mtime_ns
        assert result.size == len(good)
    assert len(peak) == 2
    assert max(peak) < 1 << 20


def status(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/status").read_text().splitlines()


def test_files_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    strange = tmp_path / os.fsdecode(b"new\nline \xff.jpg")
    strange.write_bytes(corpus.encoded(corpus.picture(), "PNG"))
    names = ["pipe.jpg", "gone.jpg", "zero.jpg", "folder.jpg", strange.name, "no \ud800 path", "a \0 in it"]
    with DecodePool(1) as pool:
        found = list(pool.map([Item(n, "image", n, path=f"{tmp_path}/{n}") for n in names], REAL))
        with pytest.raises(Undecodable, match="not a regular file") as caught:
            pool.decode(Item("one", "image", "the place", path=f"{tmp_path}/pipe.jpg"), REAL)
    reasons = [(f.stage, f.reason) if isinstance(f, Failure) else None for f in found]
    assert reasons == [
        ("read", "not_a_file"),
        ("read", "missing"),
        ("read", "not_a_file"),
        ("read", "not_a_file"),
        None,
        ("read", "missing"),
        ("read", "missing"),
    ]
    assert (caught.value.stage, caught.value.reason, caught.value.where) == ("read", "not_a_file", "the place")


def test_a_thousand_in_and_997_out() -> None:
    orders = [f"good {i}" for i in range(1000)]
    orders[100], orders[101], orders[500] = "abort", "sleep 3600", "eat"
    with hostile(2, timeout_s=1.0) as pool:
        found = list(pool.map(told(orders), TINY))
    assert [f.item.id if isinstance(f, Decoded) else f.id for f in found] == [f"item {i}" for i in range(1000)]
    expected = [*range(100), "worker_died", "timeout", *range(102, 500), "out_of_memory", *range(501, 1000)]
    assert numbers(found) == expected
    aborted, slept, ate = (found[i] for i in (100, 101, 500))
    assert isinstance(aborted, Failure)
    assert "SIGABRT" in aborted.message
    assert isinstance(slept, Failure)
    assert 1000 <= slept.ms < 5000
    assert isinstance(ate, Failure)
    assert ate.exception == "MemoryError"


def test_every_kind_of_death_has_its_name() -> None:
    with hostile(1) as pool:
        found = list(pool.map(told(["segv", "exit", "bug", "last", "garble", "pid", "eat", "pid"]), TINY))
    messages = [f.message for f in found if isinstance(f, Failure)]
    assert numbers(found)[:5] == ["worker_died"] * 5
    assert "SIGSEGV" in messages[0]
    assert "status 3" in messages[1]
    assert "a bug of ours" in messages[2]
    assert "the last words" in messages[3]
    assert "makes no sense" in messages[4]
    assert numbers(found)[5] == numbers(found)[7], "a picture that is too large does not cost the worker"


def test_a_worker_leaves_no_core_file() -> None:
    limits = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (limits[1], limits[1]))
    try:
        with hostile(1) as pool:
            assert numbers(pool.map(told(["core"]), TINY)) == [0]
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, limits)


def test_an_idle_worker_is_not_timed() -> None:
    with hostile(1, timeout_s=1.0) as pool:
        (pid,) = numbers(pool.map(told(["pid"]), TINY))
        assert not gone(int(pid), 3.0)
        assert numbers(pool.map(told(["pid"]), TINY)) == [pid]


def test_what_a_decoder_prints_goes_nowhere(capfd: pytest.CaptureFixture[str]) -> None:
    with hostile(1) as pool:
        assert numbers(pool.map(told(["chatter 5", "chatter 6", "good 7"]), TINY)) == [5, 6, 7]
    assert capfd.readouterr() == ("", "")


def test_workers_are_replaced_after_their_share() -> None:
    with hostile(1, recycle=10) as pool:
        pids = numbers(pool.map(told(["pid"] * 35), TINY))
    assert [len(set(pids[i : i + 10])) for i in range(0, 35, 10)] == [1, 1, 1, 1]
    assert len(set(pids)) == 4


def test_a_worker_that_dies_idle_costs_nothing() -> None:
    with hostile(1) as pool:
        (pid,) = numbers(pool.map(told(["pid"]), TINY))
        os.kill(int(pid), signal.SIGKILL)
        assert gone(int(pid), 5)
        assert numbers(pool.map(told(["good 1", "good 2"]), TINY)) == [1, 2]


def test_ctrl_c_is_for_the_parent() -> None:
    with hostile(1) as pool:
        (pid,) = numbers(pool.map(told(["pid"]), TINY))
        assert os.getpgid(int(pid)) != os.getpgid(0), "a terminal sends Ctrl-C and Ctrl-Z to its whole process group"
        os.kill(int(pid), signal.SIGINT)
        assert numbers(pool.map(told(["good 1", "pid"]), TINY)) == [1, pid]


def test_items_are_taken_as_there_is_room() -> None:
    taken: list[int] = []

    def source() -> Iterator[Item]:
        for item in told(f"good {i}" for i in range(200)):
            taken.append(1)
            yield item

    with hostile(2) as pool:
        results = pool.map(source(), TINY, ahead=8)
        assert taken == []
        for done in range(1, 100):
            assert numbers([next(results)]) == [done - 1]
            assert done <= len(taken) <= done + 8
        results.close()
        assert len(taken) < 120


def test_an_error_of_the_source_comes_after_what_came_before_it() -> None:
    def source() -> Iterator[Item]:
        yield from told(["good 1", "abort", "good 3"])
        raise OSError("the table ends here")

    seen: list[Decoded | Failure] = []
    with hostile(1) as pool:
        with pytest.raises(OSError, match="ends here"):
            seen.extend(pool.map(source(), TINY))
        assert numbers(pool.map(told(["good 4"]), TINY)) == [4]
    # list.extend keeps what it was given before the error
    assert numbers(seen) == [1, "worker_died", 3]


def test_closing_early_leaves_no_busy_worker() -> None:
    with hostile(2, timeout_s=600) as pool:
        pids = set(numbers(pool.map(told(["pid"] * 20), TINY)))
        results = pool.map(told(["good 1", "sleep 3600", "sleep 3600", *["good 4"] * 40]), TINY)
        assert numbers([next(results)]) == [1]
        while pool._idle:
            time.sleep(0.01)
        started = time.monotonic()
        results.close()
        assert time.monotonic() - started < 60
        assert all(gone(int(pid), 5) for pid in pids), "both were asleep"
        assert numbers(pool.map(told(["good 5", "good 6"]), TINY)) == [5, 6]


def test_closing_early_spares_what_is_nearly_done() -> None:
    with hostile(1) as pool:
        (pid,) = numbers(pool.map(told(["pid"]), TINY))
        results = pool.map(told(["good 1", "sleep 0.2", "good 3"]), TINY)
        next(results)
        results.close()
        assert numbers(pool.map(told(["pid"]), TINY)) == [pid]


def test_threads_share_a_pool() -> None:
    found: dict[int, list[int | str]] = {}

    def one(base: int) -> None:
        orders = [f"good {base + i}" for i in range(100)]
        orders[50] = "abort"
        found[base] = numbers(pool.map(told(orders), TINY, ahead=7))

    with hostile(2) as pool:
        threads = [threading.Thread(target=one, args=(1000 * n,)) for n in range(4)]
        for thread in threads:
            thread.start()
        singles = [number_of(pool.decode(told([f"good {i}"])[0], TINY).value) for i in range(50)]
        for thread in threads:
            thread.join()
    assert singles == list(range(50))
    for base in (0, 1000, 2000, 3000):
        assert found[base] == [*range(base, base + 50), "worker_died", *range(base + 51, base + 100)]


def test_transforms_of_every_size_come_back_whole() -> None:
    data = corpus.encoded(corpus.picture(), "PNG")
    with DecodePool(1) as pool:
        for height, width in ((1, 1), (3, 700), (1500, 1500)):
            transform = ImageTransform(height, width, 1500, HALF, HALF, "bilinear", "squash")
            found = pool.decode(Item("x", "image", "", data=data, mtime_ns=5), transform)
            np.testing.assert_array_equal(found.value, transform.pixels(corpus.picture()))
            assert found.mtime_ns == 5
            assert found.value.flags.writeable, "torch warns of arrays that it may not write to"


def test_large_bytes_go_through_and_too_large_ones_do_not() -> None:
    with hostile(1) as pool:
        assert numbers(pool.map([Item("x", "image", "", data=b"good 7".ljust(60 << 20))], TINY)) == [7]
        (failure,) = pool.map([Item("x", "image", "", data=bytes((64 << 20) + 1))], TINY)
    assert isinstance(failure, Failure)
    assert (failure.stage, failure.reason, failure.bytes) == ("read", "too_large", (64 << 20) + 1)


def test_closing_ends_the_workers_and_those_who_wait() -> None:
    pool = hostile(1)
    (pid,) = numbers(pool.map(told(["pid"]), TINY))
    results = pool.map(told(["sleep 3600", "good 2"]), TINY)
    timer = threading.Timer(0.5, pool.close)
    timer.start()
    with pytest.raises(UsageError, match="closed"):
        next(results)
    timer.join()
    assert gone(int(pid), 5)
    with pytest.raises(UsageError, match="closed"):
        pool.decode(told(["good 1"])[0], TINY)
    pool.close()


def test_a_pool_that_cannot_work_says_why() -> None:
    with pytest.raises(UsageError, match="0 workers"):
        DecodePool(0)
    with DecodePool(1, decoder="no_such_module") as pool, pytest.raises(OutOfResource, match="did not start") as caught:
        pool.decode(told(["good 1"])[0], TINY)
    assert "no_such_module" in str(caught.value)


SCRIPT = """
import sys
from embedder.pool import DecodePool
from embedder.records import Item
from embedder.transform import ImageTransform
from tests.embedder.hostile import number_of
print("once", flush=True)
tiny = ImageTransform(8, 8, 8, (0.5,) * 3, (0.5,) * 3, "nearest", "squash")
orders = [b"pid"] * 40 + [o.encode() for o in sys.argv[1:]]
with DecodePool(2, timeout_s=2, decoder="tests.embedder.hostile") as pool:
    for found in pool.map((Item("", "image", "", data=o) for o in orders), tiny):
        print(number_of(found.value), flush=True)
"""


def test_a_script_without_a_main_guard_works(tmp_path: Path) -> None:
    # an import from the user's folder would find these instead of ours
    (tmp_path / "numpy.py").write_text("raise RuntimeError('the wrong numpy')")
    (tmp_path / "elsewhere").mkdir()
    script = tmp_path / "elsewhere" / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[0] == "once"
    assert len(done.stdout.splitlines()) == 41


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    # one worker is idle then, the other is stuck in a decoder
    parent = subprocess.Popen([sys.executable, "-c", SCRIPT, "sleep 3600"], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    lines = [parent.stdout.readline() for _ in range(41)]
    pids = {int(line) for line in lines[1:]}
    assert len(pids) == 2
    parent.kill()
    parent.wait()
    parent.stdout.close()
    assert all(gone(pid, 10) for pid in pids)


def test_a_worker_is_light() -> None:
    code = (
        "import sys, embedder.decode.worker\n"
        "print(sorted({'torch', 'torchvision', 'lancedb', 'pyarrow', 'scipy', 'multiprocessing'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("[]\n", "")
