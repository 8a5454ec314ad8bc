"""What earlier runs of a Space found out, so that the next one need not."""

from __future__ import annotations

from embedder.encoder import Encoder
from embedder.errors import Damaged
from embedder.records import Medium
from index import files
from index.store import Collection

NEWEST = 50


def batch_size(collection: Collection, encoder: Encoder, medium: Medium) -> int | None:
    """Return the size of a full batch on which the newest run of this Space, device and runtime settled, if any did."""
    wanted = {
        "space": encoder.space.fingerprint, "device": encoder.device, "runtime": encoder.runtime, "medium": medium,
        "measured": True,
    }  # fmt: skip
    records = sorted((collection.path / "runs").glob("*/run.json"), reverse=True)
    for path in records[:NEWEST]:
        try:
            record = files.read_json(path)
        except (Damaged, OSError):
            # a run that was killed; the next one writes its own
            continue
        if isinstance(record, dict) and all(record.get(key) == value for key, value in wanted.items()):
            size = record.get("batch_size")
            return size if isinstance(size, int) and size > 0 else None
    return None
