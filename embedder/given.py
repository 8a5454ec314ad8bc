"""What a Python program gives: a list, a function that makes an iterable, or an iterator, of pictures or texts.

Each value is a dictionary (whose keys are the columns), `(id, content)` or `(id, content, dictionary)`, or the content
alone. A content is a text, a path, the bytes of a picture's file, a PIL image or an array of pixels; a `pathlib.Path`
is always a file. The types of the columns are those of all values; of an iterator, which can be read only once, those
of its first thousand, and a later value that does not fit them is a failure.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import chain, islice
from typing import Any

import numpy as np
from PIL import Image

from embedder.errors import UsageError
from embedder.records import Failure, Item
from embedder.sources._records import FileName, Records, local_file
from embedder.sources._rows import BadRow, Row
from embedder.sources._types import Types, wider
from embedder.sourcing import SourceOptions

PEEK = 1000
PNG = b"\x89PNG\r\n\x1a\n"
CONTENT, ID = "content", "id"
FORMS = "give a list of dictionaries, of (id, content), or of texts, paths, bytes or PIL images"

Values = Iterable[Any] | Callable[[], Iterable[Any]]


class Given(Records):
    """A source of values from memory; it can be read again unless it was given an iterator."""

    root, name = "python", "what was given"

    def __init__(self, values: Values, options: SourceOptions) -> None:
        """Look at the values.

        Raises:
            UsageError: they are of no form that is read here, or no column is plainly the content.
            NothingToDo: there are none.
        """
        if isinstance(values, (str, bytes, Mapping, Image.Image, np.ndarray)):
            raise UsageError(f"a {type(values).__name__} is no source", hint=FORMS)
        if hasattr(values, "iterrows"):
            raise UsageError("iterating over a data frame gives its columns", hint='give frame.to_dict("records")')
        self._make = values if callable(values) else lambda: values
        self._once: Iterator[Any] | None = None
        if isinstance(values, Iterator):
            self._once = iter(values)
            self._head = list(islice(self._once, PEEK))
            self._make = lambda: self._head
        self._looking = True
        first = next(iter(self._make()), None)
        plain = first is not None and not isinstance(first, Mapping)
        self._settle(replace(options, content_column=options.content_column or CONTENT) if plain else options)
        self._looking = False

    def __len__(self) -> int:
        if self._once is not None:
            raise TypeError("an iterator does not say how many values it has")
        return self._length

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        values: Iterable[Any] = self._make()
        if self._once is not None and not self._looking:
            values = chain(self._head, (_Late(value) for value in self._once))
            self._make = _used_up
        for number, value in enumerate(values, 1):
            try:
                row = _row(value.value if isinstance(value, _Late) else value, light=self._looking)
            except (TypeError, ValueError, OSError) as error:
                yield number, BadRow("bad_value", str(error))
                continue
            misfit = self._misfit(row) if isinstance(value, _Late) else None
            yield number, row if misfit is None else BadRow("bad_value", misfit)

    def _misfit(self, row: Mapping[str, Any]) -> str | None:
        types = Types(text_cells=False)
        types.see({name: value for name, value in row.items() if name in self.columns})
        for name, kind in types.columns().items():
            if row[name] is not None and wider(self.columns[name], kind) != self.columns[name]:
                return f"column {name!r} holds {self.columns[name]}, not {kind}"
        return None

    def _file(self, content: str, facts: dict[str, Any]) -> Item | Failure:
        return local_file(os.path.abspath(content), facts)


class _Late:
    """A value of an iterator that came after the ones that were looked at."""

    def __init__(self, value: Any) -> None:
        self.value = value


def _used_up() -> Iterable[Any]:
    raise UsageError(
        "an iterator can be read only once",
        hint="give a list, or a function that makes the iterable, for a second time",
    )


def _row(value: Any, *, light: bool) -> dict[str, Any]:
    """Return a value as a row; `light`: pictures are not written out."""
    found: Mapping[Any, Any]
    if isinstance(value, Mapping):
        found = value
    elif isinstance(value, tuple) and len(value) in (2, 3):
        found = {**(value[2] if len(value) == 3 else {}), ID: value[0], CONTENT: value[1]}
    elif isinstance(value, Sequence) and not isinstance(value, (str, bytes)):
        raise ValueError(f"a {type(value).__name__} of {len(value)} is neither a value nor (id, content)")
    else:
        found = {CONTENT: value}
    return {str(name): _cell(cell, light=light) for name, cell in found.items()}


def _cell(cell: Any, *, light: bool) -> Any:
    if isinstance(cell, os.PathLike):
        return FileName(os.fspath(cell))
    if isinstance(cell, np.generic):
        return cell.item()
    if isinstance(cell, (bytearray, memoryview)):
        return bytes(cell)
    pixels = isinstance(cell, np.ndarray) and cell.dtype == np.uint8 and cell.ndim in (2, 3)
    if isinstance(cell, Image.Image) or pixels:
        return PNG if light else _png(cell)
    return cell.tolist() if isinstance(cell, np.ndarray) else cell


def _png(picture: Any) -> bytes:
    """Return a picture as the bytes of a PNG, which are the same for the same pixels."""
    image = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    if image.mode not in ("1", "L", "LA", "P", "RGB", "RGBA", "I", "I;16"):
        image = image.convert("RGB")
    out = io.BytesIO()
    image.save(out, format="PNG", compress_level=1)
    return out.getvalue()
