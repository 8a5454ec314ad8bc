"""The commands in Markdown exist: each `permafrost VERB …` parses, each script is there, each `pf.NAME` is offered.

A line in a fenced block that holds no placeholder is parsed as the program would parse it. In running text, and where a
line holds `…`, `[`, `<` or `|`, the verb and the names of its options are looked up. Nothing is executed.
"""

from __future__ import annotations

import ast
import re
import shlex
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gates.links import FENCE, pages

PLACEHOLDER = re.compile(r"[…\[\]<>|]|\.\.\.")
SPAN = re.compile(r"(?<!`)`([^`\n]+)`(?!`)")
SCRIPT = re.compile(r"(?<![\w/.-])((?:scripts|\.ci)/[a-z_]+)(?![\w/-]|\.\w)")
DOOR_NAME = re.compile(r"\bpf\.([A-Za-z_]\w*)")
PROMPT = re.compile(r"^\s*(?:[$>]\s+)?(?:\.venv/bin/)?permafrost\s+([\w\[<-].*)$")


def blocks(text: str) -> Iterator[tuple[int, str, str]]:
    """Yield (line number of the first line, language, code) of each fenced block."""
    fence, language, start, lines = "", "", 0, list[str]()
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if mark and not fence:
            fence, language, start, lines = mark[1], line.strip(" `~"), number + 1, []
        elif mark and mark[1] == fence:
            yield start, language, "\n".join(lines)
            fence = ""
        elif fence:
            lines.append(line)


def spans(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, code) of each piece of inline code outside of fenced blocks."""
    fenced = {n for start, _, code in blocks(text) for n in range(start - 1, start + code.count("\n") + 2)}
    for number, line in enumerate(text.splitlines(), 1):
        if number not in fenced:
            yield from ((number, span[1]) for span in SPAN.finditer(line))


def command_lines(code: str) -> Iterator[tuple[int, str]]:
    """Yield (line offset, words after `permafrost`) in a block; lines that end in a backslash are joined."""
    lines = code.splitlines()
    for offset, line in enumerate(lines):
        if found := PROMPT.match(line):
            words, at = found[1], offset
            while words.endswith("\\") and at + 1 < len(lines):
                at += 1
                words = words[:-1] + " " + lines[at].strip()
            yield offset, words


@cache
def group() -> Any:
    """Return the real command line, as one command."""
    from api.cli import program

    return program()


def why_wrong(line: str, *, strict: bool) -> str | None:
    """Say what is wrong with the words after `permafrost`; None where nothing is."""
    try:
        words = shlex.split(line, comments=True)
    except ValueError as error:
        return str(error)
    words = words[: next((i for i, w in enumerate(words) if w in ("|", ">", "2>", "&&", ";", "&")), len(words))]
    if "--help" in words or "-h" in words:
        words = [w for w in words if not w.startswith("-")] + ["--help"]
    return _parse(words) if strict and not PLACEHOLDER.search(" ".join(words)) else _look_up(words)


def _parse(words: list[str]) -> str | None:
    import typer

    from embedder.errors import PermafrostError

    command, context = group(), typer.Context(group(), info_name="permafrost")
    verbs = command.list_commands(context)
    at = next((i for i, w in enumerate(words) if w in verbs), len(words))
    try:
        if "--help" in words or "--version" in words:
            return _look_up(words)
        command.make_context("permafrost", list(words[:at]))
        name, verb, rest = command.resolve_command(context, list(words[at:] or words[:1]))
        verb.make_context(name, rest, parent=context)
    except (PermafrostError, typer.TyperException) as error:
        return " ".join(str(error).split())
    return None


def _look_up(words: list[str]) -> str | None:
    import typer

    command, context = group(), typer.Context(group(), info_name="permafrost")
    known = _options(command, context)
    verb = next((w for w in words if not w.startswith("-") and re.fullmatch(r"[a-z][a-z-]*", w)), None)
    if verb is not None:
        if verb not in command.list_commands(context):
            return f"no verb is called {verb!r}"
        known |= _options(command.get_command(context, verb), context)
    wrong = [w for w in words if re.match(r"--[a-z]", w) and re.split(r"[=…\[\]<>|]", w)[0] not in known]
    return f"{verb or 'permafrost'} has no option {', '.join(wrong)}" if wrong else None


def _options(command: Any, context: Any) -> set[str]:
    return {name for param in command.get_params(context) for name in (*param.opts, *param.secondary_opts)}


def wrong(page: Path, root: Path) -> list[str]:
    """Return `page:line: what` for each command, script or door's name on a page that does not exist."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[int, str]] = []
    for start, language, code in blocks(text):
        for offset, line in command_lines(code):
            found += _said(start + offset, line, strict=True)
        if language.startswith("python"):
            found += _python(start, code)
    for number, span in spans(text):
        if said := PROMPT.match(span):
            found += _said(number, said[1], strict=False)
    for number, line in enumerate(text.splitlines(), 1):
        found += [(number, f"{name}: no such script") for name in SCRIPT.findall(line) if not (root / name).exists()]
    return [f"{page.relative_to(root)}:{number}: {what}" for number, what in sorted(found)]


def _said(number: int, line: str, *, strict: bool) -> list[tuple[int, str]]:
    why = why_wrong(line, strict=strict)
    return [(number, f"permafrost {line}: {why}")] if why else []


def _python(start: int, code: str) -> list[tuple[int, str]]:
    try:
        ast.parse(code)
    except SyntaxError as error:
        return [(start + (error.lineno or 1) - 1, f"not Python: {error.msg}")]
    import permafrost

    offered = set(vars(permafrost).get("__all__", ()))
    return [
        (start + offset, f"pf.{name} is not offered by permafrost.py")
        for offset, line in enumerate(code.splitlines())
        for name in DOOR_NAME.findall(line)
        if name not in offered
    ]


def main() -> int:
    """Print every command of the checkout's pages that does not exist; 1 where there is one."""
    root = Path(__file__).resolve().parents[2]
    found = [line for page in pages(root) for line in wrong(page, root)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
