"""Local files, read so that no path can hang us, fill memory, or change under our hands unnoticed."""

from __future__ import annotations

import errno
import os
import stat

from embedder.errors import Undecodable

MAX_BYTES = 64 << 20

_REASONS = {
    errno.ENOENT: "missing",
    errno.ENOTDIR: "missing",
    errno.ENAMETOOLONG: "missing",
    errno.EACCES: "permission",
    errno.EPERM: "permission",
    errno.ELOOP: "not_a_file",
    errno.ENXIO: "not_a_file",
    errno.EISDIR: "not_a_file",
}


def read_file(path: str) -> tuple[bytes, int, int]:
    """Read a regular file of at most 64 MiB, once.

    Returns:
        its bytes, its size in bytes, and its modification time in nanoseconds.

    Raises:
        Undecodable: stage `read`; reason `missing`, `not_a_file` (a folder, device, pipe, socket or symlink loop),
            `too_large`, `permission`, `changed` (twice, while it was read) or `io`.
    """
    try:
        found = _read(path) or _read(path)
    except OSError as error:
        raise _bad(f"cannot be read: {error.strerror}", reason_of(error), path) from error
    except ValueError as error:
        raise _bad(f"not a path: {error}", reason_of(error), path) from error
    if found is None:
        raise _bad("changed twice while it was read", "changed", path, hint="run again when its writer is done")
    return found


def reason_of(error: OSError | ValueError) -> str:
    """Return the reason, one of those of `read_file`, why the system refused a path."""
    if isinstance(error, (FileNotFoundError, PermissionError)):
        # those of other file systems come without a number
        return "missing" if isinstance(error, FileNotFoundError) else "permission"
    return _REASONS.get(error.errno or 0, "io") if isinstance(error, OSError) else "missing"


def _read(path: str) -> tuple[bytes, int, int] | None:
    """Read once; None where the file changed meanwhile."""
    # without O_NONBLOCK, opening a pipe waits for its writer for ever
    handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    try:
        before = os.fstat(handle)
        if not stat.S_ISREG(before.st_mode):
            raise _bad("is not a regular file", "not_a_file", path)
        if before.st_size > MAX_BYTES:
            raise too_large(before.st_size, path)
        data = _up_to(handle, before.st_size + 1)
    finally:
        os.close(handle)
    after = os.stat(path)
    if len(data) != before.st_size or _version(before) != _version(after):
        return None
    return data, before.st_size, before.st_mtime_ns


def _up_to(handle: int, most: int) -> bytes:
    parts: list[bytes] = []
    while most > 0 and (part := os.read(handle, most)):
        parts.append(part)
        most -= len(part)
    return b"".join(parts)


def _version(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def too_large(size: int, path: str = "") -> Undecodable:
    """Return the error for a file of `size` bytes, more than may be read."""
    return _bad(f"has {size:,} bytes; the limit is {MAX_BYTES:,}", "too_large", path)


def remote_failure(error: Exception, address: str) -> Undecodable:
    """Return the error for a file that its file system, which is not this machine's, does not give."""
    reason = reason_of(error) if isinstance(error, OSError) else "missing" if isinstance(error, KeyError) else "io"
    return _bad(f"cannot be read: {error}", reason, address)


def _bad(what: str, reason: str, path: str, hint: str = "") -> Undecodable:
    return Undecodable(what, stage="read", reason=reason, where=path, hint=hint)
