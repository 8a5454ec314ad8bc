"""Many clients in a process of their own. A line on stdin is `URL CLIENTS FILE`, the file one request's body a line.

Each client keeps one connection, sends the next request when the last is answered, and reads no more of an answer than
its status and its length: plain sockets cost less than any HTTP library would. A line on stdout is the milliseconds of
each answer, as JSON.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

LATE_S = 120


async def client(host: str, port: int, requests: list[bytes], took: list[float]) -> None:
    """Take requests from the list until it is empty. Raises `SystemExit` at an answer that is not 200."""
    reader, writer = await asyncio.open_connection(host, port)
    while requests:
        data = requests.pop()
        started = time.perf_counter()
        writer.write(data)
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        size = int(head.partition(b"content-length:")[2].split(b"\r\n")[0])
        body = await reader.readexactly(size)
        if b" 200 " not in head[:20]:
            raise SystemExit(f"{head[:20]!r} {body[:300]!r}")
        took.append(1000 * (time.perf_counter() - started))
    writer.close()


async def main(url: str, clients: int, file: str) -> None:
    """Send every line of the file, and print how long each took."""
    at = urlsplit(url)
    host, port = str(at.hostname), int(at.port or 80)
    requests = [
        f"POST {at.path} HTTP/1.1\r\nhost: {at.netloc}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(line)}\r\n\r\n".encode() + line
        for line in Path(file).read_bytes().splitlines()
    ]  # fmt: skip
    took: list[float] = []
    async with asyncio.timeout(LATE_S):
        await asyncio.gather(*(client(host, port, requests, took) for _ in range(clients)))
    print(json.dumps(took), flush=True)


if __name__ == "__main__":
    for order in sys.stdin:
        url, clients, file = order.split()
        asyncio.run(main(url, int(clients), file))
