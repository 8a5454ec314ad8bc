"""The folder of a sentence-transformers model: the modules it chains and the files they are made of. No torch here."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from embedder.encoders._files import read_json
from embedder.errors import EncoderError, MissingFact

PLAIN = ("Pooling", "Normalize", "Dropout")
WEIGHTED = ("Dense", "LayerNorm")
HOME = "sentence_transformers."
INDEX = "model.safetensors.index.json"
WEIGHTS = ("model.safetensors", INDEX, "pytorch_model.bin")
TOKENIZER = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.txt",
    "vocab.json", "merges.txt", "spiece.model", "sentencepiece.bpe.model", "tokenizer.model",
)  # fmt: skip
SETTINGS = ("sentence_bert_config.json", "sentence_roberta_config.json", "sentence_xlm-roberta_config.json")
TOP = ("config_sentence_transformers.json", *SETTINGS)
HIDDEN = ("transformers_version", "_name_or_path", "torch_dtype", "dtype", "architectures")


@dataclass(frozen=True)
class Module:
    """One link: its class in sentence-transformers, and its folder relative to the model's ("" is that itself)."""

    kind: str
    path: str

    def file(self, name: str) -> str:
        """Return the name of a file of this module, relative to the model's folder."""
        return f"{self.path}/{name}" if self.path else name


@dataclass(frozen=True)
class Files:
    """What is read of a folder: all weight files of the chain, and everything else about it that changes a vector."""

    architecture: str
    weights: tuple[Path, ...]
    identity: list[dict[str, Any]]


def chain(folder: Path) -> list[Module]:
    """Return the modules that `modules.json` names, in order.

    Raises:
        MissingFact: there is no such file, so nothing says how tokens are pooled.
        EncoderError: it is damaged, or names something else than the library's own modules.
    """
    path = folder / "modules.json"
    if not path.is_file():
        raise MissingFact(
            f"{folder} has no modules.json, so nothing says how tokens become one vector",
            hint="use transformers: with pooling=, or save the model with SentenceTransformer.save",
        )
    try:
        rows = json.loads(path.read_text("utf-8"))
        found = [Module(_kind(str(row["type"]), path), str(row["path"]).strip("/")) for row in rows]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise EncoderError(f"{path} cannot be read: {error}", hint="copy or download the folder again") from error
    if not found or found[0].kind != "Transformer":
        raise EncoderError(
            f"{folder.name} begins with {found[0].kind if found else 'nothing'}, and only chains that begin with a "
            "Transformer are run here", where=str(path), hint="choose another model",
        )  # fmt: skip
    for module in found:
        if ".." in Path(module.path).parts:
            raise EncoderError(f"a module of {folder.name} is outside its folder: {module.path}", where=str(path))
    return found


def _kind(name: str, where: Path) -> str:
    kind = name.rpartition(".")[2]
    if not name.startswith(HOME) or kind not in ("Transformer", *PLAIN, *WEIGHTED):
        raise EncoderError(
            f"the model chains a module {name}, which is not run here",
            where=str(where), hint="choose another model; code that comes with a model is never run",
        )  # fmt: skip
    return kind


def wanted(folder: Path) -> tuple[list[Sequence[str]], list[str]]:
    """Return the files to download, where `modules.json` is there already: one of each group, and optional ones."""
    required: list[Sequence[str]] = [("modules.json",)]
    optional = list(TOP)
    for module in chain(folder):
        if module.kind == "Transformer":
            required += [(module.file("config.json"),), [module.file(one) for one in WEIGHTS]]
            optional += [module.file(one) for one in (*TOKENIZER, *SETTINGS) if module.file(one) not in optional]
        elif module.kind in WEIGHTED:
            required += [(module.file("config.json"),), [module.file(one) for one in (WEIGHTS[0], WEIGHTS[2])]]
        elif module.kind == "Pooling":
            required.append((module.file("config.json"),))
        else:
            optional.append(module.file("config.json"))
    return required, optional


def read(folder: Path) -> Files:
    """Read what the chain is made of.

    Raises:
        EncoderError: a file is missing or damaged, or an activation is not torch's own.
        MissingFact: nothing says how tokens are pooled.
    """
    modules = chain(folder)
    weights = [path for module in modules for path in _weights(folder, module)]
    configs = [_config(folder, module) for module in modules]
    identity = [{"kind": m.kind, "config": config} for m, config in zip(modules, configs, strict=True)]
    return Files(str(configs[0].get("model_type", "unknown")), tuple(weights), identity)


def _weights(folder: Path, module: Module) -> Iterator[Path]:
    if module.kind in PLAIN:
        return
    for name in WEIGHTS:
        path = folder / module.file(name)
        if path.is_file():
            yield from [folder / part for part in shards(path, folder)] if name == INDEX else [path]
            return
    raise EncoderError(
        f"{folder / module.path} holds no weights", where=module.kind, hint="copy or download the folder again"
    )


def shards(index: Path, folder: Path) -> list[str]:
    """Return the weight files that an index names, relative to the model's folder."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        return [str((index.parent / Path(name).name).relative_to(folder)) for name in names]
    except (KeyError, TypeError, AttributeError) as error:
        raise EncoderError(f"{index} names no weights", hint="copy or download the folder again") from error


def _config(folder: Path, module: Module) -> dict[str, Any]:
    """Return a module's configuration as it counts in the Space: without what says only who wrote it."""
    path = folder / module.file("config.json")
    if not path.is_file() and module.kind in ("Normalize", "Dropout"):
        return {}
    record = {key: value for key, value in read_json(path).items() if key not in HIDDEN}
    activation = record.get("activation_function")
    if activation is not None and not str(activation).startswith("torch."):
        raise EncoderError(
            f"{module.path} has the activation {activation}, which is not torch's own; the library would silently "
            "take another", where=str(path), hint="choose another model",
        )  # fmt: skip
    return record
