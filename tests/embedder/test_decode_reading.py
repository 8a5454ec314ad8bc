from __future__ import annotations

import errno
import os
import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from embedder import reading
from embedder.errors import Undecodable
from embedder.reading import MAX_BYTES, read_file


def refused(path: Path | str) -> str:
    """The reason for which a path is not read, which must be found at once."""
    started = time.process_time()
    with pytest.raises(Undecodable) as caught:
        read_file(os.fspath(path))
    assert caught.value.stage == "read"
    assert caught.value.where == os.fspath(path)
    assert time.process_time() - started < 5
    return caught.value.reason


def test_a_file_is_its_bytes_size_and_time(tmp_path: Path) -> None:
    for name in ("a.jpg", "new\nline", "\x1b[31m", "<img src=x>", "\u202egpj.exe", os.fsdecode(b"\xff.jpg"), "n" * 255):
        path = tmp_path / name
        path.write_bytes(b"some bytes")
        os.utime(path, ns=(5, 1_700_000_000_123_456_789))
        assert read_file(os.fspath(path)) == (b"some bytes", 10, 1_700_000_000_123_456_789)
    (tmp_path / "empty").touch()
    assert read_file(os.fspath(tmp_path / "empty"))[:2] == (b"", 0)
    (tmp_path / "link").symlink_to(tmp_path / "a.jpg")
    assert read_file(os.fspath(tmp_path / "link"))[0] == b"some bytes"


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "zero.jpg").symlink_to("/dev/zero")
    (tmp_path / "folder.jpg").mkdir()
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.fspath(tmp_path / "socket.jpg"))
        names = ("pipe.jpg", "zero.jpg", "folder.jpg", "loop.jpg", "socket.jpg")
        assert {name: refused(tmp_path / name) for name in names} == dict.fromkeys(names, "not_a_file")


def test_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "dangling").symlink_to(tmp_path / "gone")
    (tmp_path / "file").touch()
    for name in ("gone", "dangling", "file/below", "n" * 256, "nul\0"):
        assert refused(f"{tmp_path}/{name}") == "missing", name


def test_errors_of_the_system_have_reasons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # root reads a file of mode 000, so the system's answer is played
    for number, reason in (
        (errno.EACCES, "permission"),
        (errno.EPERM, "permission"),
        (errno.EIO, "io"),
        (errno.ESTALE, "io"),
    ):
        monkeypatch.setattr(os, "open", failing(number))
        assert refused(tmp_path / "x") == reason


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_file_over_the_limit_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "large"
    with path.open("wb") as file:
        file.truncate(MAX_BYTES + 1)
    monkeypatch.setattr(os, "read", failing(errno.EIO))
    assert refused(path) == "too_large"


def test_a_file_at_the_limit_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MAX_BYTES", 1000)
    (tmp_path / "x").write_bytes(b"x" * 1000)
    assert read_file(os.fspath(tmp_path / "x"))[1] == 1000
    (tmp_path / "x").write_bytes(b"x" * 1001)
    assert refused(tmp_path / "x") == "too_large"


def test_short_reads_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "x").write_bytes(bytes(range(250)))
    whole = os.read
    monkeypatch.setattr(os, "read", lambda handle, most: whole(handle, min(most, 7)))
    assert read_file(os.fspath(tmp_path / "x"))[0] == bytes(range(250))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def rewrite(path: Path) -> None:
    path.write_bytes(b"X" * path.stat().st_size)
    os.utime(path, ns=(0, time.time_ns() + 10**9))


def swap(path: Path) -> None:
    status = path.stat()
    other = path.with_name("other")
    other.write_bytes(b"Y" * status.st_size)
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))
    other.replace(path)


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


@pytest.mark.parametrize("change", [append, rewrite, swap, cut])
@pytest.mark.parametrize("times", [1, 2])
def test_a_file_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], None], times: int
) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    whole, left = os.read, [times]

    def read(handle: int, most: int) -> bytes:
        found = whole(handle, most)
        if left[0] and os.lseek(handle, 0, os.SEEK_CUR) == len(found):
            left[0] -= 1
            change(path)
        return found

    monkeypatch.setattr(os, "read", read)
    if times == 2:
        assert refused(path) == "changed"
    else:
        data, size, mtime_ns = read_file(os.fspath(path))
        assert data == path.read_bytes() != b"0123456789"
        assert (size, mtime_ns) == (len(data), path.stat().st_mtime_ns)


def test_a_file_that_never_stops_growing_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    whole = os.read

    def read(handle: int, most: int) -> bytes:
        append(path)
        return whole(handle, min(most, 4))

    monkeypatch.setattr(os, "read", read)
    assert refused(path) == "changed"
    assert path.stat().st_size < 100


def test_a_file_whose_size_is_a_lie_is_not_taken_for_empty() -> None:
    assert refused("/proc/self/status") == "changed"


def test_a_file_that_goes_away_while_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"0123456789")
    whole = os.read

    def read(handle: int, most: int) -> bytes:
        path.unlink(missing_ok=True)
        return whole(handle, most)

    monkeypatch.setattr(os, "read", read)
    assert refused(path) == "missing"


def test_no_handle_is_left_open(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"x")
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert read_file(f"{tmp_path}/x")[0] == b"x"
        assert [refused(tmp_path), refused(tmp_path / "gone")] == ["not_a_file", "missing"]
    assert len(os.listdir("/proc/self/fd")) == before
