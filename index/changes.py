"""What of a source is stored as it is now: told by size and time, or by hashing, for a window of items at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from embedder.errors import Undecodable
from embedder.reading import read_file
from embedder.records import Item
from index.known import Facts, Mask, Rows, digest, packed

READERS = 4


def unchanged(
    facts: Facts, items: Sequence[Item], rows: Rows, *, rehash: bool = False
) -> tuple[Mask, list[Item], list[int]]:
    """Say which items hold the content that is stored of them.

    A file of the same size and time is taken as unchanged, unopened; one of another size or time is hashed, and so is
    every file with `rehash`. Texts, and bytes without a time, are hashed where they are.

    Args:
        rows: the row (n,) of each item in `facts`, -1 where there is none.

    Returns:
        a mask (n,), the items, and the positions of the files that were hashed: those have size and time as read.
    """
    same, found = np.zeros(len(items), dtype=bool), list(items)
    stored = np.flatnonzero(rows >= 0).tolist()
    inside = [i for i in stored if items[i].path is None and _is_here(items[i])]
    _compare(facts, rows, inside, [_digest(items[i]) for i in inside], same)
    held = set(inside)
    outside = [i for i in stored if i not in held] if held else stored
    hashed: list[int] = []
    if outside:
        at = np.array(outside)
        sizes, mtimes = [items[i].size for i in outside], [items[i].mtime_ns for i in outside]
        same[at] = facts.same_files(rows[at], sizes, mtimes)
        same[[i for i, size, mtime in zip(outside, sizes, mtimes, strict=True) if size is None or mtime is None]] = (
            False
        )
        hashed = [i for i in (outside if rehash else at[~same[at]].tolist()) if items[i].path]
        _hash_files(facts, rows, hashed, found, same)
    return same, found, hashed


def _is_here(item: Item) -> bool:
    return item.text is not None or (item.data is not None and (item.mtime_ns is None or item.size is None))


def _digest(item: Item) -> bytes:
    if item.text is None:
        return digest(item.data or b"", item.medium)
    try:
        return hashlib.sha256(item.text.encode()).digest()
    except UnicodeEncodeError:
        # half of a surrogate pair, which decoding will name
        return b""


def _hash_files(facts: Facts, rows: Rows, wanted: Sequence[int], items: list[Item], same: Mask) -> None:
    """Compare files by content; one that cannot be read counts as changed, so that decoding names the reason."""
    if not wanted:
        return
    with ThreadPoolExecutor(READERS, thread_name_prefix="hash") as pool:
        read = list(pool.map(_read, [items[i] for i in wanted]))
    for i, (_, item) in zip(wanted, read, strict=True):
        items[i], same[i] = item, False
    _compare(facts, rows, wanted, [data for data, _ in read], same)


def _read(item: Item) -> tuple[bytes, Item]:
    try:
        data, size, mtime_ns = read_file(str(item.path))
    except Undecodable:
        return b"", item
    return digest(data, item.medium), replace(item, size=size, mtime_ns=mtime_ns)


def _compare(facts: Facts, rows: Rows, at: Sequence[int], digests: Sequence[bytes], same: Mask) -> None:
    """Compare the items at some positions with what is stored of them; an empty digest is that of none."""
    if not all(digests):
        at = [i for i, one in zip(at, digests, strict=True) if one]
        digests = [one for one in digests if one]
    if at:
        same[at] = facts.same_content(rows[at], packed(digests))
