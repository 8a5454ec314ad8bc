"""One batch that several encoders read one after another."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from typing import Any, TypeVar, cast

Made = TypeVar("Made")


class Shared(list[Any]):
    """Prepared inputs. What one encoder computes of them and others need too is kept here, and goes when the list goes.

    So nothing outlives a batch, and no encoder has a state of its own.
    """

    def __init__(self, inputs: Iterable[Any]) -> None:
        super().__init__(inputs)
        self._made: dict[Hashable, Any] = {}

    def once(self, what: Hashable, make: Callable[[], Made]) -> Made:
        """Return what `make` gives, called for the first to ask for `what`; an error is not kept."""
        if what not in self._made:
            self._made[what] = make()
        return cast(Made, self._made[what])
