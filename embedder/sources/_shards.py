"""Which tar archives a name means: one, a folder of them, a brace pattern `{0000..0009}` or `{a,b}`, or `*` and `?`."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterator

from embedder import addresses
from embedder.errors import UsageError
from embedder.sourcing import IMAGE_SUFFIXES

ARCHIVE = re.compile(r"\.(tar|tar\.gz|tgz)$", re.IGNORECASE)
BRACES = re.compile(r"\{([^{}]*)\}")
RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
MOST = 100_000


def is_archive(uri: str) -> bool:
    """Say whether a name ends like that of a tar archive."""
    return ARCHIVE.search(uri) is not None


def is_packed(uri: str) -> bool:
    """Say whether an archive's name says that it is compressed with gzip."""
    return uri.lower().endswith(("gz", "tgz"))


def is_folder_of_shards(path: str) -> bool:
    """Say whether a local folder holds archives, and beside them no folder, picture or text."""
    try:
        with os.scandir(path) as found:
            names = [(e.name, e.is_dir()) for e in found if not e.name.startswith(".")]
    except (OSError, ValueError):
        return False
    other = any(folder or os.path.splitext(name)[1].lower() in (*IMAGE_SUFFIXES, ".txt") for name, folder in names)
    return not other and any(is_archive(name) for name, _ in names)


def stem(uri: str) -> str:
    """Return the name of an archive without its folders and suffix."""
    return ARCHIVE.sub("", uri.rstrip("/").rsplit("/", 1)[-1])


def shards(uri: str) -> list[str]:
    """Return the archives that a name means, in the order of the pattern, or sorted.

    Raises:
        UsageError: a pattern of more than 100,000 names, or two archives of one name.
    """
    if not addresses.is_address(uri) and os.path.lexists(uri):
        found = [uri] if not os.path.isdir(uri) else [e.path for e in os.scandir(uri) if is_archive(e.name)]
        found = sorted(found, key=os.fsencode)
    else:
        found = [path for name in _spelled_out(uri, uri) for path in _matching(name)]
    twice = sorted({stem(one) for one in found if [stem(other) for other in found].count(stem(one)) > 1})[:3]
    if twice:
        raise UsageError(
            f"two shards are called {', '.join(twice)}", where=uri,
            hint="an id begins with its shard's name: embed them one by one, with --prefix",
        )  # fmt: skip
    return found


def _spelled_out(pattern: str, whole: str) -> list[str]:
    found = BRACES.search(pattern)
    if found is None:
        return [pattern]
    choices = list(_choices(found[1], whole))
    rests = _spelled_out(pattern[found.end() :], whole)
    if len(choices) * len(rests) > MOST:
        raise UsageError(f"{whole} means more than {MOST:,} shards", hint="check the braces")
    return [pattern[: found.start()] + choice + rest for choice in choices for rest in rests]


def _choices(inner: str, whole: str) -> Iterator[str]:
    numbers = RANGE.fullmatch(inner)
    if numbers is None:
        yield from inner.split(",")
        return
    first, last = int(numbers[1]), int(numbers[2])
    if last < first or last - first >= MOST:
        raise UsageError(f"{{{inner}}} is no range of at most {MOST:,} numbers", where=whole, hint="check the braces")
    for number in range(first, last + 1):
        yield str(number).zfill(len(numbers[1]))


def _matching(name: str) -> list[str]:
    """Return what `*` and `?` in the last part of a name find; a name without them as it is."""
    if not any(mark in name.rsplit("/", 1)[-1] for mark in "*?"):
        return [name]
    if not addresses.is_address(name):
        return sorted((p for p in glob.glob(name) if is_archive(p)), key=os.fsencode)
    system, path = addresses.file_system(name)
    folder, _, last = path.rpartition("/")
    found = [p for p in system.ls(folder, detail=False) if fnmatch.fnmatchcase(p.rstrip("/").rsplit("/", 1)[-1], last)]
    return [addresses.beside(name, p) for p in sorted(found) if is_archive(p)]
