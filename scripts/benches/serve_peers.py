"""What the service is held against, as a process: `serve_peers.py PORT FOLDER`, a FastAPI application of two routes.

`/echo` answers 384 floats and does nothing else. `/v1/embeddings` is what people write first: sentence-transformers
with a model in FOLDER, one request at a time in a thread.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel
from sentence_transformers import SentenceTransformer

FLOATS = [0.123456789] * 384


class Asked(BaseModel):
    """A body of either route; what else it holds is not read."""

    input: str = ""


def application(folder: str) -> FastAPI:
    """Return the application, its model loaded."""
    app, model, one = FastAPI(), SentenceTransformer(folder, device="cpu"), threading.Lock()

    @app.post("/echo")
    async def echo(asked: Asked) -> dict[str, Any]:
        return {"embedding": FLOATS}

    @app.post("/v1/embeddings")
    def embeddings(asked: Asked) -> dict[str, Any]:
        with one:
            vector = model.encode(asked.input, normalize_embeddings=True)
        return {"data": [{"embedding": vector.tolist()}]}

    return app


if __name__ == "__main__":
    uvicorn.run(application(sys.argv[2]), host="127.0.0.1", port=int(sys.argv[1]), log_level="error")
