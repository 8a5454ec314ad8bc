"""Pictures by address: fetched from the public internet alone, however an address is written or answered.

A service that fetches what it is told to fetch reaches what its callers cannot: other services of its machine, its
network, the metadata of its cloud. So an address is parsed once; its host is resolved once, and the connection goes to
the very address that was checked; each redirect starts again from the beginning; no proxy of the environment is used.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import ipaddress
import re
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as Late
from threading import BoundedSemaphore, Thread, Timer
from urllib.parse import SplitResult, urljoin, urlsplit

from embedder.errors import Undecodable, UsageError

MOST_BYTES, MOST_S, MOST_REDIRECTS = 10 << 20, 10.0, 3
PORTS = frozenset({80, 443})
MOST_CHARACTERS = 2048
RESOLVERS = BoundedSemaphore(16)
REDIRECTS = frozenset({301, 302, 303, 307, 308})
LABEL = r"[a-z0-9]([a-z0-9_-]{0,61}[a-z0-9])?"
NAME = re.compile(rf"(?=.{{1,253}}\Z)({LABEL}\.)+[a-z]([a-z0-9-]{{0,61}}[a-z0-9])", re.IGNORECASE)
IPV4 = re.compile(r"(0|[1-9]\d{0,2})(\.(0|[1-9]\d{0,2})){3}")
# `is_global` of Python 3.11 takes some of these for public
BLOCKED = tuple(
    ipaddress.ip_network(one)
    for one in (
        "0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
        "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24",
        "224.0.0.0/4", "240.0.0.0/4", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20",
    )
)  # fmt: skip
# what is outside is mapped or translated from IPv4, local, site-local, multicast, or not given to anybody
PUBLIC_V6 = ipaddress.ip_network("2000::/3")

Resolve = Callable[[str, int], Sequence[str]]
Dial = Callable[[tuple[str, int], float], socket.socket]


def is_url(text: str) -> bool:
    """Say whether a text is an address, and so not base64, which has no colon."""
    return text[:8].lower().startswith(("http:", "https:"))


def picture(text: str, fetch: Callable[[str], bytes] | None = None) -> bytes:
    """Return the bytes of a picture in base64, or by `fetch` those at an address.

    Raises:
        UsageError: it is not base64; or an address, without `fetch`.
    """
    if is_url(text) and fetch is None:
        raise UsageError("pictures by address are not allowed here", hint="send them in base64, or serve --allow-urls")
    if is_url(text) and fetch is not None:
        return fetch(text)
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise UsageError(
            "the image is not base64", hint="send the bytes of a picture's file in standard base64"
        ) from error


def is_public(address: str) -> bool:
    """Say whether an IP address belongs to the public internet."""
    ip = ipaddress.ip_address(address)
    if isinstance(ip, ipaddress.IPv6Address) and ip not in PUBLIC_V6:
        return False
    return ip.is_global and not any(ip in network for network in BLOCKED if network.version == ip.version)


def parsed(url: str) -> tuple[SplitResult, str, int]:
    """Return the parts of an address, its host and its port.

    Raises:
        UsageError: it is not http or https at port 80 or 443, has a user, or its host is neither a name nor a plain IP.
    """
    try:
        if len(url) > MOST_CHARACTERS or not url.isascii() or re.search(r"[\x00-\x20\x7f\\]", url):
            raise ValueError("characters")
        parts = urlsplit(url)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise _refused("it is not written as an address is") from None
    host = parts.hostname or ""
    if parts.scheme not in ("http", "https") or port not in PORTS:
        raise _refused("only http and https at ports 80 and 443 are")
    if parts.username is not None or parts.password is not None:
        raise _refused("it names a user")
    if ":" in host and "%" not in host:
        with contextlib.suppress(ValueError):
            return parts, str(ipaddress.IPv6Address(host)), port
    if not (NAME.fullmatch(host.removesuffix(".")) or IPV4.fullmatch(host)):
        # 2130706433, 0x7f000001, 0177.0.0.1 and 127.1 are all the same host to a resolver
        raise _refused("its host is neither a full name nor a plain IP address")
    return parts, host, port


def resolved(host: str, port: int) -> Sequence[str]:
    """Return the IP addresses of a host. Raises `OSError` where it has none."""
    return [str(found[4][0]) for found in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]


def fetched(url: str, *, resolve: Resolve = resolved, dial: Dial = socket.create_connection) -> bytes:
    """Return what is at an address: at most 10 MB, within 10 s, after at most 3 redirects.

    Raises:
        UsageError: the address, or one that it leads to, is not public.
        Undecodable: nothing was answered there, or too much, or too late.
    """
    until = time.monotonic() + MOST_S
    for _ in range(MOST_REDIRECTS + 1):
        parts, host, port = parsed(url)
        addresses = _looked_up(resolve, host, port, until)
        if not addresses or not all(is_public(address) for address in addresses):
            raise _refused("its host is not of the public internet")
        answer = _asked(parts, host, (addresses[0], port), until, dial)
        if isinstance(answer, bytes):
            return answer
        url = urljoin(url, answer)
    raise _failed(f"it is redirected more than {MOST_REDIRECTS} times")


def _looked_up(resolve: Resolve, host: str, port: int, until: float) -> Sequence[str]:
    """Resolve a host within the deadline: a resolver has none of its own, so it is left behind in its thread."""
    found: Future[Sequence[str]] = Future()

    def look() -> None:
        try:
            found.set_result(resolve(host, port))
        except (OSError, UnicodeError) as error:
            found.set_exception(error)
        finally:
            RESOLVERS.release()

    if not RESOLVERS.acquire(timeout=max(0.0, until - time.monotonic())):
        raise _failed("too many hosts are being looked up")
    Thread(target=look, name="resolve", daemon=True).start()
    try:
        return found.result(timeout=max(0.0, until - time.monotonic()))
    except Late:
        raise _failed("its host was not looked up in time") from None
    except (OSError, UnicodeError):
        raise _failed("its host is not known") from None


def _asked(parts: SplitResult, host: str, address: tuple[str, int], until: float, dial: Dial) -> bytes | str:
    """Ask one address; return the body, or where it is said to be."""
    connection = http.client.HTTPConnection(host, address[1])
    left = until - time.monotonic()
    if left <= 0:
        raise _failed("it took too long")
    # a time-out of a socket starts again at every byte: this one does not
    timer = Timer(left, lambda: _end(connection))
    try:
        connection.sock = dial(address, left)
        timer.start()
        if parts.scheme == "https":
            connection.sock = ssl.create_default_context().wrap_socket(connection.sock, server_hostname=host)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        headers = {"accept": "image/*", "accept-encoding": "identity", "user-agent": "permafrost"}
        connection.request("GET", target, headers=headers)
        reply = connection.getresponse()
        if reply.status in REDIRECTS and (location := reply.headers.get("location")):
            return location
        if reply.status != 200:
            raise _failed(f"it was answered with status {reply.status}")
        data = reply.read(MOST_BYTES + 1)
    except (OSError, http.client.HTTPException, ValueError):
        raise _failed("it was not answered in time" if time.monotonic() >= until else "it was not answered") from None
    finally:
        timer.cancel()
        connection.close()
    if len(data) > MOST_BYTES:
        raise _failed(f"it has more than {MOST_BYTES >> 20} MiB")
    if time.monotonic() >= until or (reply.length or 0) > 0:
        raise _failed("it was not answered in time")
    return data


def _end(connection: http.client.HTTPConnection) -> None:
    with contextlib.suppress(OSError):
        if connection.sock is not None:
            connection.sock.shutdown(socket.SHUT_RDWR)


def _refused(why: str) -> UsageError:
    return UsageError(f"a picture's address is not allowed: {why}", hint="send the picture itself, in base64")


def _failed(why: str) -> Undecodable:
    return Undecodable(f"a picture could not be fetched: {why}", stage="read", reason="unreachable")
