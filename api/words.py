"""Words of a command line to values, with errors in our own form and without pydantic, which typer would import."""

from __future__ import annotations

import math
from typing import Any

from embedder.errors import UnknownName, UsageError


class Reader:
    """Reads the words of one option or argument: text, a whole number, a number, a choice, or a list of these."""

    def coerce(self, value: Any, param: Any, ctx: Any) -> Any:
        """Return the value. Raises `UsageError`, naming the option, where the word is not one."""
        many = param.multiple or param.nargs == -1
        if value is None:
            return () if many else None
        place = (" / ".join(param.opts) if param.param_type_name == "option" else str(param.metavar), ctx.command_path)
        about = param.type_descriptor
        return tuple(_one(v, about, place) for v in value) if many else _one(value, about, place)


def _one(word: Any, about: Any, place: tuple[str, str]) -> Any:
    if about.choices is not None:
        return _choice(word, [str(c) for c in about.choices], place)
    number = _NUMBERS.get(about.annotation)
    return word if number is None else _number(word, number, about.parameter_info, place)


def _choice(word: Any, choices: list[str], place: tuple[str, str]) -> str:
    if word not in choices:
        raise UnknownName.of(
            f"choice of {place[0]}", str(word), choices, where=place[1], hint=f"one of: {', '.join(choices)}"
        )
    return str(word)


def _number(word: Any, kind: tuple[type, str], limits: Any, place: tuple[str, str]) -> Any:
    try:
        value = kind[0](word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UsageError(f"{place[0]} takes {kind[1]}, not {word!r}", where=place[1], hint=f"{place[1]} --help")
    low, high = limits.min, limits.max
    if (low is not None and value < low) or (high is not None and value > high):
        allowed = f"from {low} to {high}" if high is not None else f"of at least {low}"
        raise UsageError(f"{place[0]} takes {kind[1]} {allowed}, not {word}", where=place[1], hint=f"{place[1]} --help")
    return value


_NUMBERS: dict[Any, tuple[type, str]] = {int: (int, "a whole number"), float: (float, "a number")}


def with_readers(command: Any) -> Any:
    """Return a typer command whose words are read here, those of its help option too."""
    import typer

    for param in command.get_params(typer.Context(command, **command.context_settings)):
        param._runtime_param = Reader()
    return command
