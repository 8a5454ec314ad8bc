"""What every verb of the command line is given, and what it gives back. Verbs print nothing themselves."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from embedder.errors import PermafrostError

if TYPE_CHECKING:
    from api.service import Service


@dataclass(frozen=True)
class Result:
    """The outcome of a verb: the document of `--json`, the text for people, and a note beside it on stderr.

    `error` is for an act that was done and yet must not pass for success.
    """

    document: Mapping[str, Any]
    text: str = ""
    note: str = ""
    exit_code: int = 0
    error: PermafrostError | None = None


@dataclass(frozen=True)
class Call:
    """The options that all verbs share."""

    store: str | None = None
    json: bool = False
    debug: bool = False

    def with_options(self, store: str | None, json: bool, debug: bool) -> Call:
        """Return the call with options given after the verb, which come before those given in front of it."""
        return replace(self, store=store or self.store, json=json or self.json, debug=debug or self.debug)

    @contextmanager
    def service(self, **settings: Any) -> Iterator[Service]:
        """Open the service, with settings that come before the environment's; close it at the end.

        Raises:
            UsageError: a setting that does not exist or has no right value.
        """
        from api.service import Service
        from api.settings import read_settings

        logging.basicConfig(
            level=logging.INFO if self.debug else logging.WARNING, format="%(levelname)s %(name)s: %(message)s"
        )
        service = Service(read_settings(store=self.store, **settings))
        try:
            yield service
        finally:
            service.close()
