"""The acts that show items: a page of a list, and the content of one, made safe to look at."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lancedb import col, lit

from api.acts.held import Held
from embedder import addresses
from embedder.encoder import ImageTower
from embedder.errors import Undecodable, UnknownName, UsageError
from embedder.reading import read_file
from embedder.transform import ImageTransform
from index import content as kept_content
from index import filters
from index.itself import local_path
from index.live import Live
from index.readers import reading
from index.rowcache import visible
from index.store import Collection
from index.view import matching_keys

MOST_SIDE = 2048
QUALITY = 85
SIDEWAYS = frozenset({5, 6, 7, 8})
ORIENTATION = 0x0112


@dataclass(frozen=True)
class Content:
    """What an item is: bytes, and what they are."""

    data: bytes
    media_type: str


class Showing(Held):
    """Items to look at."""

    def items(
        self, name: str, *, limit: int = 50, offset: int = 0, where: str | Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Return a page of items, oldest version first: `collection total limit offset items:[{id item}]`."""
        collection = self.collection(name)
        with reading(collection):
            table = collection.items
            keys = Live.read(collection).keys if where is None else matching_keys(table, filters.read(where))
            page = [int(key) for key in keys[offset : offset + limit]]
            rows = table.search().where(col("key").isin(page)).to_arrow().to_pylist() if page else []
        found = [{"id": row["id"], "item": visible(row)} for row in sorted(rows, key=lambda row: row["key"])]
        return {"collection": name, "total": len(keys), "limit": limit, "offset": offset, "items": found}

    def content(self, name: str, id: str, *, size: int | None = None) -> Content:
        """Return a text, or a picture that was decoded and written again as JPEG, at most `size` pixels a side.

        Raises:
            UnknownName: no such item, or its file is gone.
            Undecodable: the file is no picture that is read here.
        """
        collection = self.collection(name)
        row = _row(collection, id)
        if str(row["media_type"]).startswith("text"):
            if row["text"] is None:
                raise UnknownName(f"the text of item {id!r} is not stored", where=f"collection {name}")
            return Content(str(row["text"]).encode("utf-8", "replace"), "text/plain; charset=utf-8")
        return Content(self._jpeg(_bytes(collection, row), min(size or MOST_SIDE, MOST_SIDE)), "image/jpeg")

    def _jpeg(self, data: bytes, side: int) -> bytes:
        from PIL import Image

        height, width = _size(data)
        scale = min(1.0, side / max(height, width))
        shape = (max(1, round(height * scale)), max(1, round(width * scale)))
        transform = ImageTransform(*shape, min(shape), (0.0,) * 3, (1.0,) * 3, "bicubic", "squash")
        pixels = self.decoded(data, ImageTower(transform, lambda batch: batch))  # type: ignore[arg-type, return-value]
        out = io.BytesIO()
        Image.fromarray(pixels).save(out, "JPEG", quality=QUALITY)
        return out.getvalue()


def _row(collection: Collection, id: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = collection.items.search().where(col("id") == lit(id)).to_arrow().to_pylist()
    if not rows:
        raise UnknownName(f"no item has the id {id!r}", where=f"collection {collection.name}")
    return rows[0]


def _bytes(collection: Collection, row: Mapping[str, Any]) -> bytes:
    """Read the file of an item. Raises `UnknownName` where it is gone, or was never a file of its own."""
    path = local_path(row["source"] or "")
    path = str(kept_content.file_of(collection, path) or path)
    try:
        if addresses.is_address(path) and not path.startswith("hf:"):
            return addresses.Fetch(path)()
        return read_file(path)[0]
    except Undecodable as error:
        raise UnknownName(
            f"the picture of item {row['id']!r} is not at hand: {error.what}", where=os.path.basename(path),
            hint="bytes that came within a table or an archive are not kept",
        ) from error  # fmt: skip


def _size(data: bytes) -> tuple[int, int]:
    """Return height and width of an upright picture, from its header alone."""
    from PIL import Image

    from embedder.decode.image import BROKEN_EXIF, FORMATS

    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as picture:
            width, height = picture.size
            turned = picture.getexif().get(ORIENTATION) in SIDEWAYS
    except BROKEN_EXIF as error:
        raise Undecodable("not a picture that is read here", stage="decode", reason="not_an_image") from error
    if not width or not height:
        raise UsageError("the picture has no pixels")
    return (width, height) if turned else (height, width)
