"""The service's own way with encoders: shared between requests, gathered into batches, loaded and let go."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass, replace
from threading import BoundedSemaphore, Lock
from typing import Any, cast

import numpy as np

from api import attending, urls
from api.acts.putting import Putting
from api.acts.searching import Searching
from api.acts.showing import Showing
from api.batching import Batcher, Made, Value
from api.gathering import Gathering
from api.metering import Meter
from api.models import IDLE_S, Models
from api.recent import Recent
from api.service import Service
from api.settings import Settings
from api.working import Working
from embedder import lanes, machine
from embedder.declared import PREFIX
from embedder.encoder import Encoder, ImageTower, TextTower
from embedder.errors import DeadlineExceeded, Overloaded, PermafrostError, Undecodable, UsageError
from embedder.records import FloatMatrix, Medium, Pixels, Role
from embedder.space import Space
from index.readers import reading
from index.search import Answer
from index.store import Collection
from index.view import View

PART = 1024
SAME = ("k", "exact", "without", "refinement")


@dataclass(frozen=True)
class Served:
    """What the service is to serve. `memory` (bytes) is what loaded models may hold; unused ones stay for `idle_s`.

    `head` is the (collection, head) of TEI's `/predict`; `sources` are the folders that runs may read; `allow_urls`
    lets pictures of queries be fetched from the public internet.
    """

    models: Sequence[str] = ()
    memory: int | None = None
    idle_s: float = IDLE_S
    head: tuple[str, str] | None = None
    sources: Sequence[str] = ()
    allow_urls: bool = False


class Serving(Working, Putting, Showing, Service):
    """A `Service` whose queries go through batches. Safe to share between threads."""

    def __init__(self, settings: Settings, served: Served | None = None, meter: Meter | None = None) -> None:
        super().__init__(settings)
        self.served, self.meter, self.recent = served or Served(), meter or Meter(), Recent()
        self.decoders, self.sources = settings.decode_workers, tuple(self.served.sources)
        self.models = Models(
            self.served.models, found=self._encoders_of_spaces, load=self.encoder, forget=self.forget,
            batcher=self._batcher, memory=self.served.memory, idle_s=self.served.idle_s,
        )  # fmt: skip

        self.gathering = Gathering(machine.cores())

    @property
    def fetch(self) -> Callable[[str], bytes] | None:
        """What brings a picture from an address; None where that is not allowed."""
        return urls.fetched if self.served.allow_urls else None

    def close(self) -> None:
        """End the jobs, the models' threads and the worker processes."""
        super().close()
        self.gathering.close()
        self.models.close()

    def fitted(self, encoder: Encoder) -> Encoder:
        """Return an encoder that batches and a job may use at once: no more of them than may go side by side."""
        using, tokenizing = BoundedSemaphore(lanes.count(encoder)), Lock()
        image, text = encoder.image, encoder.text
        if image is not None:
            image = replace(image, forward=_few_at_a_time(image.forward, using))
        if text is not None:
            whole = text.tokenize_all and _few_at_a_time(text.tokenize_all, tokenizing)
            text = replace(
                text, forward=_few_at_a_time(text.forward, using), tokenize_all=whole,
                tokenize=_few_at_a_time(text.tokenize, tokenizing),
            )  # fmt: skip
        return replace(encoder, image=image, text=text)

    @contextmanager
    def using(self, name: str) -> Iterator[Encoder]:
        """Hold a model by its alias or its encoder's name, within the budget. Raises as loading does."""
        name = self.models.aliases.get(name, name)
        with self.models.use(name):
            yield self.encoder(name)

    def query_vectors(self, collection: Collection, space: Space, asked: Sequence[tuple[str, Any]]) -> FloatMatrix:
        """Return the vectors of queries (n, dim); a model is held while it is needed. Raises as `made`."""
        needed = any(kind in ("text", "image") for kind, _ in asked)
        with self.models.use(space.encoder) if needed else nullcontext():
            return super().query_vectors(collection, space, asked)

    def nearest(self, view: View, queries: FloatMatrix, asked: Mapping[str, Any]) -> Sequence[Answer]:
        """Return the answers to queries (m, dim), with others that ask the same where this thread waits for batches.

        Raises:
            DeadlineExceeded: they were not found within 30 s.
        """
        if attending.attended.get() is None:
            return super().nearest(view, queries, asked)
        key = id(view), json.dumps(asked["where"], sort_keys=True), *(asked[one] for one in SAME)

        def together(rows: Sequence[FloatMatrix]) -> Sequence[Answer]:
            return Searching.nearest(self, view, np.stack(rows), asked)

        return attending.result(self.gathering.submit(key, list(queries), together))

    def made(self, encoder: Encoder, asked: Sequence[tuple[str, Any]]) -> list[FloatMatrix]:
        """Encode queries in the batches of a model: all texts together, and all pictures.

        Raises:
            Overloaded: too much is waiting.
            DeadlineExceeded: it was not made in time.
            Undecodable: a value that cannot become a vector.
        """
        rows: dict[str, Iterator[FloatMatrix]] = {}
        for kind in sorted({kind for kind, _ in asked}):
            medium: Medium = "image" if kind == "image" else "text"
            values = [value for one, value in asked if one == kind]
            rows[kind] = iter(self.batched(encoder.space.encoder, values, medium, "query"))
        return [next(rows[kind])[None] for kind, _ in asked]

    def batched(self, encoder: str, values: Sequence[Value], medium: Medium, role: Role) -> FloatMatrix:
        """Return vectors (n, dim) from the batches of a model, a part at a time. Raises as `made`."""
        with self.models.use(encoder) as batcher:
            parts = [values[start : start + PART] for start in range(0, len(values), PART)]
            return np.concatenate([attending.result(batcher.submit(part, medium, role)).vectors for part in parts])

    def documents(self, encoder: str, values: Sequence[Value]) -> list[FloatMatrix | PermafrostError]:
        """Return the vectors (parts, dim) of each text or picture, or why it has none. Raises as `batched`."""
        with self.models.use(encoder) as batcher:
            begun: list[list[Future[Made]] | PermafrostError] = []
            try:
                begun.extend(_begun(batcher, value) for value in values)
                return [_ended(one) for one in begun]
            except (Overloaded, DeadlineExceeded, CancelledError):
                for waiting in begun:
                    for future in [] if isinstance(waiting, PermafrostError) else waiting:
                        future.cancel()
                raise

    def submit(self, encoder: str, values: Sequence[Value], medium: Medium, role: Role) -> Future[Made]:
        """Begin to encode in the batches of a model; it stays loaded until the future is done. Raises as `made`."""
        with self.models.use(encoder):
            begun = self.submit_at_once(encoder, values, medium, role)
        assert begun is not None
        return begun

    def submit_at_once(self, encoder: str, values: Sequence[Value], medium: Medium, role: Role) -> Future[Made] | None:
        """Begin as `submit` does, without waiting for anything; None where the model is not loaded."""
        held = self.models.hold(encoder)
        if held is None:
            return None
        try:
            future = held.batcher.submit(values, medium, role)
        except BaseException:
            self.models.release(held)
            raise
        future.add_done_callback(lambda _: self.models.release(held))
        return future

    def space_of(self, encoder: str) -> Space | None:
        """Return the Space of a model, as the store has it or as it is loaded; None where neither is so yet."""
        for one in self.models.standing():
            if one["encoder"] == encoder and one["space"] is not None:
                return cast(Space, one["space"])
        return next((space for space in self._spaces() if space.encoder == encoder), None)

    def measure(self) -> None:
        """Note of every Space that was searched the recall of its index, and the rows outside it."""
        with self._lock:
            views = list(self._views.values())
        found = []
        for view in views:
            with suppress(PermafrostError), reading(view.collection):
                moment = view.now()
                manifest = moment.base.manifest if moment.base else {}
                recall = (manifest.get("measured") or {}).get("recall_at_10")
                found.append((view.collection.name, view.space.short, recall, len(moment.fresh_keys)))
        self.meter.indexes(found)

    def texts_of(self, encoder: str, inputs: Sequence[Sequence[int]]) -> list[str]:
        """Return the texts of token ids of a model's own tokenizer.

        Raises:
            UsageError: the model has none, or an id is not one of it.
        """
        tower = cast(TextTower, self.encoder(encoder).tower("text"))
        if tower.words is None:
            raise UsageError(f"{encoder} has no tokenizer whose ids could be read", hint="send texts")
        return [tower.words(ids) for ids in inputs]

    def _batcher(self, encoder: Encoder) -> Batcher:
        return Batcher(encoder, decode=self._pixels, recent=self.recent, meter=self.meter, workers=self.decoders)

    def _pixels(self, data: bytes, tower: ImageTower) -> Pixels:
        return self.decoded(data, tower)

    def _encoders_of_spaces(self) -> list[str]:
        return list(dict.fromkeys(space.encoder for space in self._spaces()))

    def _spaces(self) -> list[Space]:
        """Return the Spaces of the store that have an encoder; a collection that cannot be read has none."""
        found: list[Space] = []
        with suppress(PermafrostError):
            store = self.store()
            for name in store.names():
                with suppress(PermafrostError):
                    found += store.collection(name).spaces().values()
        return [space for space in found if not space.encoder.startswith(PREFIX)]


def _begun(batcher: Batcher, value: Value) -> list[Future[Made]] | PermafrostError:
    try:
        parts = [value] if isinstance(value, bytes) else batcher.encoder.pieces(value)
        medium: Medium = "image" if isinstance(value, bytes) else "text"
        return [batcher.submit([part], medium, "document") for part in parts]
    except (Undecodable, UsageError) as error:
        return error


def _ended(begun: list[Future[Made]] | PermafrostError) -> FloatMatrix | PermafrostError:
    if isinstance(begun, PermafrostError):
        return begun
    try:
        return np.concatenate([attending.result(future).vectors for future in begun])
    except (Undecodable, UsageError) as error:
        return error


def shortened(vectors: FloatMatrix, dimensions: int | None, space: Space) -> FloatMatrix:
    """Return the first components, of unit length again where the Space's vectors have it.

    Raises:
        UsageError: more dimensions than the Space has, or a vector without direction in what is left.
    """
    if dimensions is None or dimensions == space.dim:
        return vectors
    if dimensions > space.dim:
        raise UsageError(f"{space.encoder} has {space.dim} dimensions, not {dimensions}")
    cut = np.ascontiguousarray(vectors[:, :dimensions])
    if not space.identity.get("normalize"):
        return cut
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    if not (norms > 0).all():
        raise UsageError(f"a vector is zero in its first {dimensions} dimensions", hint="ask for more dimensions")
    return np.asarray(cut / norms, dtype=np.float32)


def _few_at_a_time(act: Callable[..., Any], lock: Lock | BoundedSemaphore) -> Callable[..., Any]:
    def locked(*given: Any) -> Any:
        with lock:
            return act(*given)

    return locked
