"""Pictures that came as bytes alone, kept beside the tables so that another encoder can read them again.

content/<first two digits>/<sha256 of the bytes>
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from index import files
from index.store import Collection

HOME = "content"


def keep(collection: Collection, data: bytes) -> Path:
    """Write a picture's bytes, once, and return the absolute path of the file."""
    name = hashlib.sha256(data).hexdigest()
    path = collection.path / HOME / name[:2] / name
    if not path.exists():
        files.write_bytes(path, data)
    return path
