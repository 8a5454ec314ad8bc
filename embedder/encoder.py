"""An encoder: one Space, and a tower for each medium that leads into it.

A kind (a file in `embedder/encoders/`) declares `OPTIONS`, `catalogue()` and `load(name, device)`, and returns an
`Encoder`. Everything that is the same for all kinds (batching, precision, normalisation, checks) is done here, so that
one item and a million take the same path.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any, Protocol, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from embedder import chunking, kinds, naming, packing, tuning
from embedder.decode.image import to_rgb
from embedder.decode.text import clean
from embedder.errors import EncoderError, Undecodable, UsageError
from embedder.naming import EncoderName
from embedder.records import FloatMatrix, Medium, Role
from embedder.remote import Endpoint, RemoteKind
from embedder.space import Space
from embedder.transform import ImageTransform

Forward = Callable[[Sequence[Any]], NDArray[np.floating[Any]]]
"""Prepared inputs to raw features: (n, dim), any float dtype, not yet normalised."""


@dataclass(frozen=True)
class ImageTower:
    """`transform` says which pixels to make; `forward` takes a list of (height, width, 3) uint8 arrays."""

    transform: ImageTransform
    forward: Forward


@dataclass(frozen=True)
class TextTower:
    """`tokenize(text, role)` gives one prepared input, `length` its cost in tokens; `forward` takes a list of them.

    `tokenize_all`, where there is one, gives for many texts at once what `tokenize` gives for each.

    Texts are cut to `max_chars` characters before they are tokenised (a tokenizer reads all of a text that it cuts).
    `split` says where documents are cut into parts, each with a vector of its own; None: they are not. `words` gives
    the text of token ids of this tower's own tokenizer; None: there is none that could.
    """

    tokenize: Callable[[str, Role], Any]
    length: Callable[[Any], int]
    forward: Forward
    max_chars: int
    split: Callable[[str], list[chunking.Span]] | None = None
    tokenize_all: Callable[[Sequence[str], Role], list[Any]] | None = None
    words: Callable[[Sequence[int]], str] | None = None

    def tokens(self, texts: Sequence[str], role: Role) -> list[Any]:
        """Return the prepared input of each text; raises what `tokenize` raises for any of them."""
        if self.tokenize_all is None or len(texts) < 2:
            return [self.tokenize(text, role) for text in texts]
        return self.tokenize_all(texts, role)


class EncoderKind(Protocol):
    """What a file in `embedder/encoders/` offers."""

    OPTIONS: frozenset[str]

    def catalogue(self) -> list[str]:
        """Return encoder names (without options) that can be asked for here, offline ones first."""

    def load(self, name: EncoderName, device: str) -> Encoder:
        """Load weights, in eval mode, and describe them. Raises `EncoderError`."""


@dataclass(frozen=True)
class Encoder:
    """A frozen encoder. `forward` and `encode` are deterministic for one device and batch composition.

    `exact`, where the Space is of half precision, gives the same encoder in float32; it is loaded when it is needed.
    `module` is the torch module whose weights the towers run, which can be tuned; None where there is no one such.
    """

    name: EncoderName
    space: Space
    device: str
    image: ImageTower | None = None
    text: TextTower | None = None
    runtime: str = "torch"
    exact: Callable[[], Encoder] | None = None
    module: Any = field(default=None, compare=False, repr=False)

    @property
    def where(self) -> str:
        """Whose batch sizes and costs count: `cpu`, or `cuda` for whatever else runs the network."""
        return "cpu" if self.device == "cpu" else "cuda"

    def tower(self, medium: Medium) -> ImageTower | TextTower:
        """Return the tower of a medium.

        Raises:
            UsageError: this encoder does not read it.
        """
        tower = self.image if medium == "image" else self.text
        if tower is None:
            raise UsageError(
                f"{self.name} does not read {medium}s, only {' and '.join(m + 's' for m in self.space.media)}",
                hint=f"choose an encoder with {'an' if medium == 'image' else 'a'} {medium} tower: permafrost encoders",
            )
        return tower

    def forward(self, medium: Medium, prepared: Sequence[Any]) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        """Encode one batch of prepared inputs; what half precision makes unusable is encoded again in float32.

        Returns:
            vectors (n, dim) float32, normalised where the Space says so; and a mask (n,) of the usable ones:
            finite, and not of zero norm.
        """
        vectors, good = self._passed(medium, prepared)
        if self.exact is None or good.all():
            return vectors, good
        bad = np.flatnonzero(~good).tolist()
        try:
            again, fine = self.exact().forward(medium, [prepared[i] for i in bad])
        except (MemoryError, RuntimeError):
            # no room for a second model: the rest of the batch is not to blame, and these stay unusable
            return vectors, good
        vectors, good = vectors.copy(), good.copy()
        vectors[bad], good[bad] = again, fine
        return vectors, good

    def _passed(self, medium: Medium, prepared: Sequence[Any]) -> tuple[FloatMatrix, NDArray[np.bool_]]:
        raw = np.ascontiguousarray(self.tower(medium).forward(prepared), dtype=np.float32)
        if raw.shape != (len(prepared), self.space.dim):
            raise EncoderError(f"{self.name} gave {raw.shape}, not {(len(prepared), self.space.dim)}")
        norms = np.linalg.norm(raw, axis=1)
        good = np.isfinite(norms) & (norms > 0)
        if self.space.identity["normalize"]:
            raw = np.divide(raw, np.where(good, norms, 1.0)[:, None], dtype=np.float32)
        return raw, good

    def prepare(self, value: str | Image.Image | NDArray[np.uint8], role: Role = "document") -> tuple[Medium, Any]:
        """Turn a text, a PIL image or ready pixels into what `forward` reads, and say which medium it is."""
        if isinstance(value, str):
            tower = cast(TextTower, self.tower("text"))
            text, _ = clean(value, tower.max_chars)
            return "text", tower.tokenize(text, role)
        transform = cast(ImageTower, self.tower("image")).transform
        picture = Image.fromarray(value) if isinstance(value, np.ndarray) else value
        if not isinstance(picture, Image.Image):
            raise UsageError(f"cannot encode a {type(value).__name__}", hint="give a list of texts or of PIL images")
        return "image", transform.pixels(to_rgb(picture, transform.background))

    def encode(
        self, values: Iterable[str | Image.Image | NDArray[np.uint8]], *, role: Role = "document", batch_size: int = 32
    ) -> FloatMatrix:
        """Encode texts or PIL images (or both, for a joint encoder), one vector each: of a text in parts, the mean.

        Args:
            batch_size: the most values that go through the encoder at once; texts go with others of their length.

        Returns:
            (n, dim) float32, in the order given, normalised where the Space says so.

        Raises:
            UsageError: a medium that this encoder does not read.
            Undecodable: a value whose vector is not finite or has zero norm; its position is named.
        """
        if isinstance(values, (str, Image.Image)):
            raise UsageError("encode takes a list, not one value", hint="write encode([value])")
        pieces = [self.pieces(value) for value in values]
        counts = np.array([len(parts) for parts in pieces], dtype=np.int64)
        owners = np.repeat(np.arange(len(pieces)), counts)
        out = np.empty((len(owners), self.space.dim), dtype=np.float32)
        for medium, rows, ready in self._batches([part for parts in pieces for part in parts], role, batch_size):
            vectors, good = self.forward(medium, ready)
            if not good.all():
                bad = int(owners[rows[np.flatnonzero(~good)[0]]])
                raise Undecodable(
                    "the vector is not finite or has zero norm", stage="encode", reason="non_finite",
                    where=f"value {bad}", hint="leave this value out: it carries nothing that the encoder can see",
                )  # fmt: skip
            out[rows] = vectors
        return out if len(out) == len(pieces) else means(out, counts)

    def _batches(
        self, values: Sequence[Any], role: Role, most: int
    ) -> Iterator[tuple[Medium, NDArray[np.int64], list[Any]]]:
        """Yield the medium, places and prepared inputs of each batch: texts by length, so that little is padding."""
        texts = [at for at, value in enumerate(values) if isinstance(value, str)]
        if texts:
            tower = cast(TextTower, self.tower("text"))
            ready = tower.tokens([clean(values[at], tower.max_chars)[0] for at in texts], role)
            lengths, budget = [max(1, tower.length(one)) for one in ready], tuning.TOKENS[self.where].start
            for rows in packing.batches(lengths, budget, most, self.where):
                yield "text", np.asarray(texts)[rows], [ready[at] for at in rows]
        others = [at for at, value in enumerate(values) if not isinstance(value, str)]
        for start in range(0, len(others), most):
            chosen = others[start : start + most]
            yield "image", np.asarray(chosen), [self.prepare(values[at], role)[1] for at in chosen]

    def pieces(self, value: Any) -> list[Any]:
        """Return the parts of a text that this encoder cuts, and everything else as it is."""
        if self.text is None or self.text.split is None or not isinstance(value, str):
            return [value]
        text, _ = clean(value, chunking.MAX_CHARS)
        return [text[begin:end] for begin, end in self.text.split(text)]


def means(rows: FloatMatrix, counts: NDArray[np.int64]) -> FloatMatrix:
    """Return the mean of each run of `counts[i]` (1 or more) consecutive rows: (len(counts), dim) float32."""
    sums = np.add.reduceat(rows.astype(np.float64), np.cumsum(counts) - counts, axis=0)
    return np.asarray(sums / counts[:, None], dtype=np.float32)


def load_encoder(name: str | EncoderName, *, device: str = "auto", endpoint: Endpoint | None = None) -> Encoder:
    """Load an encoder by name, in eval mode.

    Args:
        name: `KIND:NAME[@REVISION][?key=value&…]`.
        device: `auto` (a GPU where there is one), `cpu`, `cuda` or `cuda:N`.
        endpoint: where kinds whose weights are elsewhere (`openai`) answer; all others leave it unread.

    Raises:
        UnknownName: no such kind, name or option; the nearest ones are in the hint.
        EncoderError: the weights are missing, damaged or incomplete.
        MissingFact: the weights do not say how their inputs are made.
    """
    parsed = naming.parse(name) if isinstance(name, str) else name
    kind = cast(EncoderKind, kinds.load("embedder.encoders", parsed.kind, "encoder kind"))

    def load(plain: Sequence[EncoderName]) -> list[Encoder]:
        return [
            kind.connect(one, endpoint) if isinstance(kind, RemoteKind) else kind.load(one, device) for one in plain
        ]

    return load_with([parsed], load)[0]


def load_with(names: Sequence[EncoderName], load: Callable[[Sequence[EncoderName]], list[Encoder]]) -> list[Encoder]:
    """Load encoders of one kind with `load`, which is given the names without what is done here: cutting into parts.

    Raises:
        UnknownName: an option that the kind does not read.
    """
    kind = cast(EncoderKind, kinds.load("embedder.encoders", names[0].kind, "encoder kind"))
    plain: list[EncoderName] = []
    for name in names:
        name.allow(kind.OPTIONS | {chunking.OPTION})
        plain.append(replace(name, options={k: v for k, v in name.options.items() if k != chunking.OPTION}))
    chunks = [chunking.Chunking.of(name) for name in names]
    loaded = [_exacting(found, name, load) for found, name in zip(load(plain), plain, strict=True)]
    return [
        found if cut is None else _chunked(found, name, cut)
        for found, name, cut in zip(loaded, names, chunks, strict=True)
    ]


def _exacting(encoder: Encoder, name: EncoderName, load: Callable[[Sequence[EncoderName]], list[Encoder]]) -> Encoder:
    """Return the encoder with the way to its float32 model, where it is not one itself."""
    if encoder.space.dtype == "float32":
        return encoder
    full = replace(name, options={key: value for key, value in name.options.items() if key != "dtype"})
    return replace(encoder, exact=cache(lambda: load([full])[0]))


def plan_encoder(
    name: str, known: Iterable[Space], *, device: str = "auto", endpoint: Endpoint | None = None
) -> Encoder:
    """Return an encoder for a dry run: nothing is sent to one that is elsewhere.

    Args:
        known: Spaces that exist already; the one that such an encoder made before is its Space again.
    """
    found = load_encoder(name, device=device, endpoint=replace(endpoint, dry_run=True) if endpoint else None)
    before = next((space for space in known if space.identity == found.space.identity), found.space)
    return replace(found, space=before)


def _chunked(encoder: Encoder, name: EncoderName, chunks: chunking.Chunking) -> Encoder:
    """Return the encoder with a tower that cuts documents into parts; another Space, since its vectors differ."""
    tower = cast(TextTower, encoder.tower("text"))

    def count(text: str) -> int:
        return tower.length(tower.tokenize(text, "document"))

    split = chunking.Splitter(chunks, count, str(name))
    text = {**encoder.space.identity.get("text", {}), "chunk": chunks.as_json()}
    space = replace(encoder.space, encoder=str(name), identity={**encoder.space.identity, "text": text})
    return replace(encoder, name=name, space=space, text=replace(tower, split=split))


def catalogue(pattern: str = "") -> list[str]:
    """Return the names of encoders that contain `pattern`, over all kinds."""
    found: list[str] = []
    for kind in kinds.names("embedder.encoders"):
        module = cast(EncoderKind, kinds.load("embedder.encoders", kind))
        found += [name for name in module.catalogue() if pattern.lower() in name.lower()]
    return found
