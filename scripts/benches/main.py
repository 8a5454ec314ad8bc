"""scripts/bench: pick the tables, run them, print them, and write them as JSON where asked."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# not the folder of this file: its `heads.py` would hide the room of that name
sys.path[:] = [p for p in sys.path if Path(p or ".").resolve() != Path(__file__).resolve().parent]
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benches import frame  # noqa: E402

TABLES = {
    "decode": "decode: from the bytes of JPEG to an encoder's pixels",
    "extract": "extract: from files to committed rows",
    "heads": "heads: small models from stored vectors",
    "search": "search: nearest ten of stored vectors",
    "serve": "serve: the service under many clients, beside the library",
    "store": "store: ready vectors in, found again, opened and read",
}


def main() -> int:
    """Run the benches that were asked for."""
    options = arguments()
    use_threads(options.threads)
    result: dict[str, Any] = {"machine": frame.machine(options.threads), "quick": options.quick, "tables": {}}
    print(facts(result["machine"]))
    for name in [options.table] if options.table else TABLES:
        started = time.monotonic()
        bench = importlib.import_module(f"benches.{name}")
        with tempfile.TemporaryDirectory(prefix="permafrost-bench-") as work:
            contenders = sorted(bench.contenders(Path(work), options), key=lambda c: c.scope)
            found = frame.rows(frame.measure(contenders, options.repeats))
        result["tables"][name] = found
        print(f"\n{frame.table(TABLES[name], bench.UNIT, found)}")
        print(f"  median of {options.repeats} interleaved rounds, {time.monotonic() - started:.0f} s in all")
    if options.markdown:
        text = "\n".join(f"## {TABLES[name]}\n\n{frame.markdown(rows)}\n" for name, rows in result["tables"].items())
        options.markdown.write_text(text, encoding="utf-8")
        print(f"\nwritten: {options.markdown}")
    if options.json:
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
        print(f"\nwritten: {options.json}")
    return 0


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="scripts/bench", description=frame.__doc__)
    parser.add_argument("table", nargs="?", choices=list(TABLES), help="which table; all by default")
    parser.add_argument(
        "--quick", action="store_true", help="small inputs, one round: does it run? (no figures to keep)"
    )
    parser.add_argument("--repeats", type=int, help="interleaved rounds (default 3, or 1 with --quick)")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1, help="threads of every contender")
    parser.add_argument("--only", help="extract: lite0, vit or minilm alone")
    parser.add_argument("--items", type=int, help="extract: pictures or texts in each scope (default by device)")
    parser.add_argument("--device", help="extract: cpu, cuda or cuda:N (default: a GPU where there is one)")
    parser.add_argument(
        "--rows", type=int, help="search, serve: vectors (50,000, 5,000); heads: rows (8,000); store: items (200k)"
    )
    parser.add_argument("--store", type=Path, help="search: real vectors instead, of STORE/COLLECTION")
    parser.add_argument("--markdown", type=Path, help="write the tables to this file too")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    options = parser.parse_args()
    options.repeats = options.repeats or (1 if options.quick else 3)
    return options


def use_threads(count: int) -> None:
    """Give every library the same number of threads and its own choice of kernel, before it is imported."""
    for name in (
        "OMP_NUM_THREADS",
        "MKL_NUM_THREADS",
        "OPENBLAS_NUM_THREADS",
        "LANCE_CPU_THREADS",
        "RAYON_NUM_THREADS",
    ):
        os.environ[name] = str(count)
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        # an older kernel chosen by hand would make every numpy contender look slow
        os.environ.pop(name, None)


def facts(machine: dict[str, Any]) -> str:
    """Return the machine in two lines."""
    versions = ", ".join(f"{name} {number}" for name, number in machine["versions"].items())
    return (
        f"{machine['processor']}, {machine['cores']} cores, {machine['threads']} threads, load {machine['load']}, "
        f"Python {machine['python']}\n{versions}"
    )


if __name__ == "__main__":
    sys.exit(main())
