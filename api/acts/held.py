"""What all acts share: the store, and the encoders, decoders and views that were opened for it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Lock
from typing import Any, cast

import numpy as np

from api.settings import Settings
from api.shapes import as_vector
from embedder import declared, golden
from embedder.encoder import Encoder, ImageTower
from embedder.errors import UsageError
from embedder.pool import DecodePool
from embedder.records import FloatMatrix, Item, Pixels
from embedder.space import Space
from embedder.together import load_encoders
from index import examples, freshness, tuned
from index.sampler import Sampler
from index.store import Collection, Store
from index.view import View

STORED = frozenset({"id", "like"})


class Held:
    """One store, and what was opened for it. Safe to share between threads; `decoders` processes decode pictures."""

    decoders = 1

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._lock, self._loading = Lock(), Lock()
        self._encoders: dict[str, Encoder] = {}
        self._checked: set[tuple[str, str]] = set()
        self._views: dict[tuple[str, str], View] = {}
        self._opened: dict[tuple[str, str | None], tuple[Any, Collection, View]] = {}
        self._folders: dict[str, freshness.Folder] = {}
        self._stale: dict[tuple[str, ...], tuple[int, str | None]] = {}
        self._pool: DecodePool | None = None
        self._root = Path(settings.store).expanduser().resolve()
        self.sampler = Sampler(settings.recall_sample)

    def close(self) -> None:
        """End the worker processes and the sampler."""
        self.sampler.close()
        if self._pool is not None:
            self._pool.close()
            self._pool = None

    def store(self, *, create: bool = False) -> Store:
        """Open the store. Raises `UnknownName` where there is none."""
        return Store.open(self.settings.store, create=create)

    def collection(self, name: str) -> Collection:
        """Open a collection. Raises `UnknownName` with the nearest names."""
        return self.store().collection(name)

    def encoder(self, name: str) -> Encoder:
        """Load an encoder once."""
        return self.encoders([name])[0]

    def encoders(self, names: Sequence[str]) -> list[Encoder]:
        """Load encoders once; those of one model that are loaded here share it.

        Raises:
            UsageError: the name of a declared Space, which has no encoder.
        """
        for name in names:
            declared.refuse(name)
        # a lock of its own: loading takes seconds, and searches that need no encoder do not wait for it
        with self._loading:
            new = [name for name in dict.fromkeys(names) if name not in self._encoders]
            chosen = self.settings
            places = [self.located(name) for name in new]
            found = load_encoders(places, device=chosen.device, endpoint=chosen.endpoint, runtime=chosen.runtime)
            self._encoders |= zip(new, map(self.fitted, found), strict=True)
            return [self._encoders[name] for name in names]

    def located(self, name: str) -> str:
        """Return an encoder's name as it is loaded: one that was tuned in this store, with the place of its files."""
        return tuned.located(name, Path(self.settings.store).expanduser().resolve())

    @contextmanager
    def using(self, name: str) -> Iterator[Encoder]:
        """Hold an encoder, by its name, while it is used; a service that lets go of encoders keeps this one."""
        yield self.encoder(name)

    def fitted(self, encoder: Encoder) -> Encoder:
        """Return an encoder as it is kept here; a service that shares it between threads says how."""
        return encoder

    def forget(self, name: str) -> None:
        """Let go of an encoder; it is loaded again when it is next asked for."""
        with self._loading:
            self._encoders.pop(name, None)

    def encoder_of(self, collection: Collection, space: Space) -> Encoder:
        """Load the encoder of a Space and make sure that it still makes the vectors that are stored.

        Raises:
            SpaceMismatch: it does not; both Spaces, or the golden cosine, are named.
        """
        encoder = self.encoder(space.encoder)
        stamp = (str(collection.path), space.fingerprint)
        if stamp not in self._checked:
            space.require(encoder.space, what=f"encoder {encoder.name}")
            golden.check(encoder, collection.golden(space))
            self._checked.add(stamp)
        return encoder

    def opened(self, name: str, selector: str | None) -> tuple[Collection, View]:
        """Return a collection and the view of one of its Spaces, opened again only where its folder changed.

        Raises:
            UnknownName: there is no such store, collection or Space.
        """
        root = self._root
        folder = self._folders.get(name) or freshness.Folder(root / name)
        facts = root / "permafrost.json", root / name / "collection.json"
        token = (folder.token(), *map(freshness.file_token, facts))
        held = self._opened.get((name, selector))
        if held is not None and None not in token and held[0] == token:
            return held[1], held[2]
        collection = self.collection(name)
        view = self.view(collection, collection.space(selector))
        # only now: names that are asked for in vain would be kept without end
        self._folders[name] = folder
        self._opened[name, selector] = (token, collection, view)
        return collection, view

    def view(self, collection: Collection, space: Space) -> View:
        with self._lock:
            stamp = (str(collection.path), space.fingerprint)
            if stamp not in self._views:
                self._views[stamp] = View(collection, space)
            return self._views[stamp]

    def query_vectors(self, collection: Collection, space: Space, asked: Sequence[tuple[str, Any]]) -> FloatMatrix:
        """Return the vectors (n, dim) of queries (kind, value); what an encoder is needed for is encoded together.

        Raises:
            UsageError: a vector that does not fit the Space.
            UnknownName: an id that is not stored, or has no vector here.
        """
        view, given = self.view(collection, space), [query for query in asked if query[0] not in STORED]
        needed = any(kind != "vector" for kind, _ in given)
        found = iter(self.encoded(self.encoder_of(collection, space) if needed else None, space, given))
        return np.concatenate([_stored(view, *one) if one[0] in STORED else next(found) for one in asked])

    def encoded(self, encoder: Encoder | None, space: Space, asked: Sequence[tuple[str, Any]]) -> list[FloatMatrix]:
        """Return the vectors (1, dim) of texts, pictures and vectors, which need no `encoder`. Raises `UsageError`."""
        rows = [as_vector(value) if kind == "vector" else None for kind, value in asked]
        left = [query for query, row in zip(asked, rows, strict=True) if row is None]
        made = iter(self.made(encoder, left) if encoder is not None else ())
        found = [next(made) if row is None else row for row in rows]
        for row in found:
            if row.shape[1] != space.dim:
                raise UsageError(f"a vector of {row.shape[1]} dimensions does not fit Space {space}")
        return found

    def made(self, encoder: Encoder, asked: Sequence[tuple[str, Any]]) -> list[FloatMatrix]:
        """Encode queries that are texts or pictures: each (1, dim). Raises as encoding does."""
        texts = [str(value) for kind, value in asked if kind == "text"]
        rows = iter(encoder.encode(texts, role="query") if texts else ())
        return [next(rows)[None] if kind == "text" else self.encode_image(encoder, value) for kind, value in asked]

    def encode_image(self, encoder: Encoder, value: str | bytes | os.PathLike[str]) -> FloatMatrix:
        """Decode a picture (a path, or a file's bytes) in a worker process and encode it: (1, dim) float32.

        Raises:
            Undecodable: it is missing, damaged, or not a picture that is read here.
        """
        pixels = self.decoded(value, cast(ImageTower, encoder.tower("image")))
        vectors, good = encoder.forward("image", [pixels])
        if not good.all():
            raise UsageError("the picture's vector is not finite or has zero norm")
        return vectors

    def decoded(self, value: str | bytes | os.PathLike[str], tower: ImageTower) -> Pixels:
        """Decode a picture (a path, or a file's bytes) in a worker process, for a tower. Raises `Undecodable`."""
        with self._lock:
            if self._pool is None:
                self._pool = DecodePool(self.decoders)
            pool = self._pool
        if isinstance(value, bytes):
            item = Item(id="query", medium="image", source="the query's picture", data=value)
        else:
            item = Item(id="query", medium="image", source=os.fspath(value), path=os.fspath(value))
        pixels: Pixels = pool.decode(item, tower.transform).value
        return pixels


def _stored(view: View, kind: str, value: Any) -> FloatMatrix:
    return view.vector_of(str(value)) if kind == "id" else examples.of_items(view, *value)
