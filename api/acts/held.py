"""What all acts share: the store, and the encoders, decoders and views that were opened for it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from threading import Lock
from typing import Any, cast

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
        root = Path(self.settings.store).expanduser().resolve()
        folder = self._folders.setdefault(name, freshness.Folder(root / name))
        facts = root / "permafrost.json", root / name / "collection.json"
        token = (folder.token(), *map(freshness.file_token, facts))
        held = self._opened.get((name, selector))
        if held is not None and None not in token and held[0] == token:
            return held[1], held[2]
        collection = self.collection(name)
        view = self.view(collection, collection.space(selector))
        self._opened[name, selector] = (token, collection, view)
        return collection, view

    def view(self, collection: Collection, space: Space) -> View:
        with self._lock:
            stamp = (str(collection.path), space.fingerprint)
            if stamp not in self._views:
                self._views[stamp] = View(collection, space)
            return self._views[stamp]

    def query_texts(self, collection: Collection, space: Space, texts: Sequence[str]) -> FloatMatrix:
        """Encode the texts of queries together: (n, dim)."""
        return self.encoder_of(collection, space).encode(texts, role="query")

    def query_vector(self, collection: Collection, space: Space, kind: str, value: Any) -> FloatMatrix:
        if kind == "vector":
            return as_vector(value)
        if kind == "like":
            return examples.of_items(self.view(collection, space), *value)
        if kind == "id":
            return self.view(collection, space).vector_of(str(value))
        return self.encoded(self.encoder_of(collection, space), kind, value)

    def encoded(self, encoder: Encoder, kind: str, value: Any) -> FloatMatrix:
        """Encode a text or a picture as a query, or take a vector as it is: (1, dim) float32."""
        if kind == "vector":
            return as_vector(value)
        if kind == "text":
            return encoder.encode([str(value)], role="query")
        return self.encode_image(encoder, value)

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
