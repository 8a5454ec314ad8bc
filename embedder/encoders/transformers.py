"""Models of the transformers library through its Auto classes: BERT, RoBERTa, MiniLM, GPT-2, LLaMA, Mistral, Falcon, …
for texts, and ViT, DINOv2, … for pictures. From the hub, from a folder, or untrained.

`transformers:google-bert/bert-base-uncased` · `transformers:ORG/REPO@REV` · `transformers:./FOLDER` ·
`transformers:ORG/REPO?weights=FILE` (configuration and tokenizer of ORG/REPO, other weights) ·
`transformers:bert?weights=FOLDER` · `transformers:ORG/REPO?weights=random&seed=1`

A name of the form ORG/REPO is the hub's; a folder begins with `/`, `.`, `~` or `local-dir:`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from embedder.encoder import Encoder
from embedder.encoders import _hub
from embedder.encoders._common import OFFLINE_HINT, Settings, settings
from embedder.encoders._files import read_json
from embedder.errors import EncoderError, UnknownName, UsageError
from embedder.naming import COMMON_OPTIONS, IMAGE_OPTIONS, TEXT_OPTIONS, EncoderName

OPTIONS = COMMON_OPTIONS | IMAGE_OPTIONS | TEXT_OPTIONS
HINT = f"for texts {OFFLINE_HINT['text']}; for pictures {OFFLINE_HINT['image']}"
WEIGHTS = (
    "model.safetensors", "model.safetensors.index.json", "pytorch_model.bin", "pytorch_model.bin.index.json",
)  # fmt: skip
VOCABULARIES = (
    "tokenizer.json", "vocab.json", "vocab.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model",
)  # fmt: skip
TOKENIZER_FILES = (
    *VOCABULARIES, "merges.txt", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
)  # fmt: skip
PROCESSOR = "preprocessor_config.json"
CHAIN = "modules.json"
LOCAL = "local-dir:"
KNOWN = (
    "google-bert/bert-base-uncased", "FacebookAI/roberta-base", "FacebookAI/xlm-roberta-base",
    "distilbert/distilbert-base-uncased", "answerdotai/ModernBERT-base", "microsoft/MiniLM-L12-H384-uncased",
    "openai-community/gpt2", "HuggingFaceTB/SmolLM2-135M", "meta-llama/Llama-3.2-1B", "mistralai/Mistral-7B-v0.3",
    "tiiuae/falcon-7b", "google/vit-base-patch16-224-in21k", "facebook/dinov2-base", "facebook/dino-vits16",
    "microsoft/resnet-50",
)  # fmt: skip


@dataclass(frozen=True)
class Source:
    """A folder with a configuration and what prepares inputs; the weight files, none for untrained ones."""

    folder: Path
    files: tuple[Path, ...]
    revision: str | None = None


def catalogue() -> list[str]:
    """Return well-known models of the hub; any other ORG/REPO there can be asked for too."""
    return [f"transformers:{repo}" for repo in KNOWN]


def load(name: EncoderName, device: str) -> Encoder:
    """Load a model, with its own tokenizer or image processor.

    Raises:
        UnknownName: neither a folder nor ORG/REPO.
        EncoderError: the weights are not reachable, are damaged, or do not fit.
        MissingFact: nothing says how texts are tokenised, how long they may be, or how pictures are made.
    """
    return load_together([name], device)[0]


def load_together(names: Sequence[EncoderName], device: str) -> list[Encoder]:
    """Load one model for names that differ in what is read out of it; raises as `load` does."""
    chosen = settings(names[0])
    source = locate(names[0], chosen)
    from embedder.encoders import _transformers_model

    return _transformers_model.load(names, chosen, source, device)


def locate(name: EncoderName, chosen: Settings) -> Source:
    """Find the files, without building the model."""
    given = chosen.path
    if given is not None and given.is_dir():
        if name.revision:
            raise UsageError("a revision is of the hub, and weights= is a folder here", where=str(name))
        return Source(given, weights_in(given))
    text = name.name
    if text.startswith((LOCAL, "/", ".", "~")):
        folder = Path(text.removeprefix(LOCAL) + (f"@{name.revision}" if name.revision else "")).expanduser()
        if not folder.is_dir():
            raise EncoderError(f"there is no folder {folder}", hint="check the path")
        return Source(folder, _files(folder, chosen))
    repo = text.removeprefix("hf-hub:").rstrip("/")
    if repo.count("/") != 1 or not all(repo.split("/")):
        short = {known.partition("/")[2]: f"write transformers:{known}" for known in KNOWN}
        raise UnknownName.of(
            "transformers model", text, [], where=str(name),
            hint=short.get(text, "write ORG/REPO for one of the hub, or ./FOLDER for one here"),
        )  # fmt: skip
    return _on_hub(repo, name.revision, chosen)


def weights_in(folder: Path) -> tuple[Path, ...]:
    """Return the weight file of a folder, or all its parts where an index names them; safetensors are preferred.

    Raises:
        EncoderError: there is none, or a part is missing.
    """
    found = next((folder / file for file in WEIGHTS if (folder / file).is_file()), None)
    if found is None:
        raise EncoderError(f"{folder} holds no weights", hint=f"one of {', '.join(WEIGHTS)} is needed")
    parts = tuple(folder / part for part in parts_of(found)) or (found,)
    for part in parts:
        if not part.is_file():
            raise EncoderError(
                f"{part.name} is missing, and {found.name} names it", where=str(folder),
                hint="copy or download the folder again",
            )  # fmt: skip
    return parts


def parts_of(file: Path) -> list[str]:
    """Return the names of the files that an index lists; none for a file that is no index."""
    if file.suffix != ".json":
        return []
    table = read_json(file).get("weight_map")
    if not isinstance(table, dict) or not table or any(Path(str(part)).name != part for part in table.values()):
        raise EncoderError(f"{file} is no index of weights", hint="copy or download the folder again")
    return sorted(set(table.values()))


def _files(folder: Path, chosen: Settings) -> tuple[Path, ...]:
    if chosen.seed is not None:
        return ()
    return weights_in(folder) if chosen.path is None else (chosen.path,)


def _on_hub(repo: str, revision: str | None, chosen: Settings) -> Source:
    own = chosen.seed is None and chosen.path is None
    hint = f"{HINT}; the folder of that name is ./{repo}" if Path(repo).is_dir() else HINT
    wanted: list[Sequence[str]] = [("config.json",), *([WEIGHTS] if own else [])]
    snapshot = _hub.fetch(repo, revision, wanted, (*TOKENIZER_FILES, PROCESSOR, CHAIN), offline_hint=hint)
    folder = snapshot.folder
    if own:
        first = next(folder / file for file in WEIGHTS if (folder / file).is_file())
        if parts := parts_of(first):
            _hub.fetch(repo, snapshot.commit, [(part,) for part in parts], offline_hint=hint)
    return Source(folder, _files(folder, chosen), snapshot.commit)
