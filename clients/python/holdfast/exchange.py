"""An exchange with whatever answers at an address, which always ends and never costs too much.

Bounded are its whole time, the size of the reply and what a compressed one unpacks to. Redirects
are not followed: the API key goes to no other address.
"""

from __future__ import annotations

import logging
import threading
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any, NamedTuple
from urllib.parse import urlsplit
from urllib.request import getproxies, proxy_bypass

import httpcore
import httpx

from holdfast.address import shown
from holdfast.settings import is_local

log = logging.getLogger("holdfast")

# The service's largest page has 8 MiB.
MAX_REPLY_BYTES = 16 * 1024 * 1024
# What is written at once: in between the time is looked at.
PIECE_BYTES = 16_384
# The proxies that were said to be of no use.
_TOLD: set[str] = set()
# gzip or zlib, whichever it is.
_ANY_HEADER = 47


class Answer(NamedTuple):
    """What came back, unpacked."""

    status: int
    headers: httpx.Headers
    content: bytes

    @property
    def is_success(self) -> bool:
        """Whether it says that the request was carried out."""
        return 200 <= self.status < 300


class Unusable(Exception):
    """There was a reply, but of no use: its ``status`` and why."""

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Exchange:
    """Connections to one address, for any number of threads. ``timeout`` is seconds."""

    def __init__(self, url: str, timeout: float) -> None:
        self._timeout = timeout
        self._clock = _Clock()
        self._http = httpx.Client(
            base_url=url,
            timeout=timeout,
            transport=_Transport(url, self._clock),
            trust_env=False,
            headers={"Accept-Encoding": "gzip"},
        )

    def ask(
        self,
        method: str,
        path: str,
        *,
        content: bytes | None = None,
        params: httpx.QueryParams | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Answer:
        """The reply, all of it within ``timeout``.

        Raises ``httpx.RequestError``, :class:`Unusable`, or ``ValueError`` for what cannot be
        asked at all.
        """
        seconds = self._timeout if timeout is None else timeout
        try:
            request = self._http.build_request(
                method, path, content=content, params=params, headers=headers, timeout=seconds
            )
        except httpx.InvalidURL as e:
            raise ValueError(str(e)) from e
        if _origin(request.url) != _origin(self._http.base_url):
            raise ValueError(f"{path!r} leads to another address")
        with self._clock.running(seconds):
            response = self._http.send(request, stream=True)
            with closing(response):
                return Answer(response.status_code, response.headers, _content(response))

    def close(self) -> None:
        """Close all connections."""
        self._http.close()


def _origin(url: httpx.URL) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port


def _content(response: httpx.Response) -> bytes:
    told = response.headers.get("content-length", "")
    if told.isdecimal() and (len(told) > 15 or int(told) > MAX_REPLY_BYTES):
        raise _too_large(response)
    content = bytearray()
    for piece in _unpacked(response):
        content += piece
        if len(content) > MAX_REPLY_BYTES:
            raise _too_large(response)
    return bytes(content)


def _unpacked(response: httpx.Response) -> Iterator[bytes]:
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding in ("", "identity"):
        yield from response.iter_raw()
    elif encoding in ("gzip", "x-gzip", "deflate"):
        try:
            yield from _inflated(response.iter_raw())
        except (zlib.error, EOFError) as e:
            raise Unusable(response.status_code, "its body cannot be unpacked") from e
    else:
        raise Unusable(response.status_code, "its body is encoded in an unknown way")


def _inflated(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Never more than a little at a time, whatever a piece unpacks to."""
    inflating = zlib.decompressobj(_ANY_HEADER)
    is_empty = True
    for piece in pieces:
        while piece and not inflating.eof:
            is_empty = False
            yield inflating.decompress(piece, PIECE_BYTES)
            piece = inflating.unconsumed_tail
    if not (is_empty or inflating.eof):
        raise EOFError


def _too_large(response: httpx.Response) -> Unusable:
    return Unusable(response.status_code, f"its body has over {MAX_REPLY_BYTES >> 20} MiB")


class _Clock(threading.local):
    """Until when the exchange of this thread may go on."""

    until = float("inf")

    @contextmanager
    def running(self, seconds: float) -> Iterator[None]:
        self.until = time.monotonic() + seconds
        try:
            yield
        finally:
            self.until = float("inf")

    def left(self, timeout: float | None) -> float | None:
        """The seconds for the next step; 0 or less if the time is up."""
        left = self.until - time.monotonic()
        if left == float("inf"):
            return timeout
        return left if timeout is None else min(left, timeout)


class _Transport(httpx.HTTPTransport):
    """As httpx's own, but its time-outs are of the whole exchange, not of each of its bytes."""

    def __init__(self, url: str, clock: _Clock) -> None:
        common: dict[str, Any] = {
            # To read the known authorities takes a while.
            "ssl_context": httpx.create_ssl_context() if url.startswith("https:") else None,
            "max_connections": 100,
            "max_keepalive_connections": 20,
            "keepalive_expiry": 5.0,
            "network_backend": _Network(clock),
        }
        proxy = _proxy(url)
        # What httpx calls its connections by; test_exchange.py would notice another name.
        self._pool = (
            httpcore.ConnectionPool(**common)
            if proxy is None
            else httpcore.HTTPProxy(str(proxy.url), proxy_auth=proxy.raw_auth, **common)
        )


def _proxy(url: str) -> httpx.Proxy | None:
    """What the environment names for this address. None reaches this machine's own loopback."""
    parts = urlsplit(url)
    if is_local(url) or proxy_bypass(parts.hostname or ""):
        return None
    found = getproxies()
    named = (found.get(parts.scheme) or found.get("all") or "").strip()
    if not named:
        return None
    try:
        proxy = httpx.Proxy(named if "://" in named else f"http://{named}")
        # Its port is looked at only when it is asked for.
        is_one = proxy.url.host.encode("idna") and urlsplit(str(proxy.url)).port != 0
        if is_one and proxy.url.scheme in ("http", "https"):
            return proxy
    except (httpx.InvalidURL, ValueError):
        pass
    if named not in _TOLD:
        _TOLD.add(named)
        log.warning("The proxy %r cannot be used: the service is asked without one.", shown(named))
    return None


class _Network(httpcore.NetworkBackend):
    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self._plain = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        left = self._clock.left(timeout)
        if left is not None and left <= 0:
            raise httpcore.ConnectTimeout("no time is left to connect")
        stream = self._plain.connect_tcp(
            host, port, timeout=left, local_address=local_address, socket_options=socket_options
        )
        return _Stream(stream, self._clock)

    def sleep(self, seconds: float) -> None:
        self._plain.sleep(seconds)


class _Stream(httpcore.NetworkStream):
    def __init__(self, plain: httpcore.NetworkStream, clock: _Clock) -> None:
        self._plain = plain
        self._clock = clock

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        left = self._clock.left(timeout)
        if left is not None and left <= 0:
            raise httpcore.ReadTimeout("the reply took too long")
        return self._plain.read(max_bytes, timeout=left)

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        for start in range(0, len(buffer), PIECE_BYTES):
            left = self._clock.left(timeout)
            if left is not None and left <= 0:
                raise httpcore.WriteTimeout("the request took too long")
            self._plain.write(buffer[start : start + PIECE_BYTES], timeout=left)

    def close(self) -> None:
        self._plain.close()

    def start_tls(
        self, ssl_context: Any, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._clock.left(timeout)
        if left is not None and left <= 0:
            raise httpcore.ConnectTimeout("no time is left to connect")
        return _Stream(self._plain.start_tls(ssl_context, server_hostname, left), self._clock)

    def get_extra_info(self, info: str) -> Any:
        return self._plain.get_extra_info(info)
