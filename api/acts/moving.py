"""The acts of moving: vectors out to files, ready vectors in, and a collection over to another encoder."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from api.acts.embedding import Embedding, Watch, unwatched
from api.shapes import check_failures
from embedder import golden
from embedder.declared import declare
from embedder.encoder import Encoder
from embedder.errors import Refused, SpaceMismatch, Undecodable, UnknownName, UsageError
from embedder.records import FloatMatrix, Medium
from embedder.space import Space
from index import bringing, importing
from index.arriving import Arrival
from index.bringing import Asked, VectorSource
from index.exporting import ExportOptions, export
from index.importing import Imported

LEAST_COSINE = 0.999


@dataclass(frozen=True)
class Declared:
    """Who says of which Space arriving vectors are; at most one of the first three, unless the source says it itself.

    `encoder` is loaded and its vectors compared with a sample, but not with `unverified`; `space` is a file, or a Space
    of this store; `declare` is a name for what made vectors whose encoder nobody has here, of `dim` dimensions.
    """

    encoder: str | None = None
    space: str | None = None
    declare: str | None = None
    dim: int | None = None
    unverified: bool = False
    normalize: bool = False


class Moving(Embedding):
    """Between stores, formats and encoders."""

    def export(self, name: str, to: str, *, space: str | None = None, options: ExportOptions) -> dict[str, Any]:
        """Write a collection to a folder: the keys of the manifest, and `to`."""
        collection = self.collection(name)
        chosen = collection.space(space) if options.vectors else None
        manifest = export(collection, chosen, to, options)
        return {**{key: value for key, value in manifest.items() if key != "golden"}, "to": to}

    def import_(
        self,
        source: str,
        into: str,
        *,
        asked: Asked,
        said: Declared,
        max_failure_rate: float = 0.01,
        watch: Watch = unwatched,
    ) -> dict[str, Any]:
        """Store ready vectors, each source with a declared Space.

        Returns:
            `run collection space encoder dim source found inserted updated unchanged failed failures reasons seconds
            verified`; `verified` is null, or `sampled` and the least `cosine`.

        Raises:
            UsageError: no Space is declared, another dimension, no ids, a source that cannot be read.
            SpaceMismatch: the source says another Space than the caller; both are named.
            Refused: the encoder does not make these vectors, or nothing is there to see that it does.
            TooManyFailures: done, but more items failed than `max_failure_rate`.
        """
        opened = importing.open_vectors(source, asked)
        space, stored, encoder = self._declared(opened, into, asked, said)
        if opened.dim is not None and opened.dim != space.dim:
            raise UsageError(
                f"the vectors have {opened.dim} dimensions, Space {space} has {space.dim}", where=opened.root
            )
        plan = bringing.plan(opened, asked, space)
        verified = None
        if encoder is not None and not said.unverified:
            verified = self._verified(encoder, importing.sample(plan), opened.root)
        target = self.store(create=True).collection(into, create=True)
        others = [str(other) for other in target.spaces().values() if other.fingerprint != space.fingerprint]

        def progress(run: Imported) -> None:
            watch(space.encoder, run)

        run = importing.store(target, space, stored, plan, normalize=said.normalize, progress=progress)
        self._refresh_matrix(target, space)
        result = {
            "collection": into, "space": space.fingerprint, "encoder": space.encoder, "dim": space.dim,
            "source": opened.root, **run.as_json(), "verified": verified, "beside": others,
        }  # fmt: skip
        check_failures(result, result, max_failure_rate)
        return result

    def _declared(
        self, source: VectorSource, into: str, asked: Asked, said: Declared
    ) -> tuple[Space, Mapping[str, str], Encoder | None]:
        """Return the Space of arriving vectors, its golden vectors, and the encoder that was named."""
        ways = [way for way in (said.encoder, said.space, said.declare) if way is not None]
        if len(ways) > 1 or not (ways or source.space):
            raise UsageError(
                "the Space of these vectors must be said, once: equal dimension is not equal Space",
                where=source.root,
                hint="--encoder NAME, --space FILE-OR-FINGERPRINT, or --declare NAME for what made them",
            )
        space, stored, encoder = source.space, source.golden, None
        if said.encoder is not None:
            encoder = self.encoder(said.encoder)
            space, stored = encoder.space, golden.pack(golden.vectors(encoder))
        elif said.space is not None:
            space, stored = self._space_named(said.space, into)
        elif said.declare is not None:
            dim = said.dim or source.dim
            if dim is None:
                raise UsageError("the dimension of the vectors is not known", where=source.root, hint="--dim D")
            media: Medium = asked.media or bringing.medium_of(source)
            space = declare(said.declare, dim, [media], normalize=said.normalize)
        if space is None:
            raise AssertionError("checked above")
        if source.space is not None:
            space.require(source.space, what=f"what {os.path.basename(source.root)} holds")
        return space, stored, encoder

    def _space_named(self, word: str, into: str) -> tuple[Space, Mapping[str, str]]:
        """Return a Space by file, or by alias, fingerprint or encoder: of the collection, or of any in this store."""
        if os.path.isfile(word):
            return importing.read_space(Path(word))
        store = self.store()
        names = store.names()
        for name in sorted(names, key=lambda name: name != into):
            try:
                collection = store.collection(name)
                space = collection.space(word)
            except UnknownName:
                continue
            return space, collection.golden(space)
        raise UnknownName(
            f"there is neither a file nor a Space {word!r} in this store", where="--space",
            hint="give the permafrost-export.json of an export, or a fingerprint that permafrost info shows",
        )  # fmt: skip

    def _verified(self, encoder: Encoder, sample: Sequence[Arrival], where: str) -> dict[str, Any]:
        """Compare arriving vectors with what their encoder makes of the same content.

        Raises:
            Refused: no content can be reached, or the least cosine is below 0.999.
        """
        cosines: list[float] = []
        for one in sample:
            try:
                made = self._made(encoder, one)
            except Undecodable:
                continue
            arrived = np.asarray(one.vectors, dtype=np.float64)
            if arrived.shape[1:] == made.shape[1:] and np.isfinite(arrived).all():
                mean = arrived.mean(axis=0)
                norms = np.linalg.norm(mean) * np.linalg.norm(made[0].astype(np.float64))
                cosines.append(float(mean @ made[0] / norms) if norms else 0.0)
        if not cosines:
            raise Refused(
                f"nothing shows that {encoder.name} made these vectors: no content of theirs can be reached",
                where=where,
                hint="--content-column X names texts or paths; --unverified takes your word for it",
            )  # fmt: skip
        worst = min(cosines)
        if worst < LEAST_COSINE:
            raise SpaceMismatch(
                f"{encoder.name} does not make these vectors: of {len(cosines)} items embedded again, the least cosine "
                f"is {worst:.4f} and the median {float(np.median(cosines)):.4f}, {LEAST_COSINE} is needed",
                where=where, hint="name the encoder that made them, or --declare NAME if it is not at hand",
            )  # fmt: skip
        return {"sampled": len(cosines), "cosine": round(worst, 6)}

    def _made(self, encoder: Encoder, one: Arrival) -> FloatMatrix:
        if one.item.medium == "text":
            return encoder.encode([str(one.item.text)])
        return self.encode_image(encoder, str(one.item.path))
