"""The house's budgets, as a gate: lengths of files and functions, share of comments, and what no file may say.

File median at most 120 lines and none over 400; function median at most 10 lines and none over 50; comments under 5 %
of lines; no left-over notes to ourselves. The environment is read in `api/settings.py` alone.
"""

from __future__ import annotations

import ast
import io
import re
import statistics
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("embedder", "index", "heads", "api")
FILE_MEDIAN, FILE_MOST, FUNCTION_MEDIAN, FUNCTION_MOST, COMMENTS = 120, 400, 10, 50, 0.05
NOTE = re.compile(r"#.*\b(TO[D]O|FIX[M]E|X[X]X|HA[C]K)\b")
READS_ENVIRONMENT = re.compile(r"\bos\.(environ|getenv)\b")
MAY_READ_IT = ("api/settings.py",)


def sources(root: Path) -> list[Path]:
    """Return the Python files of the rooms, the door and the scripts."""
    folders = [root / name for name in (*ROOMS, "scripts")]
    return [root / "permafrost.py", *sorted(p for folder in folders for p in folder.rglob("*.py"))]


def functions(text: str) -> Iterator[tuple[str, int, int]]:
    """Yield (name, line, number of lines) of each function, docstring included."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, node.lineno, (node.end_lineno or node.lineno) - node.lineno + 1


def comments(text: str) -> int:
    """Return how many lines hold nothing but a comment."""
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(t.type == tokenize.COMMENT and t.line.strip().startswith("#") for t in tokens)


def over(root: Path) -> list[str]:
    """Return each budget that is broken."""
    texts = {path: path.read_text(encoding="utf-8") for path in sources(root)}
    lengths = {path: len(text.splitlines()) for path, text in texts.items()}
    inside = [path for path in texts if path.relative_to(root).parts[0] in ROOMS]
    spans = {path: list(functions(text)) for path, text in texts.items()}
    found = [f"{p.relative_to(root)}: {n} lines, at most {FILE_MOST}" for p, n in lengths.items() if n > FILE_MOST]
    found += [
        f"{path.relative_to(root)}:{line}: {name} has {size} lines, at most {FUNCTION_MOST}"
        for path, all_of_it in spans.items()
        for name, line, size in all_of_it
        if size > FUNCTION_MOST
    ]
    shares = {
        f"the median file has {statistics.median(lengths[p] for p in inside):.0f} lines, at most {FILE_MEDIAN}":
            statistics.median(lengths[p] for p in inside) > FILE_MEDIAN,
        f"the median function has more than {FUNCTION_MEDIAN} lines":
            statistics.median(size for p in inside for _, _, size in spans[p]) > FUNCTION_MEDIAN,
        f"comments are more than {COMMENTS:.0%} of lines":
            sum(comments(texts[p]) for p in inside) > COMMENTS * sum(lengths[p] for p in inside),
    }  # fmt: skip
    found += [what for what, broken in shares.items() if broken]
    return found + [line for path in texts for line in said(path, texts[path], root)]


def said(path: Path, text: str, root: Path) -> list[str]:
    """Return the lines of a file that say what none may say."""
    name = path.relative_to(root).as_posix()
    found = []
    for number, line in enumerate(text.splitlines(), 1):
        if NOTE.search(line):
            found.append(f"{name}:{number}: {line.strip()[:80]}")
        if (
            READS_ENVIRONMENT.search(line)
            and name.split("/")[0] in (*ROOMS, "permafrost.py")
            and name not in MAY_READ_IT
        ):
            found.append(f"{name}:{number}: the environment is read in {', '.join(MAY_READ_IT)} alone")
    return found


def main() -> int:
    """Print every budget that is broken; 1 where there is one."""
    found = over(ROOT)
    print(*found, sep="\n", end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
