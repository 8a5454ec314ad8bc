"""The tools for agents, through the protocol's own client and a real process."""

from __future__ import annotations

import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from tests.api.conftest import NOTES, environment

mcp = pytest.importorskip("mcp", reason="the extra mcp is not installed")
PROGRAM = "import sys; from api.cli import main; sys.exit(main())"
READING = ["list_collections", "describe", "search", "classify"]


def talk(store: Path, act: Callable[[Any], Awaitable[None]], *words: str) -> None:
    """Start the server, and speak to it."""
    args = ["-c", PROGRAM, "--store", str(store), "mcp", *words]

    async def go() -> None:
        async with mcp.Client(
            mcp.StdioServerParameters(command=sys.executable, args=args, env=environment())
        ) as client:
            await act(client)

    anyio.run(go)


def document(reply: Any) -> Any:
    assert not reply.is_error, reply.content[0].text
    return json.loads(reply.content[0].text)


def test_an_agent_reads_a_store(built: Path) -> None:
    async def act(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == READING
        assert all(tool.annotations.read_only_hint for tool in tools.values())
        listed = document(await client.call_tool("list_collections", {}))["collections"]
        assert [(row["name"], row["heads"]) for row in listed] == [("notes", ["subject@1"]), ("pics", ["colour@1"])]
        about = document(await client.call_tool("describe", {"collection": "notes"}))
        assert about["items"] == NOTES
        assert about["columns"]["year"] == "int"
        asked = {"collection": "notes", "text": "a red boat", "where": "year >= 2020", "k": 3}
        hits = document(await client.call_tool("search", asked))["hits"]
        assert [hit["item"]["label"] for hit in hits] == ["boat"] * 3
        assert all("source" not in hit["item"] for hit in hits)
        asked = {"collection": "notes", "head": "subject", "texts": ["the stock market"], "ids": ["n0"]}
        results = document(await client.call_tool("classify", asked))["results"]
        assert [one["label"] for one in results] == ["money", "boat"]

    talk(built, act)


def test_errors_are_the_tools_own_and_say_what_to_do(built: Path) -> None:
    wrong: list[tuple[str, dict[str, Any], str]] = [
        ("describe", {"collection": "note"}, "did you mean notes?"),
        ("search", {"collection": "notes", "text": "a", "where": "yeer > 1"}, "did you mean year?"),
        ("search", {"collection": "notes"}, "a query is one of"),
        ("search", {"collection": "notes", "text": "a", "k": 51}, "less than or equal to 50"),
        ("classify", {"collection": "notes", "head": "subject"}, "nothing to classify"),
        ("label", {"collection": "notes", "id": "n1", "values": {"label": "x"}}, "label"),
    ]

    async def act(client: Any) -> None:
        for tool, asked, says in wrong:
            reply = await client.call_tool(tool, asked)
            assert reply.is_error
            assert says in reply.content[0].text

    talk(built, act)


def test_writing_is_offered_only_where_it_was_allowed(store: Path) -> None:
    async def act(client: Any) -> None:
        tools = {tool.name: tool for tool in (await client.list_tools()).tools}
        assert list(tools) == [*READING, "label"]
        assert not tools["label"].annotations.read_only_hint
        document(await client.call_tool("label", {"collection": "notes", "id": "n1", "values": {"label": "boat"}}))
        asked = {"collection": "notes", "id": "n3", "where": "label = 'boat' AND year = 2001"}
        assert document(await client.call_tool("search", asked))["hits"][0]["id"] == "n1"

    talk(store, act, "--allow-writes")
