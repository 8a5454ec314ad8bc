"""The page: its files, what it may load, and hostile captions as text in a real browser."""

from __future__ import annotations

import html
import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import closing
from html.parser import HTMLParser
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from api.app import create_app
from api.routes.page import POLICY, WEB, assets
from api.serving import Serving
from api.settings import Settings
from tests.api.conftest import finish
from tests.api.test_http import HOST, check_error
from tests.api.test_serve import serve

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
PWNED = "document.title='pwned'"
HOSTILE = [
    f"<script>{PWNED}</script>", f"<img src=x onerror={PWNED}>", f'"><svg onload={PWNED}>', f"javascript:{PWNED}",
    f"<iframe srcdoc='<script>parent.{PWNED}</script>'>", f"<a href=javascript:{PWNED}>x</a>", "{{constructor}}",
    f"</script><script>{PWNED}</script>", f"<body onload={PWNED}>", f"<input autofocus onfocus={PWNED}>",
    f"<details open ontoggle={PWNED}>", f"<video><source onerror={PWNED}>", f"<math><mi xlink:href=javascript:{PWNED}>",
    f"<object data=javascript:{PWNED}>", f"<style>@import 'javascript:{PWNED}'</style>", f"' onmouseover={PWNED} x='",
    f"<base href=//evil.example><script src=x>{PWNED}</script>",
    "${" + PWNED + "}", f"<!--><script>{PWNED}</script>-->",
    "\u202egnp.exe <b>bold</b>",
]  # fmt: skip


@pytest.fixture(scope="module")
def client(built: Path) -> Iterator[TestClient]:
    service = Serving(Settings(store=str(built)))
    with closing(service), TestClient(create_app(service), base_url=HOST) as client:
        yield client


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/web/{name}" for name in sorted(assets()))])
def test_every_file_is_served_with_the_policy(client: TestClient, path: str) -> None:
    reply = client.get(path)
    assert reply.status_code == 200
    assert reply.headers["content-security-policy"] == POLICY
    assert "default-src 'self'; object-src 'none'; base-uri 'none'; frame-ancestors 'none'" in POLICY
    assert "unsafe" not in POLICY
    assert reply.headers["x-content-type-options"] == "nosniff"
    again = client.get(path, headers={"if-none-match": reply.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e", "page.py", "index.html%00"])
def test_nothing_else_is_served(client: TestClient, name: str) -> None:
    check_error(client.get(f"/web/{name}"), 404)


def test_pages_name_only_files_that_are_there_and_hold_no_code_of_their_own() -> None:
    for page in WEB.glob("*.html"):
        text = page.read_text()
        for target in re.findall(r'(?:src|href)="([^"#]+)"', text):
            assert target in ("/", "/docs", "/openapi.json") or target.removeprefix("/web/") in assets()
        assert not re.search(r"<script(?![^>]*\bsrc=)|<style|\sstyle=|\son\w+=", text)
    for module in WEB.glob("*.js"):
        text = module.read_text()
        assert not re.search(
            r"innerHTML|outerHTML|insertAdjacent|document\.write|\beval\(|new Function|https?://", text
        )
        for target in re.findall(r'from "\./([^"]+)"', text):
            assert target in assets()


def test_every_control_has_a_name() -> None:
    text = (WEB / "index.html").read_text()
    labelled = set(re.findall(r'<label for="([^"]+)"', text))
    for tag, attributes in re.findall(r"<(input|select)\b([^>]*)>", text):
        name = re.search(r'id="([^"]+)"', attributes)
        assert name, attributes
        assert name[1] in labelled or re.search(rf'<label>[^\n]*<{tag}[^>]*id="{name[1]}"', text), name[1]


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed (Debian: apt-get install chromium)")
def test_hostile_captions_are_text_in_a_browser(tmp_path: Path) -> None:
    service = Serving(Settings(store=str(tmp_path / "store")))
    rows = [
        {"id": f"{n} {payload}", "text": f"caption {payload}", "name": payload} for n, payload in enumerate(HOSTILE)
    ]
    service.embed(rows, "notes", encoders=["hashing:64"])
    service.close()
    process, url = serve(tmp_path / "store")
    try:
        words = [
            str(CHROMIUM),
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path / 'profile'}",
        ]
        words += ["--virtual-time-budget=20000", "--dump-dom", f"{url}/#collection=notes&text=caption"]
        shown = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True).stdout
    finally:
        process.terminate()
        finish(process)
    assert "<title>Permafrost</title>" in shown
    assert shown.count('<li class="hit">') == len(HOSTILE)
    text = html.unescape(shown)
    for payload in HOSTILE:
        assert f"caption {payload}".replace("\u202e", "\\u202e") in text
    inside = shown[shown.index('<ol id="hits"') : shown.index('<details id="facts"')]
    found = Elements()
    found.feed(inside)
    assert found.tags <= {"ol", "li", "p", "div", "dl", "dt", "dd", "button", "section"}
    assert not [name for name in found.attributes if name.startswith("on") or name in ("style", "href", "src")]


class Elements(HTMLParser):
    """The names of all elements and attributes."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}
