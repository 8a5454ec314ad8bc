"""Arrow files and streams: what is cut or damaged is refused, and never crashes whoever reads it."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from embedder.errors import UsageError
from embedder.sources import _arrow
from tests.embedder.sources import items, one_failure, opened

READER = """
import sys
from pathlib import Path
from embedder.errors import UsageError
from embedder.sources import _arrow
for path in sys.argv[1:]:
    try:
        print("read", len(list(_arrow.rows(Path(path)))))
    except UsageError:
        print("refused")
"""


def write(path: Path, table: Any, *, rows: int = 10) -> Path:
    form = pa.ipc.new_stream if path.suffix == ".arrow" else pa.ipc.new_file
    with form(path, table.schema) as out:
        out.write_table(table, max_chunksize=rows)
    return path


def numbered(n: int = 40) -> Any:
    return pa.table(
        {"text": [f"text {k}" * 5 for k in range(n)], "n": list(range(n)), "tags": [["a"] * (k % 4) for k in range(n)]}
    )


@pytest.mark.parametrize("name", ["t.arrow", "t.feather"])
def test_rows_of_both_forms(tmp_path: Path, name: str) -> None:
    source = opened(write(tmp_path / name, numbered()))
    assert source.columns == {"n": "int", "tags": "string"}
    assert [item.columns["n"] for item in items(source)] == list(range(40))


@pytest.mark.parametrize("name", ["t.arrow", "t.feather"])
@pytest.mark.parametrize("keep", [0.0, 0.1, 0.5, 0.9, -8, -1])
def test_a_cut_file_is_refused(tmp_path: Path, name: str, keep: float) -> None:
    path = write(tmp_path / name, numbered())
    data = path.read_bytes()
    path.write_bytes(data[: int(keep) if keep < 0 else int(keep * len(data))])
    with pytest.raises(UsageError, match=r"t\.(arrow|feather) cannot be read as Arrow after row 0"):
        opened(path)


def test_a_text_that_is_not_utf8_costs_its_row_alone(tmp_path: Path) -> None:
    raw = pa.array([b"good", b"caf\xe9", b"fine"]).view(pa.string())
    source = opened(write(tmp_path / "t.arrow", pa.table({"text": raw})))
    assert [item.text for item in items(source)] == ["good", "fine"]
    assert one_failure(source).reason == "bad_unicode"


def test_a_repeated_column_and_the_first_feather_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "t.arrow", pa.Table.from_arrays([pa.array(["a"]), pa.array(["b"])], names=["x", "x"]))
    with pytest.raises(UsageError, match="repeats the column x"):
        opened(path)
    path.write_bytes(b"FEA1" + bytes(20))
    with pytest.raises(UsageError, match="Feather version 1"):
        opened(path)


def test_damaged_files_end_no_process(tmp_path: Path) -> None:
    """Bits flipped anywhere, offsets included: read or refused, in another process that must live to say so."""
    draw = random.Random(11)
    paths = []
    for name in ("t.arrow", "t.feather"):
        whole = write(tmp_path / name, numbered()).read_bytes()
        for n in range(60):
            data = bytearray(whole)
            for _ in range(3):
                data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
            paths.append(tmp_path / f"{n}-{name}")
            paths[-1].write_bytes(data)
    done = subprocess.run([sys.executable, "-c", READER, *map(str, paths)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-500:]
    assert len(done.stdout.splitlines()) == len(paths)
    assert "refused" in done.stdout


def test_batches_of_any_size_are_read_a_little_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = _arrow.plain
    monkeypatch.setattr(_arrow, "plain", lambda batch: sizes.append(batch.num_rows) or plain(batch))
    path = write(tmp_path / "t.arrow", pa.table({"n": list(range(5000))}), rows=5000)
    assert [number for number, _ in _arrow.rows(path)] == list(range(1, 5001))
    assert max(sizes) == 1024
