"""What is typed: help, names, options and values are answered at once, in our own form, and 2 where wrong."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from api.cli import main, verbs
from tests.api.conftest import ROOT, Run, environment

HEAVY = ("torch", "lancedb", "pyarrow", "pydantic", "sklearn", "numpy", "rich", "PIL", "api.service")
PROBE = """
import sys
from api.cli import main
code = main(sys.argv[2:])
print(",".join(name for name in sys.argv[1].split(",") if name in sys.modules), file=sys.stderr)
sys.exit(code)
"""
VERBS = {
    "alias", "backup", "classify", "delete", "doctor", "duplicates", "embed", "encoders", "export", "export-head",
    "finetune", "import", "index", "info", "keys", "label", "label-errors", "ls", "mcp", "reembed", "report", "restore",
    "search", "serve", "tag", "train", "vacuum", "verify",
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (["--help"], 0),
        (["search", "--help"], 0),
        (["embed", "-h"], 0),
        (["serch", "x"], 2),
        (["search", "c", "--sapce", "x"], 2),
        (["search", "c", "-k", "many"], 2),
        (["embed", "x"], 2),
        (["--json", "embed", "x", "--into", "c", "--media", "sound"], 2),
    ],
)
def test_words_alone_import_nothing_heavy(words: list[str], code: int) -> None:
    command = [sys.executable, "-c", PROBE, ",".join(HEAVY), *words]
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), cwd=ROOT, timeout=60, check=False)
    assert done.returncode == code
    assert done.stderr.splitlines()[-1] == "", "these were imported"


def test_every_verb_is_listed_and_has_help(run: Run) -> None:
    assert set(verbs()) == VERBS
    listed = run("--help").out
    for verb in VERBS:
        line = next(line for line in listed.splitlines() if line.strip().startswith(f"{verb} "))
        assert "..." not in line, "a summary is cut"
        helped = run(verb, "--help")
        assert helped.code == 0
        assert helped.out.startswith(f"Usage: permafrost {verb}")
        assert all(len(line) <= 80 for line in helped.out.splitlines())


def test_no_words_give_help_and_are_wrong_usage(run: Run) -> None:
    said = run()
    assert said.code == 2
    assert "Usage: permafrost" in said.out


def test_the_version_is_that_of_the_distribution(run: Run) -> None:
    from importlib.metadata import version

    assert run("--version").out == f"permafrost {version('permafrost')}\n"


@pytest.mark.parametrize(
    ("words", "what", "where", "do"),
    [
        (["serch", "x"], "no verb is called 'serch'", "permafrost", "search"),
        (["search", "c", "--sapce", "x"], "no option is called '--sapce'", "permafrost search", "--space"),
        (["embed", "s", "--int", "c"], "no option is called '--int'", "permafrost embed", "--into"),
        (["embed", "s"], "Missing option '--into'", "permafrost embed", "SOURCE"),
        (["info"], "Missing argument 'C'", "permafrost info", "permafrost info"),
        (["ls", "more"], "unexpected extra argument", "permafrost ls", "permafrost ls"),
        (["search", "c", "-k"], "'-k' requires an argument", "permafrost search", "permafrost search"),
        (["search", "c", "-k", "x"], "-k / --k takes a whole number, not 'x'", "permafrost search", "--help"),
        (["search", "c", "-k", "0"], "from 1 to 10000, not 0", "permafrost search", "--help"),
        (["search", "c", "-k", "3.5"], "takes a whole number", "permafrost search", "--help"),
        (["embed", "s", "--into", "c", "--limit", "0"], "of at least 1", "permafrost embed", "--help"),
        (["embed", "s", "--into", "c", "--max-failure-rate", "nan"], "takes a number", "permafrost embed", "--help"),
        (["embed", "s", "--into", "c", "--max-failure-rate", "1.5"], "from 0 to 1", "permafrost embed", "--help"),
        (["embed", "s", "--into", "c", "--media", "imag"], "'imag'", "permafrost embed", "image"),
        (["embed", "s", "--into", "c", "--engine", "ray"], "'ray'", "permafrost embed", "local"),
        (["embed", "s", "--into", "c", "--batch-size", "none"], "'none' is not a batch size", "--batch-size", "auto"),
        (["embed", "s", "--into", "c", "--rename", "ab"], "'ab' is not a pair", "--rename", "A=B"),
        (["index", "c", "--memory", "4 elephants"], "is not a quantity", "--memory", "4GiB"),
        (["index", "c", "--latency", "fast"], "is not a quantity", "--latency", "10ms"),
        (["classify", "justone", "x"], "'justone' is not a head", "permafrost classify", "C/HEAD"),
        (["delete", "c"], "one of --id, --where and --all is needed", "permafrost delete", ""),
        (["delete", "c", "--id", "a", "--all"], "--id and --all was given", "permafrost delete", ""),
        (["--store", "x"], "a verb is missing", "permafrost", "embed"),
    ],
)
def test_wrong_words_say_what_where_and_what_to_do(run: Run, words: list[str], what: str, where: str, do: str) -> None:
    said = run(*words)
    assert said.code == 2
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0].startswith("error: ")
    assert what in lines[0]
    assert lines[1].startswith("where: ")
    assert where in lines[1]
    assert len(lines) <= 3
    if do:
        assert lines[2].startswith("do:    ")
        assert do in lines[2]


@pytest.mark.parametrize("words", [["--json", "serch"], ["ls", "--json", "--bad"], ["info", "--json"]])
def test_wrong_words_are_one_document_under_json(run: Run, words: list[str]) -> None:
    said = run(*words)
    assert said.code == 2
    error = said.json["error"]
    assert set(error) == {"type", "message", "where", "hint", "exit_code"}
    assert error["exit_code"] == 2
    assert "error: " in said.err


def test_shared_options_go_before_and_after_the_verb(run: Run, built: Path, tmp_path: Path) -> None:
    ways = [
        ["--store", built, "--json", "ls"], ["ls", "--store", built, "--json"], ["--json", "ls", "--store", built],
        ["--store", tmp_path / "other", "ls", f"--store={built}", "--json"],
    ]  # fmt: skip
    documents = [run(*way).json for way in ways]
    assert documents[0]["store"] == str(built)
    assert all(document == documents[0] for document in documents)


def test_the_store_of_the_environment_comes_after_that_of_the_words(
    run: Run, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PERMAFROST_STORE", str(built))
    assert run("ls", "--json").json["store"] == str(built)
    assert run("ls", "--store", tmp_path / "none", "--json").code == 2


def test_words_after_two_dashes_are_no_options(run: Run, built: Path) -> None:
    said = run("search", "notes", "--store", built, "-k", "1", "--", "--json")
    assert said.code == 0
    assert not said.out.startswith("{")


def test_control_characters_in_words_do_not_reach_the_terminal(run: Run) -> None:
    said = run("\x1b[31mred\u202e")
    assert said.code == 2
    assert "\x1b" not in said.err
    assert "\u202e" not in said.err


def test_main_gives_the_code_back_instead_of_ending_the_process() -> None:
    assert main(["no-such-verb"]) == 2
