"""Dead links in Markdown: relative targets and anchors must exist. Addresses of other machines are not asked."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

FENCE = re.compile(r"^ {0,3}(```|~~~)")
HEADING = re.compile(r"^ {0,3}#{1,6}\s+(.*?)\s*#*\s*$")
INLINE_CODE = re.compile(r"(`+)(.+?)\1")
LINK = re.compile(r"!?\[[^\]]*\]\(\s*<?([^)\s>]+)>?(?:\s+\"[^\"]*\")?\s*\)")
DEFINITION = re.compile(r"^ {0,3}\[[^\]]+\]:\s*<?(\S+?)>?(?:\s|$)")
FOREIGN = re.compile(r"^[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def pages(root: Path) -> list[Path]:
    """Return every Markdown file of the checkout that is no build product, sorted."""
    hidden = {p.name for p in root.iterdir() if p.is_dir() and p.name.startswith(".")} | {"build", "dist"}
    return sorted(p for p in root.rglob("*.md") if p.relative_to(root).parts[0] not in hidden)


def prose(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, line) outside of fenced code."""
    fence = ""
    for number, line in enumerate(text.splitlines(), 1):
        mark = FENCE.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1] == fence:
            fence = ""
        elif not fence:
            yield number, line


def anchors(text: str) -> set[str]:
    """Return the anchors of a page's headings, spelled as GitHub does."""
    found: set[str] = set()
    for _, line in prose(text):
        if heading := HEADING.match(line):
            plain = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading[1])
            stem = re.sub(r"[^\w\- ]", "", plain.strip().lower()).replace(" ", "-")
            copy, slug = 0, stem
            while slug in found:
                copy += 1
                slug = f"{stem}-{copy}"
            found.add(slug)
    return found


def targets(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line number, target) for each link, picture and link definition."""
    for number, line in prose(text):
        if definition := DEFINITION.match(line):
            yield number, definition[1]
        for link in LINK.finditer(INLINE_CODE.sub("", line)):
            yield number, link[1]


def dead(page: Path, root: Path) -> list[str]:
    """Return `page:line: what` for each link of a page that leads nowhere."""
    found = []
    for number, target in targets(page.read_text(encoding="utf-8")):
        if not FOREIGN.match(target) and (why := why_dead(page, target, root)):
            found.append(f"{page.relative_to(root)}:{number}: {target}: {why}")
    return found


def why_dead(page: Path, target: str, root: Path) -> str | None:
    """Say why a relative link of a page is dead; None where it is not."""
    name, _, anchor = unquote(target).partition("#")
    path = page if not name else (root / name[1:] if name.startswith("/") else page.parent / name).resolve()
    if not path.exists():
        return "no such file"
    if not path.is_relative_to(root.resolve()):
        return "leads out of the repository"
    if anchor and path.suffix == ".md" and anchor not in anchors(path.read_text(encoding="utf-8")):
        return "no such heading"
    return None


def main() -> int:
    """Print every dead link of the checkout; 1 where there is one."""
    root = Path(__file__).resolve().parents[2]
    found = [line for page in pages(root) for line in dead(page, root)]
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
