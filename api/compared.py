"""Names of what a report compares: encoders, their untrained twins, and other places to read them at."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from embedder import kinds, naming
from embedder.errors import PermafrostError, UsageError
from embedder.naming import EncoderName

DRAWS = 3
READ_ELSEWHERE: Sequence[Mapping[str, str]] = ({"layer": "-2"}, {"layer": "-3"}, {"pooling": "max"})
PLACES = ("layer", "pooling")


@dataclass(frozen=True)
class Wanted:
    """One name to compare, as `heads.report.gather.Chosen` has it; `derived` was not asked for by the user."""

    name: str
    kind: str
    of: str | None = None
    derived: bool = False


def wanted(asked: Sequence[str], *, layers: bool, controls: bool) -> list[Wanted]:
    """Say what each name is, and add what belongs to it: encoders first, then layers, then untrained twins.

    A name with `weights=random` is a control, one with `layer=` or `pooling=` a layer of the same name without; either
    may be asked for by itself, and then is an encoder like others where its own is not there. The twin of a single
    encoder is drawn three times; of several, each is drawn once, and the best again when that is known.
    """
    names = list(dict.fromkeys(asked))
    parents = {name: parent for name in names if (parent := _without(name, *PLACES)) != name}
    layer = {name: parent for name, parent in parents.items() if parent in names}
    untrained = {name: _without(name, "weights", "seed") for name in names if _option(name, "weights") == "random"}
    plain = [name for name in names if name not in layer and name not in untrained]
    if not plain:
        raise UsageError("there is no encoder to compare", hint="name one that was trained with --encoder")
    found = [Wanted(name, "encoder") for name in plain]
    found += [Wanted(name, "layer", of) for name, of in layer.items() if name not in untrained]
    found += [Wanted(name, "random", of) for name, of in untrained.items()]
    more = [Wanted(one, "layer", name, derived=True) for name in plain if layers for one in deeper(name)]
    alone = sum(bool(twins(name)) for name in plain) == 1
    more += [
        Wanted(one, "random", name, derived=True)
        for name in plain
        if controls
        for one in twins(name, DRAWS if alone else 1)
    ]
    return found + [one for one in more if one.name not in names]


def deeper(name: str) -> list[str]:
    """Return other layers and poolings of an encoder, where its kind counts layers and the name names none."""
    parsed, options = _read(name)
    if parsed is None or not {"layer", "pooling"} <= options or any(place in parsed.options for place in PLACES):
        return []
    return [str(replace(parsed, options={**parsed.options, **more})) for more in READ_ELSEWHERE]


def twins(name: str, draws: int = 1) -> list[str]:
    """Return the same architecture untrained, with as many seeds from 0 on, where its kind has that."""
    parsed, options = _read(name)
    if parsed is None or not {"weights", "seed"} <= options or "weights" in parsed.options:
        return []
    seeds = map(str, range(draws))
    return [str(replace(parsed, options={**parsed.options, "weights": "random", "seed": seed})) for seed in seeds]


def _read(name: str) -> tuple[EncoderName | None, frozenset[str]]:
    try:
        parsed = naming.parse(name)
        return parsed, frozenset(kinds.load("embedder.encoders", parsed.kind).OPTIONS)
    except PermafrostError:
        # a declared Space: its vectors came ready, and nothing else can be made of it
        return None, frozenset()


def _option(name: str, option: str) -> str | None:
    parsed, _ = _read(name)
    return None if parsed is None else parsed.options.get(option)


def _without(name: str, *options: str) -> str:
    parsed, _ = _read(name)
    if parsed is None:
        return name
    return str(replace(parsed, options={k: v for k, v in parsed.options.items() if k not in options}))
