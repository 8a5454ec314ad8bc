"""Text encoders of sentence-transformers: the whole chain of modules, its prompts, and shortened (Matryoshka) vectors.

`sentence_transformers:ORG/REPO[@REV]` · `sentence_transformers:./FOLDER` · `…?dimensions=256`

A name of the form ORG/REPO is the hub's; a folder begins with `/`, `.`, `~` or `local-dir:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from embedder.encoder import Encoder
from embedder.encoders import _hub, _modules
from embedder.encoders._common import OFFLINE_HINT, settings
from embedder.errors import EncoderError, UnknownName, UsageError
from embedder.naming import COMMON_OPTIONS, TEXT_OPTIONS, EncoderName

OPTIONS = COMMON_OPTIONS | TEXT_OPTIONS | {"dimensions"}
LOCAL = "local-dir:"
SOME = (
    "sentence-transformers/all-MiniLM-L6-v2",
    "sentence-transformers/all-mpnet-base-v2",
    "sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2",
    "BAAI/bge-small-en-v1.5",
    "intfloat/multilingual-e5-small",
    "mixedbread-ai/mxbai-embed-large-v1",
)


def catalogue() -> list[str]:
    """Return some well-known names; any repository of sentence-transformers on the hub can be asked for."""
    return [f"sentence_transformers:{name}" for name in SOME]


def load(name: EncoderName, device: str) -> Encoder:
    """Load a repository of the hub, or a folder that `SentenceTransformer.save` wrote.

    Raises:
        UnknownName: neither a folder nor ORG/REPO.
        EncoderError: the files are not reachable, are damaged, or need code that is not in the library.
        MissingFact: nothing says how the tokens are pooled.
        UsageError: an option that this model cannot follow, such as more `dimensions` than it has.
    """
    return load_together([name], device)[0]


def load_together(names: Sequence[EncoderName], device: str) -> list[Encoder]:
    """Load one model for names that differ in what is read out of it; raises as `load` does."""
    name = names[0]
    chosen = settings(name)
    if chosen.weights not in ("default", "random"):
        raise UsageError("weights=PATH is not for this kind", where=str(name), hint="name the folder itself")
    dimensions = name.integer("dimensions", None, low=1, high=1 << 20)
    folder, revision = _located(name)
    chain = _modules.read(folder)
    provenance: dict[str, Any] = {"revision": revision, "licence": "unknown", "source": name.name}
    from embedder.encoders import _sentence

    return _sentence.load(
        names, chosen, folder, chain.weights, f"sentence_transformers/{chain.architecture}", provenance, device,
        dimensions=dimensions, more={"modules": chain.identity},
    )  # fmt: skip


def _located(name: EncoderName) -> tuple[Path, str | None]:
    text = name.name
    if text.startswith((LOCAL, "/", ".", "~")):
        path = text.removeprefix(LOCAL) + (f"@{name.revision}" if name.revision else "")
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise EncoderError(f"there is no folder {folder}", hint="check the path")
        return folder, None
    repo = text.removeprefix("hf-hub:").rstrip("/")
    if repo.count("/") != 1 or not all(repo.split("/")):
        raise UnknownName.of(
            "sentence-transformers model", text, SOME, where=str(name),
            hint="write ORG/REPO for one of the hub, or ./FOLDER for one here",
        )  # fmt: skip
    return _on_hub(repo, name.revision)


def _on_hub(repo: str, revision: str | None) -> tuple[Path, str]:
    """Download what the chain reads: first the list of its modules, then their files at the same commit."""
    hint = OFFLINE_HINT["text"]
    if Path(repo).is_dir():
        hint = f"{hint}; the folder of that name is ./{repo}"
    first = _hub.fetch(repo, revision, [("modules.json",)], offline_hint=hint)
    required, optional = _modules.wanted(first.folder)
    snapshot = _hub.fetch(repo, first.commit, required, optional, offline_hint=hint)
    _shards(repo, snapshot, required, hint)
    return snapshot.folder, snapshot.commit


def _shards(repo: str, snapshot: _hub.Snapshot, required: Sequence[Sequence[str]], hint: str) -> None:
    for file in [file for group in required for file in group if file.endswith(_modules.INDEX)]:
        if (snapshot.folder / file).is_file():
            parts = [(part,) for part in _modules.shards(snapshot.folder / file, snapshot.folder)]
            _hub.fetch(repo, snapshot.commit, parts, offline_hint=hint)
