"""The models that the service answers with: loaded when they are first asked for, within a budget, and let go again."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from typing import Any

from api.batching import Batcher
from api.metering import resident
from embedder.encoder import Encoder
from embedder.errors import OutOfResource, UnknownName, UsageError
from index.memory import settle

ALIAS = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,62})=(.+:.+)")
IDLE_S = 900.0


@dataclass(eq=False)
class Loaded:
    """A model that is here, the memory that loading it took, and how many use it."""

    batcher: Batcher
    bytes: int
    users: int = 0
    used: float = field(default_factory=time.monotonic)


class Models:
    """`named` are `NAME` or `ALIAS=NAME`; `found` says which other encoders the store's Spaces name.

    `load` and `forget` are the service's: they hold and let go of an encoder. `memory` is the most bytes that
    loaded models should hold; a model is unloaded for another one, or after `idle_s` seconds, once nobody uses it.
    """

    def __init__(
        self, named: Sequence[str], *, found: Callable[[], Sequence[str]], load: Callable[[str], Encoder],
        forget: Callable[[str], None], batcher: Callable[[Encoder], Batcher], memory: int | None = None,
        idle_s: float = IDLE_S,
    ) -> None:  # fmt: skip
        self._found, self._load, self._forget, self._batcher = found, load, forget, batcher
        self._memory, self._idle = memory, idle_s
        self.aliases = dict(_alias(name) for name in named)
        self._loaded: dict[str, Loaded] = {}
        self._lock, self._loading = Lock(), Lock()

    def names(self) -> list[str]:
        """Return what may be asked for as `model`: aliases, named encoders, and those of the store's Spaces."""
        return list(dict.fromkeys([*self.aliases, *self.aliases.values(), *self._found()]))

    def resolve(self, name: str | None) -> str:
        """Return an encoder's name; without one, the first that is served.

        Raises:
            UnknownName: it is not served; the nearest names are in the hint.
            UsageError: no model is served at all.
        """
        if (at_once := self.known(name)) is not None:
            return at_once
        known = self.names()
        if name is None:
            if not known:
                raise UsageError("no model is served", hint="permafrost serve --model NAME, or embed something first")
            name = known[0]
        if name not in known:
            raise UnknownName.of("model", name, known, hint=f"served: {', '.join(known) or 'none'}")
        return self.aliases.get(name, name)

    def known(self, name: str | None) -> str | None:
        """Return an encoder's name as `resolve` does, without reading the store; None where that is needed."""
        if name is None:
            return next(iter(self.aliases.values()), None)
        return self.aliases.get(name, name if name in self._loaded else None)

    def load_named(self) -> None:
        """Load the models that were named. Raises as loading does."""
        for name in dict.fromkeys(self.aliases.values()):
            with self.use(name):
                pass

    @contextmanager
    def use(self, name: str) -> Iterator[Batcher]:
        """Hold a model, loading it where it is not; it is not unloaded meanwhile. Raises as loading does.

        Raises:
            OutOfResource: the budget is full, and every model is in use.
        """
        held = self.hold(name)
        if held is None:
            with self._loading:
                held = self.hold(name) or self._loaded_now(name)
        try:
            yield held.batcher
        finally:
            self.release(held)

    def release(self, held: Loaded) -> None:
        """Let go of what `hold` returned."""
        with self._lock:
            held.users -= 1
            held.used = time.monotonic()

    def hold(self, name: str) -> Loaded | None:
        """Hold a model until `release`, without waiting; None where it is not loaded."""
        with self._lock:
            held = self._loaded.get(name)
            if held is not None:
                held.users += 1
            return held

    def _loaded_now(self, name: str) -> Loaded:
        """Load a model into the room that there is for it; one that does not fit is let go of again."""
        self._make_room(0)
        before = resident()
        held = Loaded(self._batcher(self._load(name)), 0, users=1)
        held.bytes = max(0, int(resident() - before))
        try:
            if self._memory is not None and held.bytes > self._memory:
                raise OutOfResource(
                    f"{name} holds {held.bytes >> 20} MiB, and {self._memory >> 20} MiB are allowed for all models",
                    hint="start the service with more --memory, or ask for a smaller model",
                )
            self._make_room(held.bytes)
        except OutOfResource:
            held.batcher.close()
            self._forget(name)
            settle()
            raise
        with self._lock:
            self._loaded[name] = held
        settle()
        return held

    def _make_room(self, more: int) -> None:
        """Let go of idle models, the one not used for longest first, until there is room, for `more` bytes if given."""
        while self._memory is not None:
            held = sum(one.bytes for one in self._loaded.values())
            if held < self._memory and held + more <= self._memory:
                return
            if not self._unload(idle_s=0.0, most=1):
                raise OutOfResource(
                    f"the loaded models hold {held >> 20} MiB, {self._memory >> 20} MiB are allowed, and none is idle",
                    hint="ask again later, or start the service with more --memory",
                )

    def sweep(self) -> int:
        """Unload the models that nobody has used for a while; return how many."""
        return self._unload(idle_s=self._idle, most=len(self._loaded))

    def _unload(self, *, idle_s: float, most: int) -> int:
        now, gone = time.monotonic(), []
        with self._lock:
            idle = sorted(
                (held.used, name) for name, held in self._loaded.items()
                if not held.users and not held.batcher.waiting and now - held.used >= idle_s
            )  # fmt: skip
            gone = [(name, self._loaded.pop(name)) for _, name in idle[:most]]
        for name, held in gone:
            held.batcher.close()
            self._forget(name)
        if gone:
            settle()
        return len(gone)

    def standing(self) -> list[dict[str, Any]]:
        """Return each served name: `id encoder loaded media space`, and `bytes users waiting` of a loaded one."""
        with self._lock:
            loaded = dict(self._loaded)
        rows = []
        for name in self.names():
            held = loaded.get(encoder := self.aliases.get(name, name))
            facts = {"bytes": held.bytes, "users": held.users, "waiting": held.batcher.waiting} if held else {}
            space = held.batcher.encoder.space if held else None
            media = list(space.media) if space else None
            rows.append(
                {"id": name, "encoder": encoder, "loaded": held is not None, "media": media, "space": space, **facts}
            )
        return rows

    def close(self) -> None:
        """End every model's threads."""
        with self._lock:
            gone, self._loaded = list(self._loaded.values()), {}
        for held in gone:
            held.batcher.close()


def _alias(word: str) -> tuple[str, str]:
    from embedder import naming

    found = ALIAS.fullmatch(word)
    alias, name = (found[1], found[2]) if found else (word, word)
    full = str(naming.parse(name))
    return (alias if found else full), full
