"""The members of a tar archive, in order, read by our own loop: `tarfile` takes a damaged header for the end.

Whatever is wrong, what came before it was given: an archive that does not end in its two blocks of zeros, or holds a
header that cannot be read, raises `Incomplete` with the offset.
"""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO, cast

from embedder.reading import MAX_BYTES

BLOCK = 512
ZEROS = bytes(BLOCK)
LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL = b"L", b"K", b"x", b"g"
REGULAR = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.CONTTYPE)
WITHOUT_DATA = (tarfile.LNKTYPE, tarfile.SYMTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE)
MAX_HEADER = 1 << 20
GZIP_RATIO, GZIP_FREE = 100, 32 << 20
STEP = 1 << 20


class Incomplete(Exception):
    """The archive cannot be read from `offset` (bytes, unpacked) on."""

    def __init__(self, offset: int, why: str) -> None:
        super().__init__(f"{why} at byte {offset:,}")
        self.offset = offset


@dataclass(frozen=True)
class Member:
    """A regular file: `data` is None where it was not wanted, or has more than 64 MiB."""

    name: str
    size: int
    offset: int
    data: bytes | None


class _Stream:
    """Reads or passes over bytes, counts them, and lets no gzip unpack to more than 100 times its size."""

    def __init__(self, file: BinaryIO, *, packed: bool) -> None:
        self._file = cast(BinaryIO, gzip.GzipFile(fileobj=file)) if packed else file
        self._packed = file if packed else None
        self.offset = 0

    def read(self, n: int) -> bytes:
        """Return the next `n` bytes, fewer only at the end. Raises `Incomplete`."""
        parts: list[bytes] = []
        left = n
        try:
            while left and (part := self._file.read(min(left, STEP))):
                parts.append(part)
                left -= len(part)
                self.offset += len(part)
                self._check_ratio()
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            raise Incomplete(self.offset, f"the gzip stream is damaged or cut ({error})") from error
        return b"".join(parts)

    def skip(self, n: int) -> None:
        """Pass over `n` bytes. Raises `Incomplete` where there are fewer."""
        if self._packed is None and n > BLOCK and self._file.seekable():
            # the last byte is read, because a seek beyond the end says nothing
            self._file.seek(n - 1, 1)
            self.offset += n - 1
            n = 1
        while n:
            got = len(self.read(min(n, STEP)))
            if not got:
                raise Incomplete(self.offset, "it ends within a member")
            n -= got

    def _check_ratio(self) -> None:
        if self._packed is not None and self.offset > GZIP_FREE + GZIP_RATIO * self._packed.tell():
            raise Incomplete(self.offset, f"it unpacks to more than {GZIP_RATIO} times its size")


def members(file: BinaryIO, *, packed: bool, wanted: tuple[str, ...] | None = None) -> Iterator[Member]:
    """Yield the regular files of an archive; links, folders and devices are passed over.

    Args:
        packed: it is compressed with gzip.
        wanted: suffixes of the members whose data is read; None reads all.

    Raises:
        Incomplete: after the members before the damage.
    """
    stream = _Stream(file, packed=packed)
    name: str | None = None
    size: int | None = None
    while True:
        start = stream.offset
        block = stream.read(BLOCK)
        if block == ZEROS and stream.read(BLOCK) == ZEROS:
            return
        info = _header(block, start)
        if info.type in (LONG_NAME, LONG_LINK, PAX, PAX_GLOBAL):
            body = _extra(stream, info, start)
            if info.type == LONG_NAME:
                name = body.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")
            elif info.type == PAX:
                records = _pax(body, start)
                name, size = records.get("path", name), int(records["size"]) if "size" in records else size
            continue
        length = info.size if size is None else size
        if info.type in REGULAR and not info.name.endswith("/"):
            full = name or info.name
            keep = length <= MAX_BYTES and (wanted is None or full.lower().endswith(wanted))
            data = _whole(stream, length) if keep else None
            if data is None:
                stream.skip(length)
            yield Member(full, length, start, data)
            stream.skip(-length % BLOCK)
        elif info.type not in WITHOUT_DATA:
            stream.skip(length + -length % BLOCK)
        name = size = None


def _header(block: bytes, start: int) -> tarfile.TarInfo:
    if len(block) < BLOCK:
        raise Incomplete(start, "it does not end in two blocks of zeros: it is cut")
    if block == ZEROS:
        raise Incomplete(start, "a block of zeros stands alone")
    try:
        info = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except tarfile.HeaderError as error:
        raise Incomplete(start, f"a header is damaged ({error})") from error
    if info.size < 0:
        raise Incomplete(start, "a header is damaged (a negative size)")
    return info


def _extra(stream: _Stream, info: tarfile.TarInfo, start: int) -> bytes:
    if info.size > MAX_HEADER:
        raise Incomplete(start, f"a header of {info.size:,} bytes")
    body = _whole(stream, info.size)
    stream.skip(-info.size % BLOCK)
    return body


def _whole(stream: _Stream, length: int) -> bytes:
    data = stream.read(length)
    if len(data) < length:
        raise Incomplete(stream.offset, "it ends within a member")
    return data


def _pax(body: bytes, start: int) -> dict[str, str]:
    """Read records `LENGTH KEY=VALUE\\n`."""
    records: dict[str, str] = {}
    while body:
        digits, _, _ = body.partition(b" ")
        if not digits.isdigit() or not len(digits) < int(digits) <= len(body):
            raise Incomplete(start, "a pax header is damaged")
        record, body = body[len(digits) + 1 : int(digits)], body[int(digits) :]
        key, _, value = record.removesuffix(b"\n").decode("utf-8", "surrogateescape").partition("=")
        records[key] = value
    if not records.get("size", "0").isdecimal():
        raise Incomplete(start, "a pax header is damaged")
    return records
