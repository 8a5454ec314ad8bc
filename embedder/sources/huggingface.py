"""Hugging Face data sets: `hf:NAME[@REVISION][?split=train&config=C]` from the hub, or `hf:FOLDER`, saved by it.

It needs the package `datasets` (`pip install 'permafrost[datasets]'`). Pictures are taken as the bytes that are stored,
never decoded here; labels that are classes become their names. No code of a data set is ever run.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

from embedder.errors import UnknownName, UsageError
from embedder.records import Failure, Item
from embedder.sources._parquet import dates_as_text, plain
from embedder.sources._records import Records, local_file
from embedder.sources._rows import BadRow, Row
from embedder.sources.folder import encoded
from embedder.sourcing import Source, SourceOptions

PREFIX = "hf:"
OPTIONS = ("split", "config")
BATCH_ROWS = 256


def accepts(uri: str) -> bool:
    """Say whether `uri` begins with `hf:`; `hf://` is an address."""
    return uri.startswith(PREFIX) and not uri.startswith("hf://")


def open(uri: str, options: SourceOptions) -> Source:
    """Open a data set.

    Raises:
        UsageError: `datasets` is not installed; the data set cannot be loaded; or a split must be named.
        NothingToDo: it has no rows.
    """
    return DataSet(_Name.of(uri), options)


@dataclass(frozen=True)
class _Name:
    path: str
    revision: str | None
    split: str | None
    config: str | None

    @classmethod
    def of(cls, uri: str) -> _Name:
        head, _, query = uri.removeprefix(PREFIX).partition("?")
        local = os.path.isdir(head)
        path, at, revision = (head, "", "") if local else head.partition("@")
        chosen = dict(parse_qsl(query, keep_blank_values=True))
        if not path or (at and not revision):
            raise UsageError(f"{uri!r} names no data set", hint="hf:NAME[@REVISION][?split=train&config=C]")
        for option in chosen:
            if option not in OPTIONS:
                raise UnknownName.of("option", option, OPTIONS, where=uri, hint=f"known: {', '.join(OPTIONS)}")
        return cls(
            os.path.abspath(path) if local else path, revision or None, chosen.get("split"), chosen.get("config")
        )

    @property
    def root(self) -> str:
        """The name without the revision: a newer one is the same source."""
        chosen = [f"{option}={value}" for option in OPTIONS if (value := getattr(self, option))]
        return PREFIX + encoded(self.path) + ("?" + "&".join(chosen) if chosen else "")


class DataSet(Records):
    """The rows of one split."""

    def __init__(self, name: _Name, options: SourceOptions) -> None:
        self.root, self.name = name.root, os.path.basename(name.path)
        self._rows = _split(_loaded(name), name)
        self._classes = {
            column: list(feature.names)
            for column, feature in (self._rows.features or {}).items()
            if type(feature).__name__ == "ClassLabel"
        }
        self._settle(options)

    def _numbered(self) -> Iterator[tuple[int, Row]]:
        number = 0
        for table in self._rows.with_format("arrow").iter(batch_size=BATCH_ROWS):
            for batch in table.combine_chunks().to_batches():
                for row in plain(dates_as_text(batch)):
                    number += 1
                    yield number, row if isinstance(row, BadRow) else self._named(row)

    def _named(self, row: dict[str, Any]) -> dict[str, Any]:
        for column, names in self._classes.items():
            at = row.get(column)
            # -1 is how a split without labels says so
            row[column] = names[at] if isinstance(at, int) and 0 <= at < len(names) else None
        return row

    def _file(self, content: str, facts: dict[str, Any]) -> Item | Failure:
        return local_file(content, facts)


def _loaded(name: _Name) -> Any:
    try:
        import datasets
    except ImportError as error:
        raise UsageError(
            "hf: needs the package datasets, which is not installed", hint="pip install 'permafrost[datasets]'"
        ) from error
    shown = datasets.is_progress_bar_enabled()
    datasets.disable_progress_bars()
    try:
        if os.path.isdir(name.path):
            return datasets.load_from_disk(name.path)
        return datasets.load_dataset(name.path, name.config, split=name.split, revision=name.revision)
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UsageError(
            f"the data set {name.path} cannot be loaded: {type(error).__name__}: {reason}", where=name.root,
            hint="check the name, the split and the config; a folder must have been written by save_to_disk",
        ) from error  # fmt: skip
    finally:
        if shown:
            datasets.enable_progress_bars()


def _split(found: Any, name: _Name) -> Any:
    """Return the split that is meant: the one that is named, or the only one."""
    if not isinstance(found, dict):
        return found
    if name.split is None and len(found) == 1:
        return next(iter(found.values()))
    if name.split is None:
        raise UsageError(
            f"the data set has the splits {', '.join(found)}",
            where=name.root,
            hint=f"say which: ?split={next(iter(found))}",
        )
    if name.split not in found:
        raise UnknownName.of("split", name.split, found, where=name.root, hint=f"splits: {', '.join(found)}")
    return found[name.split]
