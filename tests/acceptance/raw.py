"""A client that says whatever it likes, byte for byte."""

from __future__ import annotations

import socket
from typing import NamedTuple
from urllib.parse import urlsplit

import orjson

from tests.acceptance.serving import Json

PATIENCE_SECONDS = 60.0


class RawReply(NamedTuple):
    """One reply as it came."""

    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def body(self) -> Json:
        """The content as JSON."""
        value: Json = orjson.loads(self.content)
        return value


class Raw:
    """A connection. A context manager: it is closed at the end."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        self.socket = socket.create_connection((parts.hostname, parts.port), PATIENCE_SECONDS)
        self._received = b""

    def __enter__(self) -> Raw:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, data: bytes) -> bool:
        """Send it; tells whether the other end took it."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError):
            return False
        return True

    def reply(self) -> RawReply | None:
        """The next reply; ``None`` if the connection has ended instead."""
        while b"\r\n\r\n" not in self._received:
            if not self._receive():
                return None
        head, _, self._received = self._received.partition(b"\r\n\r\n")
        status, *lines = head.decode("latin-1").split("\r\n")
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        length = int(headers.get("content-length", "0"))
        while len(self._received) < length:
            assert self._receive(), "the connection ended within a reply"
        content, self._received = self._received[:length], self._received[length:]
        return RawReply(int(status.split(" ")[1]), headers, content)

    def has_ended(self) -> bool:
        """Waits for the other end to close, and tells whether it did without another word."""
        return not self._receive()

    def _receive(self) -> bytes:
        try:
            data = self.socket.recv(65_536)
        except ConnectionError:
            return b""
        self._received += data
        return data
