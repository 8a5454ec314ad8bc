"""Files at an address, through fsspec: `s3://`, `gs://`, `https://`, `zip://A::B`, `memory://`, …

The package for a scheme (s3fs, gcsfs, aiohttp, …) is the user's to install; credentials are those that it finds itself.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from typing import Any, BinaryIO, cast

from embedder.errors import UsageError
from embedder.reading import MAX_BYTES, remote_failure, too_large

ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*(://|::)")
ARCHIVES = ("zip", "tar", "libarchive")
TIMES = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")
VERSIONS = ("ETag", "etag", "CRC", "md5Hash", "crc32c", "sha256", "version_id", *TIMES)
# what fsspec's file systems raise where a server, an archive or a name fails them
ERRORS = (OSError, ValueError, KeyError, RuntimeError, EOFError)


def is_address(uri: str) -> bool:
    """Say whether `uri` is an address, and not a path."""
    return ADDRESS.match(uri) is not None


@dataclass(frozen=True)
class Fetch:
    """Reads one file when it is called; two of the same address are equal."""

    uri: str

    def __call__(self) -> bytes:
        """Return the file's bytes.

        Raises:
            Undecodable: stage `read`; reason `missing`, `permission`, `too_large` or `io`.
        """
        try:
            with open_address(self.uri) as file:
                data = file.read(MAX_BYTES + 1)
        except ERRORS as error:
            raise remote_failure(error, self.uri) from error
        if len(data) > MAX_BYTES:
            raise too_large(len(data), self.uri)
        return data


def file_system(uri: str, *, fresh: bool = False) -> tuple[Any, str]:
    """Return fsspec's file system and the path in it; a `fresh` one remembers no listing and no archive's contents.

    Raises:
        UsageError: no such scheme, or its package is not installed; or it cannot be opened.
    """
    if fresh:
        _archive.cache_clear()
    try:
        system, path = _found(uri)
        if fresh:
            type(system).clear_instance_cache()
            system, path = _found(uri)
            system.invalidate_cache()
        return system, path
    except ImportError as error:
        raise UsageError(f"{uri} cannot be read: {error}", hint="install that package beside Permafrost") from error
    except ERRORS as error:
        raise UsageError(f"{uri} cannot be opened: {error}", hint="check the address and the credentials") from error


def _found(uri: str) -> tuple[Any, str]:
    import fsspec

    inner, chained, outer = uri.partition("::")
    scheme, _, path = inner.partition("://")
    if chained and scheme in ARCHIVES:
        return _archive(scheme, outer), path
    return cast(tuple[Any, str], fsspec.core.url_to_fs(uri))


@lru_cache(maxsize=8)
def _archive(scheme: str, outer: str) -> Any:
    """Open an archive once: fsspec would read its directory for every file in it, and close it behind our back."""
    import fsspec

    return fsspec.core.url_to_fs(f"{scheme}://::{outer}")[0]


def open_address(uri: str) -> BinaryIO:
    """Open a file for reading. Raises what its file system raises: see `ERRORS`."""
    system, path = file_system(uri)
    return cast(BinaryIO, system.open(path, "rb"))


def facts(uri: str) -> Mapping[str, Any]:
    """Return what the file system knows of a file. Raises what it raises: see `ERRORS`."""
    system, path = file_system(uri)
    return cast(Mapping[str, Any], system.info(path))


def stamp(found: Mapping[str, Any]) -> int | None:
    """Return the modification time in nanoseconds; else a number made of the etag or checksum; None without either.

    A time in whole seconds beside a checksum says too little, so the checksum comes in.
    """
    told = {name: found[name] for name in VERSIONS if found.get(name) is not None}
    moments = [found[name] for name in TIMES if isinstance(found.get(name), datetime)]
    if len(moments) == len(told) == 1:
        return int(moments[0].timestamp() * 1e6) * 1000
    text = repr(sorted((name, str(value)) for name, value in told.items()))
    return int(hashlib.sha256(text.encode()).hexdigest()[:15], 16) if told else None


def site(uri: str) -> tuple[str, str]:
    """Return the scheme of an address, and the server where the scheme leaves it open."""
    scheme, _, rest = uri.partition("://")
    return scheme.lower(), rest.partition("/")[0].lower() if scheme.lower() in ("http", "https", "ftp", "sftp") else ""


def beside(uri: str, path: str) -> str:
    """Return the address of another `path` of the file system of `uri`; what `zip://x::OUTER` lies in stays."""
    inner, chained, outer = uri.partition("::")
    scheme = inner.partition("://")[0]
    address = path if "://" in path else f"{scheme}://{path.lstrip('/')}"
    return address + chained + outer
