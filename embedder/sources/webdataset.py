"""WebDataset shards: tar archives of pictures, or of `.txt`, with `.json`, `.cls` and captions as metadata.

A sample is the members that follow each other under one key: the folders and the base name up to its first dot. Its id
is `SHARD/KEY`, with the archive's own name without folders and suffix, so that other shards and samples, in front or
behind, change no id. Keys are never used as paths, and nothing is unpickled or run.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

from embedder import addresses
from embedder.errors import NothingToDo, UnknownName, UsageError
from embedder.reading import MAX_BYTES
from embedder.records import Failure, Item, Medium
from embedder.sources._rows import BadRow
from embedder.sources._samples import FACTS, Sample, samples
from embedder.sources._shards import is_archive, is_folder_of_shards, is_packed, shards, stem
from embedder.sources._tar import Incomplete
from embedder.sources._types import Types, as_text, convert
from embedder.sources.folder import encoded
from embedder.sourcing import Source, SourceOptions, unreadable

ABSENT = {"image": "no_image", "text": "no_text"}


def accepts(uri: str) -> bool:
    """Say whether `uri` names tar archives, here or at an address, or a folder of nothing else."""
    return (is_archive(uri) and not os.path.isdir(uri)) or is_folder_of_shards(uri)


def open(uri: str, options: SourceOptions) -> Source:
    """Open shards.

    Raises:
        UsageError: none can be opened, or two have one name.
        NothingToDo: no sample has what is asked for; what the samples have is told.
    """
    return WebDataset(uri, options)


class WebDataset:
    """The samples of some archives. Every archive is read twice: for the columns and the count, and for the items."""

    def __init__(self, uri: str, options: SourceOptions) -> None:
        self.root = encoded(uri if addresses.is_address(uri) else os.path.abspath(uri))
        self._shards = shards(uri)
        self._wanted = options.content_column
        self._id_column = options.id_column
        types, has, cut, count = self._look()
        self.medium: Medium = options.media or ("image" if has["image"] or not has["text"] else "text")
        self._check(has)
        found = types.columns()
        if self._id_column and self._id_column not in found:
            raise UnknownName.of("column", self._id_column, found, where=self.root, hint=f"fields: {', '.join(found)}")
        own = {self._id_column, "group"} | ({"caption"} if self.medium == "text" else set())
        self._types = found
        self.columns: Mapping[str, str] = {name: kind for name, kind in found.items() if name not in own}
        self._length = count - cut[self.medium]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[Item | Failure]:
        return self._entries(light=False)

    def _entries(self, *, light: bool) -> Iterator[Item | Failure]:
        for shard in self._shards:
            waiting: Sample | None = None
            for found in self._samples(shard, light=light):
                if waiting is not None and not (isinstance(found, Incomplete) and self._content(waiting) is None):
                    yield self._entry(shard, waiting, light=light)
                waiting = None
                if isinstance(found, Sample):
                    waiting = found
                else:
                    yield self._broken(shard, found)
            if waiting is not None:
                yield self._entry(shard, waiting, light=light)

    def _samples(self, shard: str, *, light: bool) -> Iterator[Sample | Incomplete | Exception]:
        wanted = tuple(f".{name}" for name in FACTS) if light else None
        try:
            with _opened(shard) as file:
                yield from samples(file, packed=is_packed(shard), wanted=wanted)
        except addresses.ERRORS as error:
            yield error

    def _look(self) -> tuple[Types, Counter[str], Counter[str], int]:
        """Read all but the contents.

        Returns:
            the types of the columns; how many samples there are, have an image, a text, and each extension; how many
            were cut off before their image or text; and how many entries there are, failures included.
        """
        types, has, cut, entries = Types(text_cells=False), Counter[str](), Counter[str](), 0
        why = ""
        for shard in self._shards:
            before: Sample | None = None
            for found in self._samples(shard, light=True):
                entries += 1
                if isinstance(found, Sample):
                    before = found
                    self._count(found, types, has)
                    continue
                if isinstance(found, Incomplete) and before is not None:
                    cut["image"] += before.picture(self._wanted) is None
                    cut["text"] += "txt" not in before.members
                why = why or f": {stem(shard)}: {found}"
        if not has["sample"]:
            raise UsageError(
                f"no sample is found in {len(self._shards)} shards{why}", where=self.root,
                hint="check the path and the braces of the pattern",
            )  # fmt: skip
        return types, has, cut, entries

    def _count(self, sample: Sample, types: Types, has: Counter[str]) -> None:
        has.update(["sample", *(f".{name}" for name in sample.members)])
        has["image"] += sample.picture(self._wanted) is not None
        has["text"] += "txt" in sample.members
        facts = sample.facts(text_is_content=False)
        types.see({} if isinstance(facts, BadRow) else facts)

    def _check(self, has: Counter[str]) -> None:
        if not has[self.medium]:
            what = "an image" if self.medium == "image" else "a .txt"
            named = f" called .{self._wanted}" if self._wanted else ""
            extensions = ", ".join(name for name, _ in has.most_common() if name.startswith("."))
            raise NothingToDo(
                f"0 of {has['sample']} samples have {what}{named}", where=self.root, hint=f"they have {extensions}"
            )

    def _content(self, sample: Sample) -> Any:
        return sample.picture(self._wanted) if self.medium == "image" else sample.members.get("txt")

    def _entry(self, shard: str, sample: Sample, *, light: bool) -> Item | Failure:
        id, where = f"{encoded(stem(shard))}/{encoded(sample.key)}", f"{encoded(shard)}#{encoded(sample.key)}"
        content = self._content(sample)
        facts = sample.facts(text_is_content=self.medium == "text")
        wrong = sample.wrong
        if wrong is None and content is None:
            wrong = (ABSENT[self.medium], f"the sample has only .{', .'.join(sample.members)}")
        elif wrong is None and content.size > MAX_BYTES:
            wrong = ("too_large", f"{content.size:,} bytes; the limit is {MAX_BYTES:,}")
        elif wrong is None and isinstance(facts, BadRow):
            wrong = (facts.reason, facts.message)
        if wrong is not None or isinstance(facts, BadRow):
            reason, message = wrong or ("bad_json", "")
            name = f"{id}@{sample.offset}" if reason == "duplicate_key" else id
            return Failure(name, where, "list", reason, "ValueError", message, bytes=content and content.size)
        if self._id_column:
            if facts.get(self._id_column) in (None, ""):
                return Failure(id, where, "list", "no_id", "ValueError", f"field {self._id_column!r} is empty")
            id = as_text(facts[self._id_column])
        return self._item(id, where, content, facts)

    def _item(self, id: str, where: str, content: Any, facts: Mapping[str, Any]) -> Item:
        group = facts.get("group")
        more: dict[str, Any] = {
            "group": None if group is None else as_text(group),
            "columns": {name: convert(facts.get(name), kind) for name, kind in self.columns.items()},
        }
        data = content.data or b""
        if self.medium == "text":
            try:
                return Item(id, "text", where, text=data.decode("utf-8-sig"), **more)
            except UnicodeDecodeError:
                pass
        return Item(id, self.medium, where, data=data, size=len(data), **more)

    def _broken(self, shard: str, error: Exception) -> Failure:
        name, where = encoded(stem(shard)), encoded(shard)
        if isinstance(error, Incomplete):
            message = f"{where}: {error}; what stands before it is kept"
            return Failure(f"{name}@{error.offset}", where, "read", "shard_incomplete", "Incomplete", message)
        if isinstance(error, OSError):
            return unreadable(name, where, error)
        return Failure(name, where, "read", "io", type(error).__name__, f"{error}: {where}")


def _opened(shard: str) -> BinaryIO:
    if addresses.is_address(shard):
        return addresses.open_address(shard)
    import builtins

    return builtins.open(shard, "rb")
