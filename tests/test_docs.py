"""The documents say what is there: links, anchors, commands, scripts, and the door's names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from gates import commands, links

ROOT = Path(__file__).resolve().parents[1]
PAGES = [p.relative_to(ROOT).as_posix() for p in links.pages(ROOT)]


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_and_anchor_leads_somewhere(page: str) -> None:
    assert links.dead(ROOT / page, ROOT) == []


@pytest.mark.parametrize("page", PAGES)
def test_every_command_script_and_python_name_exists(page: str) -> None:
    assert commands.wrong(ROOT / page, ROOT) == []


def test_the_readme_names_the_two_commands_and_the_door() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = [line.split("#")[0].strip() for _, _, code in commands.blocks(text) for line in code.splitlines()]
    assert {"scripts/quickstart", "scripts/test"} <= set(lines)
    assert "import permafrost as pf" in lines


@pytest.mark.parametrize("name", ["quickstart", "test", "check", "bench", "parity"])
def test_scripts_can_be_executed(name: str) -> None:
    path = ROOT / "scripts" / name
    assert os.access(path, os.X_OK)
    assert path.read_text(encoding="utf-8").startswith("#!/usr/bin/env bash\n")


def test_dead_links_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "# One `two` three!\n\n[a](page.md#one-two-three) [b](#one-two-three) [c](https://example.org/x) `[d](e.md)`\n"
        "[f](gone.md) ![g](gone.png) [h](#four) [i](../outside.md)\n\n```\n[j](k.md)\n```\n\n[l]: m.md\n",
        encoding="utf-8",
    )
    (tmp_path.parent / "outside.md").write_text("", encoding="utf-8")
    assert links.dead(page, tmp_path) == [
        "page.md:4: gone.md: no such file",
        "page.md:4: gone.png: no such file",
        "page.md:4: #four: no such heading",
        "page.md:4: ../outside.md: leads out of the repository",
        "page.md:10: m.md: no such file",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "embed photos/ --into photos --encoder 'bundled:efficientnet_lite0?fit=pad' --json",
        "--store s search photos --image x.jpg -k 3 --where \"label = 'cat'\"",
        "train photos --label label",
        "ls --json | jq .collections",
        "--help",
        "embed --help",
    ],
)
def test_right_commands_pass(line: str) -> None:
    assert commands.why_wrong(line, strict=True) is None


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("embd photos/ --into photos", "no verb is called 'embd'"),
        ("embed photos/ --into photos --encodr x", "encodr"),
        ("embed photos/", "into"),
        ("search photos words -k many", "whole number"),
        ("train photos --label [X] --made-up", "train has no option --made-up"),
        ("--stor x ls", "stor"),
    ],
)
def test_wrong_commands_are_found(line: str, said: str) -> None:
    assert said in (commands.why_wrong(line, strict=True) or "")


def test_wrong_pages_are_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "Run `permafrost embed SOURCE --into C --nope` and scripts/gone.\n\n"
        "```sh\n$ permafrost embed photos/ \\\n    --into photos --nope\n```\n\n"
        "```python\nimport permafrost as pf\npf.made_up()\n```\n\n```python\nfor\n```\n",
        encoding="utf-8",
    )
    found = [line.removeprefix("page.md:").split(":")[0] for line in commands.wrong(page, tmp_path)]
    assert found == ["1", "1", "4", "10", "14"]
