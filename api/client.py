"""The Python door: stores, collections, encoders and heads, over the same acts as the command line and HTTP."""

from __future__ import annotations

import io
import os
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple, TypeGuard, TypeVar

import numpy as np
from numpy.typing import NDArray

from api.acts.moving import Declared
from api.answers import Hits, Predictions, Record, Report
from api.living import Living
from api.remote import RemoteService
from api.service import Service
from api.settings import read_settings
from embedder.errors import UnknownName, UsageError
from embedder.given import Values
from embedder.records import FloatMatrix
from embedder.space import Space
from embedder.together import load_encoders
from index.bringing import Asked
from index.exporting import ExportOptions
from index.selection import IngestOptions

INGEST = frozenset(f.name for f in fields(IngestOptions)) - {"workers"}
DECLARED = frozenset(f.name for f in fields(Declared))
T = TypeVar("T")
Where = str | Mapping[str, Any] | None
REFINE = ("group_by", "unique", "diversity", "min_score", "columns")


def open_store(
    path: str | os.PathLike[str],
    *,
    device: str | None = None,
    runtime: str | None = None,
    workers: int | None = None,
    api_key: str | None = None,
    timeout_s: float | None = None,
) -> Store:
    """Open a store, which is made by the first `embed`; or one behind a service, by its address.

    Args:
        path: a folder, or such as `http://host:8765`.
        device, runtime, workers: how encoders run here; a service has its own.
        api_key, timeout_s: for a service: its key, and how long one answer may take.

    Raises:
        UsageError: an address that is none, or a setting that is of no use there.
    """
    uri = os.fspath(path)
    here = {"device": device, "runtime": runtime, "workers": workers}
    there = {"api_key": api_key, "timeout_s": timeout_s}
    served = uri.startswith(("http://", "https://"))
    if wrong := [name for name, value in (here if served else there).items() if value is not None]:
        what = f"a store {'behind a service' if served else 'in a folder'} takes no {wrong[0]}"
        raise UsageError(what, hint=f"it takes {', '.join(there if served else here)}")
    if served:
        return Store(RemoteService(uri, api_key=api_key, timeout_s=timeout_s), uri)
    return Store(Service(read_settings(store=uri, **here)), uri)


class Store:
    """A folder of collections."""

    def __init__(self, service: Service | RemoteService, place: str) -> None:
        self._service, self._place = service, place
        self._end = weakref.finalize(self, service.close)

    def collection(self, name: str) -> Collection:
        """Return a collection by name; it need not exist before the first `embed`."""
        return Collection(self, name)

    def ls(self) -> list[Record]:
        """Return every collection with its items, Spaces and heads."""
        return [Record(row) for row in self._service.ls()["collections"]]

    def backup(self, dest: str | os.PathLike[str], *, collections: Sequence[str] = ()) -> Record:
        """Back collections (none: all) up into a new folder, with checksums and root hashes."""
        return Record(self._service.backup(list(collections), os.fspath(dest)))

    def check_backup(self, source: str | os.PathLike[str]) -> Record:
        """Compare every file of a backup with its checksum. Raises `Damaged`, which names the first that differs."""
        return Record(self._service.check_backup(os.fspath(source)))

    def restore(self, collection: str, source: str | os.PathLike[str], *, name: str | None = None) -> Record:
        """Put a collection of a backup into this store, under its own name or another."""
        return Record(self._service.restore_backup(collection, os.fspath(source), into=name))

    def doctor(self, *, mend: bool = False) -> Record:
        """Check the installation, the machine and the store; with `mend` put right what can be."""
        return Record(self._service.doctor(mend=mend))

    def close(self) -> None:
        """End the worker processes; this also happens when the store is no longer used."""
        self._end()

    def __repr__(self) -> str:
        return f"Store({self._place!r})"


class Features(NamedTuple):
    """`X` (n, dim) float32; `y` (n,) the label's values, or a dictionary of the columns; `ids` (n,)."""

    X: FloatMatrix
    y: Any
    ids: NDArray[Any]


class Collection(Living):
    """Named items with ids, metadata, vectors and heads."""

    def __init__(self, store: Store, name: str) -> None:
        # held, because a store that nobody holds is closed
        self._store, self._service, self.name = store, store._service, name

    def embed(
        self, source: str | os.PathLike[str] | Values, encoder: str | Sequence[str] = (), **options: Any
    ) -> Record:
        """Embed a source; what is unchanged is not embedded again.

        Args:
            source: a folder, a table, shards, an address, or the collection itself, as for `permafrost embed`; or a
                list of dictionaries, of `(id, content)`, or of texts, paths, bytes or PIL images; or a function that
                makes such an iterable; or an iterator, which can be read once.
            encoder: one name or several; without one the default Space's, or the setting's.
            options: as the flags of `permafrost embed`: `media`, `content_column`, `where`, `limit`, `prune`, …

        Returns:
            the run: `found`, `embedded`, `unchanged`, `failed`, `failures`, `seconds`, …
        """
        ingest = {name: options.pop(name) for name in INGEST & set(options)}
        encoders = [encoder] if isinstance(encoder, str) else list(encoder)
        known = ("media", "content_column", "id_column", "label_levels", "chunk", "max_failure_rate", "watch")
        if unknown := [name for name in options if name not in known]:
            raise UsageError(f"embed takes no {unknown[0]!r}", hint=f"it takes {', '.join(sorted([*INGEST, *known]))}")
        given = os.fspath(source) if isinstance(source, os.PathLike) else source
        run = self._service.embed(given, self.name, encoders=encoders, options=IngestOptions(**ingest), **options)
        return Record(run)

    def search(
        self, text: str | Sequence[str] | None = None, *, image: Any = None, vector: Any = None, id: str | None = None,
        like: str | Sequence[str] = (), unlike: str | Sequence[str] = (), where: Where = None, k: int | None = None,
        space: str | None = None, exact: bool = False, hybrid: bool = False, **refine: Any,
    ) -> Any:  # fmt: skip
        """Find the nearest items of one of: a text, a picture, a vector, an id, or ids that are liked and not liked.

        Args:
            text: words; or a list of texts, whose `Hits` come as a list, found in one pass.
            image: a path, bytes, a PIL image or an array.
            like, unlike: ids to be near to, and away from.
            k: how many; 10, or all with `min_score`.
            hybrid: join the nearest with a full-text search of the words.
            refine: `group_by`, `unique`, `diversity`, `min_score`, `columns`, as for `permafrost search`.
        """
        if unknown := [name for name in refine if name not in REFINE]:
            raise UnknownName.of("option of search", unknown[0], REFINE, hint=f"it also takes {', '.join(REFINE)}")
        asked = {"where": where, "k": k, "space": space, "exact": exact, "hybrid": hybrid, **refine}
        one = {"image": _picture(image), "vector": vector, "id": id, "like": _ids(like), "unlike": _ids(unlike)}
        if text is None or isinstance(text, str):
            return Hits(self._service.search(self.name, {**one, "text": text}, **asked))
        queries = [{**one, "text": words} for words in text]
        return [Hits(found) for found in self._service.search_many(self.name, queries, **asked)["results"]]

    def duplicates(
        self, threshold: float = 0.97, *, space: str | None = None, where: Where = None, exact: bool = False
    ) -> Record:
        """Find copies and near-duplicates: `groups` of `keep extra scores same_content`; nothing is deleted."""
        return Record(self._service.duplicates(self.name, threshold=threshold, space=space, where=where, exact=exact))

    def features(
        self, label: str | None = None, *, columns: Sequence[str] = (), where: Where = None, space: str | None = None
    ) -> Features:
        """Return stored vectors, ready for scikit-learn: `X, y, ids`.

        With `label`, only the items that have one; with `columns`, `y` holds them by name; with neither, `y` is None.
        """
        if label is not None and columns:
            raise UsageError("features takes a label or columns, not both")
        wanted = [label] if label is not None else list(columns)
        found = self._service.features(self.name, columns=wanted, where=where, space=space)
        X, ids = found["X"], np.asarray(found["ids"], dtype=object)
        if label is None:
            return Features(X, dict(found["columns"]) if columns else None, ids)
        values = found["columns"][label]
        kept = np.array([value is not None for value in values], dtype=bool)
        return Features(X[kept], np.array([value for value in values if value is not None]), ids[kept])

    def train(self, label: str, kind: str = "linear", **options: Any) -> Head:
        """Train a head on stored vectors; options as the flags of `permafrost train`."""
        trained = self._service.train(self.name, label=label, kind=kind, **options)
        return Head(self, Record(trained))

    def report(self, label: str, encoders: str | Sequence[str] = (), **options: Any) -> Report:
        """Make the transfer report: should one transfer at all, from what, frozen or not?

        Args:
            encoders: names or Spaces; what is missing is embedded first. None means all that are here.
            options: as the flags of `permafrost report`: `reference`, `target`, `human`, `delta`, `layers`, `controls`,
                `group`, `where`, `min_class_size`, `html`, `seed`.
        """
        return self._report(self._service.report(self.name, label=label, encoders=_ids(encoders), **options))

    def reports(self) -> list[Record]:
        """Return the reports that were made, the newest first: `report label created seed items verdicts`."""
        return [Record(one) for one in self._service.reports(self.name)["reports"]]

    def open_report(self, number: int) -> Report:
        """Open a report that was made, by its number."""
        return self._report(self._service.report_document(self.name, number))

    def _report(self, made: Mapping[str, Any]) -> Report:
        return Report(made, partial(self._service.report_html, self.name, made["report"]))

    def finetune(self, label: str, encoder: str, **options: Any) -> Record:
        """Tune a frozen encoder (a name, or its Space here), embed all items with it, and say what was gained on
        held-out ones; options as the flags of `permafrost finetune`, `max_minutes` is called `minutes`."""
        return Record(self._service.finetune(self.name, label=label, encoder=encoder, **options))

    def head(self, name: str) -> Head:
        """Open a head by `NAME` or `NAME@VERSION`."""
        return Head(self, Record(self._service.head(self.name, name)))

    def classify(
        self, inputs: Sequence[Any], labels: Sequence[str], *, ids: Sequence[str] = (), templates: Sequence[str] = (),
        space: str | None = None, top_k: int | None = None,
    ) -> Predictions:  # fmt: skip
        """Give each input the label that it is most like, by an encoder that reads texts too (zero-shot).

        Args:
            templates: texts with `{}` where a label goes, such as "a photo of a {}".
        """
        if isinstance(inputs, (str, bytes)) or isinstance(labels, str):
            raise UsageError("classify takes lists, not one value", hint="write classify([value], ['cat', 'dog'])")
        words = iter(self._service.inputs_of(self.name, [os.fspath(v) for v in inputs if _is_word(v)], space))
        asked = [next(words) if _is_word(value) else {"image": _picture(value)} for value in inputs]
        asked += [{"id": one} for one in ids]
        found = self._service.classify_by_name(
            asked, labels, collection=self.name, templates=templates, space=space, top_k=top_k
        )
        return Predictions(found)

    def index(self, *, space: str | None = None, **targets: Any) -> Record:
        """Build an index; targets: `kind`, `recall`, `memory` (bytes), `latency_ms`."""
        return Record(self._service.index(self.name, space=space, **targets))

    def info(self) -> Record:
        """Return all about the collection."""
        return Record(self._service.info(self.name))

    def verify(self, *, mend: bool = False, sample: int = 32, seed: int = 0) -> Record:
        """Check every row and file against its checksum."""
        return Record(self._service.verify(self.name, mend=mend, sample=sample, seed=seed))

    def delete(self, *, ids: Sequence[str] = (), where: Where = None) -> int:
        """Delete items by id or by filter and return how many there were."""
        chosen = [ids] if isinstance(ids, str) else list(ids)
        return int(self._service.delete(self.name, ids=chosen, where=where)["deleted"])

    def export(self, to: str | os.PathLike[str], *, space: str | None = None, **options: Any) -> Record:
        """Write items and vectors to a new folder; options: `format`, `where`, `columns`, `vectors`, `rows`, `dtype`,
        `overwrite`. Returns the manifest."""
        asked = _of(ExportOptions, options, "export")
        return Record(self._service.export(self.name, os.fspath(to), space=space, options=asked))

    def import_(self, source: str | os.PathLike[str], *, max_failure_rate: float = 0.01, **options: Any) -> Record:
        """Store ready vectors of a declared Space; options as the flags of `permafrost import`."""
        said = Declared(**{name: options.pop(name) for name in DECLARED & set(options)})
        asked = _of(Asked, options, "import_", also=DECLARED)
        given = os.fspath(source)
        return Record(
            self._service.import_(given, self.name, asked=asked, said=said, max_failure_rate=max_failure_rate)
        )

    def reembed(self, encoder: str | None = None, *, rollback: bool = False, **options: Any) -> Record:
        """Embed all items with another encoder, compare, and swap the alias `default`; or swap it back.

        Args:
            options: `alias`, and but for a rollback `keep`, `min_overlap`, `allow_missing`, `seed`, `options`.

        Raises:
            Refused: the alias was not swapped; `.result` has what was measured.
        """
        if rollback == (encoder is not None):
            raise UsageError("reembed takes an encoder, or rollback=True")
        if encoder is None:
            return Record(self._service.rollback(self.name, **options))
        return Record(self._service.reembed(self.name, encoder, **options))

    def label(self, id: str, *, by: str = "python", **values: Any) -> None:
        """Set columns of one item by hand; no re-run reverts them."""
        self._service.label(self.name, id, values, by=by)

    def __repr__(self) -> str:
        return f"Collection({self.name!r})"


class Head:
    """A small model on the vectors of one Space."""

    def __init__(self, collection: Collection, facts: Record) -> None:
        self._collection, self.facts = collection, facts

    @property
    def name(self) -> str:
        """`NAME@VERSION`."""
        return f"{self.facts['head']}@{self.facts['version']}"

    @property
    def metrics(self) -> dict[str, Any]:
        """What was measured on held-out items, under plain names."""
        return dict(self.facts["metrics"])

    def predict(self, inputs: Sequence[Any] = (), *, ids: Sequence[str] = (), top_k: int | None = None) -> Predictions:
        """Classify pictures (paths, PIL images, arrays), texts, and stored items by `ids`."""
        if isinstance(inputs, (str, bytes)):
            raise UsageError("predict takes a list, not one value", hint="write predict([value])")
        service, name = self._collection._service, self._collection.name
        words = iter(service.inputs(name, self.name, [os.fspath(value) for value in inputs if _is_word(value)]))
        asked = [next(words) if _is_word(value) else {"image": _picture(value)} for value in inputs]
        asked += [{"id": one} for one in ids]
        return Predictions(service.classify(name, self.name, asked, top_k=top_k))

    def label_errors(self, limit: int = 20) -> Record:
        """List the items whose label the head doubts under `errors`, each with the items that it looks `like`."""
        collection = self._collection
        return Record(collection._service.label_errors(collection.name, self.name, limit=limit))

    def export(self, to: str | os.PathLike[str]) -> Record:
        """Write the head as `F.onnx` or `F.npz`, for programs without Permafrost."""
        return Record(self._collection._service.export_head(self._collection.name, self.name, to))

    def __repr__(self) -> str:
        return f"Head({self._collection.name}/{self.name}, {self.facts['kind']} for {self.facts['label']!r})"


class Encoder:
    """A frozen encoder without a store: `Encoder("timm:…").encode(images)`."""

    def __init__(self, name: str, device: str = "auto", runtime: str = "torch") -> None:
        self._encoder = load_encoders([name], device=device, endpoint=read_settings().endpoint, runtime=runtime)[0]

    @property
    def space(self) -> Space:
        """What this configuration makes of items; `space.fingerprint` names it exactly."""
        return self._encoder.space

    @property
    def dim(self) -> int:
        """The length of a vector."""
        return self._encoder.space.dim

    def encode(self, values: Sequence[Any], *, batch_size: int = 32) -> FloatMatrix:
        """Encode a list of texts or of PIL images: (n, dim) float32."""
        return self._encoder.encode(values, batch_size=batch_size)

    def __repr__(self) -> str:
        return f"Encoder({str(self._encoder.name)!r}, {self.dim}-d, {self._encoder.device}, {self._encoder.runtime})"


def _of(kind: type[T], options: Mapping[str, Any], act: str, also: frozenset[str] = frozenset()) -> T:
    """Return a dataclass of options. Raises `UsageError` for a name that it has not."""
    known = {f.name for f in fields(kind)}  # type: ignore[arg-type]
    if unknown := [name for name in options if name not in known]:
        raise UsageError(f"{act} takes no {unknown[0]!r}", hint=f"it takes {', '.join(sorted(known | also))}")
    return kind(**options)


def _is_word(value: Any) -> TypeGuard[str | os.PathLike[str]]:
    """Say whether a value is a path or a text, which of the two the head's Space decides."""
    return isinstance(value, os.PathLike) or (isinstance(value, str) and "\0" not in value)


def _ids(value: str | Sequence[str]) -> list[str]:
    return [value] if isinstance(value, str) else list(value)


def _picture(value: Any) -> Any:
    """Return a path or a file's bytes as they are, and a PIL image or an array of pixels as the bytes of a PNG."""
    if value is None or isinstance(value, (str, bytes, os.PathLike)):
        return value
    from PIL import Image

    picture = Image.fromarray(value) if isinstance(value, np.ndarray) else value
    if not isinstance(picture, Image.Image):
        raise UsageError(
            f"a {type(value).__name__} is not a picture", hint="give a path, bytes, a PIL image or an array"
        )
    out = io.BytesIO()
    picture.save(out, format="PNG", compress_level=1)
    return out.getvalue()
