"""The known items of a collection, embedded once more: what reporting and tuning begin with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from api.acts.embedding import Embedding, Watch
from embedder import naming
from embedder.encoder import Encoder
from embedder.errors import UnknownName, UsageError
from embedder.records import MEDIA, Medium
from index.ingest import Run, ingest_all
from index.itself import Itself
from index.selection import IngestOptions
from index.store import Collection


class Again(Embedding):
    """From known items to further Spaces."""

    def named(self, collection: Collection, selector: str) -> str:
        """Return the encoder's name behind a Space's alias or fingerprint, or the name itself."""
        with suppress(UnknownName):
            return collection.space(selector).encoder
        return str(naming.parse(selector))

    def extract(self, collection: Collection, encoders: Sequence[Encoder], watch: Watch) -> list[Run]:
        """Embed the known items with more encoders."""
        if not encoders:
            return []
        medium = medium_of(collection, encoders[0])
        options = IngestOptions(workers=self.settings.decode_workers)

        def progress(encoder: Encoder, run: Run) -> None:
            watch(str(encoder.name), run)

        return ingest_all(collection, Itself(collection, medium), encoders, options, progress)


def medium_of(collection: Collection, encoder: Encoder) -> Medium:
    """Return the medium of the items that an encoder reads; of two, the first that is here."""
    for medium in MEDIA:
        if medium in encoder.space.media and len(Itself(collection, medium)):
            return medium
    raise UsageError(
        f"{encoder.name} reads {' and '.join(encoder.space.media)}, and {collection.name} holds none of it",
        hint="permafrost encoders lists others",
    )
