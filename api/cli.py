"""The command line: parse, act, print, and end with the right number. A file in `api/commands/` is a verb.

Nothing heavy is imported before a verb's body runs: help, a mistyped verb or a wrong option answer at once.
Results go to stdout, progress, notes and errors to stderr; with `--json` stdout holds one document and nothing else.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from inspect import Parameter, Signature, cleandoc, signature
from types import FrameType
from typing import Any, NoReturn, TextIO

import typer
from typer.core import TyperGroup
from typer.main import get_command as command_of

from api import options, show
from api.calls import Call, Result
from api.documents import dumps
from api.failure import TERMINATED, Failure, explain
from api.words import with_readers
from embedder import kinds
from embedder.errors import UnknownName, UsageError

PROGRAM = "permafrost"
VERBS = "api.commands"
HELP_NAMES = {"help_option_names": ["-h", "--help"]}


class Verbs(TyperGroup):
    """The group of verbs: each is imported when it is asked for."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of all verbs."""
        return verbs()

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a verb, or None where there is none of this name."""
        return verb(cmd_name) if cmd_name in self.list_commands(ctx) else None

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """Find the verb. Raises `UnknownName` with the nearest ones."""
        known = self.list_commands(ctx)
        if args[0] not in known:
            raise UnknownName.of("verb", args[0], known, where=PROGRAM, hint=f"verbs: {', '.join(known)}")
        return super().resolve_command(ctx, args)


def verbs() -> list[str]:
    """Return the names of all verbs: those of their files, `-` for `_`."""
    return [name.replace("_", "-") for name in kinds.names(VERBS)]


def verb(name: str) -> Any:
    """Import one verb and return it as a command, with the options that all verbs share."""
    module = kinds.load(VERBS, name.replace("-", "_"), "verb")
    app = typer.Typer(add_completion=False, rich_markup_mode=None, context_settings=HELP_NAMES)
    app.command(name, help=cleandoc(module.run.__doc__))(_with_shared_options(module.run))
    return with_readers(command_of(app))


def _with_shared_options(run: Callable[..., Result]) -> Callable[..., Result]:
    def act(ctx: typer.Context, store: str | None, json: bool, debug: bool, **given: Any) -> Result:
        call = ctx.obj.with_options(store, json, debug)
        with redirect_stdout(sys.stderr):
            return run(call, **given)

    own = list(signature(run, eval_str=True).parameters.values())[1:]
    shared = [("store", options.Store, None), ("json", options.Json, False), ("debug", options.Debug, False)]
    extra = [Parameter(n, Parameter.KEYWORD_ONLY, annotation=a, default=d) for n, a, d in shared]
    context = Parameter("ctx", Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context)
    chosen = [p.replace(kind=Parameter.KEYWORD_ONLY) for p in own]
    act.__signature__ = Signature([context, *chosen, *extra])  # type: ignore[attr-defined]
    act.__annotations__ = {}
    return act


def program() -> Any:
    """Return the whole command line as one command."""
    app = typer.Typer(cls=Verbs, add_completion=False, rich_markup_mode=None, context_settings=HELP_NAMES)
    app.callback(invoke_without_command=True)(_root)
    return with_readers(command_of(app))


def _root(
    ctx: typer.Context, store: options.Store = None, json: options.Json = False, debug: options.Debug = False,
    version: options.Version = False,
) -> None:  # fmt: skip
    """Frozen encoders, living indexes: embed a folder or a table once, search it, and train heads on its vectors."""
    ctx.obj = Call(store, json, debug)
    if version:
        from importlib.metadata import version as installed

        typer.echo(f"{PROGRAM} {installed(PROGRAM)}")
        raise typer.Exit
    if ctx.invoked_subcommand is None:
        raise UsageError("a verb is missing", where=PROGRAM, hint=f"one of: {', '.join(kinds.names(VERBS))}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command line and return its exit code.

    Returns:
        0 done · 1 failed · 2 wrong usage, or nothing to do · 3 refused · 4 too many items failed · 5 locked ·
        6 out of a resource · 130 interrupted · 143 terminated.
    """
    args = list(sys.argv[1:] if argv is None else argv)
    words = args[: args.index("--")] if "--" in args else args
    as_json, debug = "--json" in words, "--debug" in words
    with _signals():
        try:
            result = perform(args or ["--help"])
        except BaseException as error:  # noqa: BLE001  the last stop: every exception becomes an exit code
            return _deliver_failure(error, as_json=as_json, debug=debug)
    if isinstance(result, Result):
        return _deliver(result, as_json=as_json)
    return int(result or (0 if args else UsageError.exit_code))


def perform(args: list[str]) -> Any:
    """Run one command line: a `Result`, or an exit code where it only printed help.

    Raises:
        PermafrostError: whatever went wrong, also in the words that were typed.
    """
    try:
        found = program().main(args, prog_name=PROGRAM, standalone_mode=False)
    except typer.TyperException as error:
        _usage(error, args)
    except SystemExit as stop:
        if stop.code == TERMINATED:
            raise
        # typer's own way out where the reader of the help has gone
        return 0
    if found == 130:
        raise KeyboardInterrupt
    return found


def _usage(error: typer.TyperException, args: list[str]) -> NoReturn:
    """Say what is wrong with the words that were typed, in our own form."""
    ctx = getattr(error, "ctx", None)
    named = next((word for word in args if word in kinds.names(VERBS)), "")
    where = ctx.command_path if ctx else f"{PROGRAM} {named}".strip()
    option = getattr(error, "option_name", None)
    if ctx and type(error).__name__ == "NoSuchOption":
        known = [name for param in ctx.command.get_params(ctx) for name in param.opts if name.startswith("--")]
        raise UnknownName.of("option", str(option), known, where=where, hint=f"{where} --help") from error
    usage = " ".join(ctx.get_usage().split()).removeprefix("Usage: ") if ctx else f"{where} --help"
    raise UsageError(" ".join(error.format_message().split()), where=where, hint=usage) from error


def _deliver(result: Result, *, as_json: bool) -> int:
    failure = explain(result.error) if result.error is not None else None
    if as_json:
        _print_document({**result.document, **({"error": failure.as_json()} if failure else {})})
    else:
        _print(result.text, sys.stdout)
        _print(result.note, sys.stderr)
    if failure is None:
        return result.exit_code
    _print(error_lines(failure), sys.stderr)
    return failure.exit_code


def _deliver_failure(error: BaseException, *, as_json: bool, debug: bool) -> int:
    failure = explain(error)
    if debug:
        traceback.print_exception(error, file=sys.stderr)
    if as_json:
        _print_document({"error": failure.as_json()})
    _print(error_lines(failure), sys.stderr)
    return failure.exit_code


def _print_document(document: Mapping[str, Any]) -> None:
    _print(dumps(document, indent=2 if sys.stdout.isatty() else None), sys.stdout)


def error_lines(failure: Failure) -> str:
    """Return the three lines of an error: what, where, what to do; without those that have nothing to say."""
    lines = [("error: ", failure.what), ("where: ", failure.where), ("do:    ", failure.hint)]
    return "\n".join(name + show.safe(text) for name, text in lines if text)


def _print(text: str, stream: TextIO) -> None:
    if not text:
        return
    try:
        stream.write(text + "\n")
        stream.flush()
    except BrokenPipeError:
        # the reader has seen enough; what Python still flushes at exit must find an open file
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    except UnicodeEncodeError:
        stream.write(text.encode("ascii", "backslashreplace").decode("ascii") + "\n")


@contextmanager
def _signals() -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into an exception, so that what was done is kept; a second one ends at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(TERMINATED)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
