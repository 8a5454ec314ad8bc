"""Tables and folders of pictures or texts at an address that fsspec reads: `s3://`, `gs://`, `https://`, `zip://`, ….

A table is copied to a temporary file when it is opened; relative paths in it are resolved against its address. The
files of a folder are fetched one by one when they are needed: one whose size and time, or etag, are as they were is
unchanged. Ids are those of a local folder: paths below the address.
"""

from __future__ import annotations

import posixpath
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from weakref import finalize

from embedder import addresses
from embedder.addresses import Fetch
from embedder.errors import NothingToDo, UsageError
from embedder.records import Failure, Item, Medium
from embedder.sources._shards import is_archive
from embedder.sources.folder import TEXT_SUFFIXES, encoded, has_splits, labels
from embedder.sources.table import READERS, Table
from embedder.sourcing import IMAGE_SUFFIXES, Source, SourceOptions


def accepts(uri: str) -> bool:
    """Say whether `uri` is an address, but not of tar archives."""
    return addresses.is_address(uri) and not is_archive(uri.partition("::")[0])


def open(uri: str, options: SourceOptions) -> Source:
    """Open a table or a folder.

    Raises:
        UsageError: nothing is there, or its file system cannot be reached; or as for a local table.
        NothingToDo: it has no rows, or no files of the medium.
    """
    suffix = posixpath.splitext(uri.partition("::")[0])[1].lower()
    return RemoteTable(uri, suffix, options) if suffix in READERS else RemoteFolder(uri, options)


class RemoteTable(Table):
    """A copy of a table; its items are told by the address."""

    def __init__(self, uri: str, suffix: str, options: SourceOptions) -> None:
        folder = tempfile.mkdtemp(prefix="permafrost-")
        self._end = finalize(self, shutil.rmtree, folder, ignore_errors=True)
        copy = Path(folder) / f"{posixpath.basename(posixpath.splitext(uri.partition('::')[0])[0]) or 'table'}{suffix}"
        try:
            with addresses.open_address(uri) as source, copy.open("wb") as out:
                shutil.copyfileobj(source, out, 1 << 20)
        except addresses.ERRORS as error:
            raise _unreachable(uri, error) from error
        self.uri = uri
        super().__init__(copy, options)
        self.root = encoded(uri)

    def _file(self, content: str, facts: dict[str, Any]) -> Item | Failure:
        inner, chained, outer = self.uri.partition("::")
        if not addresses.is_address(content):
            address = posixpath.join(posixpath.dirname(inner), content) + chained + outer
        elif addresses.site(content) == addresses.site(self.uri):
            address = content
        else:
            # what a table names must not send us to a server that its user did not
            message = f"it is not where the table is; download it first: {content}"
            return Failure(facts["id"], encoded(content), "read", "remote", "ValueError", message)
        return Item(source=encoded(address), remote=Fetch(address), **facts)


class RemoteFolder:
    """The files of one medium below an address, sorted by path."""

    def __init__(self, uri: str, options: SourceOptions) -> None:
        if options.content_column or options.id_column:
            raise UsageError(
                "a folder has no columns", where=uri, hint="--content-column and --id-column are for tables"
            )
        self.root = encoded(uri)
        self._levels = options.label_levels
        found = self._listed(uri)
        suffixes = {posixpath.splitext(path)[1].lower() for path in found}
        texts = not suffixes & IMAGE_SUFFIXES and bool(suffixes & TEXT_SUFFIXES)
        self.medium: Medium = options.media or ("text" if texts else "image")
        wanted = IMAGE_SUFFIXES if self.medium == "image" else TEXT_SUFFIXES
        self._files = {path: f for path, f in found.items() if posixpath.splitext(path)[1].lower() in wanted}
        if not self._files:
            raise NothingToDo(f"none of the {len(found)} files there is of the medium {self.medium}", where=self.root)
        self._splits = has_splits({path.split("/")[0] for path in found if "/" in path})
        self.columns: Mapping[str, str] = {"label": "string", **({"split": "string"} if self._splits else {})}

    def _listed(self, uri: str) -> dict[str, Mapping[str, Any]]:
        """Return what is known of each file, by its path below the address; hidden files are passed over."""
        system, base = addresses.file_system(uri, fresh=True)
        try:
            found: Mapping[str, Mapping[str, Any]] = system.find(base, detail=True)
        except addresses.ERRORS as error:
            raise _unreachable(uri, error) from error
        below = {path: path.strip("/").removeprefix(base.strip("/")).lstrip("/") for path in found}
        kept = {
            name: {**found[path], "address": addresses.beside(uri, path)} for path, name in below.items()
            if name and not any(part.startswith(".") for part in name.split("/"))
        }  # fmt: skip
        if not kept:
            raise UsageError(f"there is nothing at {uri!r}", where=self.root, hint="check the address")
        return dict(sorted(kept.items()))

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Item | Failure]:
        for path, found in self._files.items():
            id, address = encoded(path), str(found["address"])
            yield Item(
                id, self.medium, encoded(address), size=found.get("size"), mtime_ns=addresses.stamp(found),
                columns=labels(id.split("/")[:-1], self._levels, splits=self._splits), remote=Fetch(address),
            )  # fmt: skip


def _unreachable(uri: str, error: Exception) -> UsageError:
    return UsageError(
        f"{uri} cannot be read: {type(error).__name__}: {error}", where=uri,
        hint="check the address, the network and the credentials",
    )  # fmt: skip
