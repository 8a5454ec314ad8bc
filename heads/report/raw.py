"""Items as they were before any encoder: small pictures and words, for the controls and for the page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from embedder.fetching import fetched
from embedder.pool import DecodePool
from embedder.records import Decoded, Item, Keys, Medium, Pixels
from embedder.transform import ImageTransform
from index.itself import item_of, medium_of
from index.store import Collection, scan

COLUMNS = ["key", "id", "source", "media_type", "text", "group", "size", "mtime_ns"]
SIDE = 64
SMALL = ImageTransform(SIDE, SIDE, SIDE, (0, 0, 0), (1, 1, 1), "box", "pad")


def rows(collection: Collection, keys: Keys) -> list[dict[str, Any]]:
    """Return the rows of `items` behind keys, in their order."""
    table = scan(collection.items, COLUMNS)
    known = table["key"].to_numpy()
    order = np.argsort(known)
    found: list[dict[str, Any]] = table.take(order[np.searchsorted(known[order], keys)]).to_pylist()
    return found


def medium(row: dict[str, Any]) -> Medium:
    """Return the medium of a row."""
    return medium_of(row)


def pictures(
    collection: Collection, rows: Sequence[dict[str, Any]], workers: int | None = None
) -> tuple[Pixels, NDArray[np.bool_]]:
    """Decode pictures again, padded with white to a square of 64 x 64 pixels.

    Returns:
        (n, 64, 64, 3) uint8, and (n,) which of them could be read; the others are black.
    """
    images = np.zeros((len(rows), SIDE, SIDE, 3), dtype=np.uint8)
    good = np.zeros(len(rows), dtype=bool)
    places: list[int] = []
    with DecodePool(workers or os.cpu_count() or 1) as pool:
        for k, one in enumerate(pool.map(_readable(collection, rows, places), SMALL)):
            if isinstance(one, Decoded):
                images[places[k]], good[places[k]] = one.value, True
    return images, good


def _readable(collection: Collection, rows: Sequence[dict[str, Any]], places: list[int]) -> Iterator[Item]:
    """Yield the items that are still there, remote ones with their bytes, and note the place of each in `rows`."""
    found = enumerate(item_of(row, collection) for row in rows)
    known = [(at, item) for at, item in found if isinstance(item, Item)]
    for (at, _), item in zip(known, fetched(item for _, item in known), strict=True):
        if isinstance(item, Item):
            places.append(at)
            yield item
