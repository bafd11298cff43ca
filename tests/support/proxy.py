"""A wire to Postgres or to the service that can be cut at the worst moment."""

from __future__ import annotations

import re
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# What is to be lost: the request on its way there, or the reply on its way back.
Loss = Literal["request", "reply"]


class Wire:
    """Listens on a socket of its own, hands on every byte, and breaks once when it is told to."""

    def __init__(self, listener: socket.socket, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._marker = b""
        self._instead: list[bytes] = []
        self._loss: Loss | None = None
        self._for_good = self._refusing = False
        self.broken = threading.Event()
        self._stopping = False
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = listener
        self._listener.listen()
        self._spawn(self._accept)

    def lose(self, loss: Loss, marker: str, *, for_good: bool = False) -> None:
        """Break the connection that carries the next request with these words in it.

        ``for_good``: and every other from then on.
        """
        self.broken.clear()
        self._for_good = for_good
        self._marker = marker.encode()
        self._loss = loss

    def answer(self, *replies: bytes) -> None:
        """Answer the next requests with these, as a gateway does, and hand nothing on."""
        self._instead = [*replies]

    def cut(self) -> None:
        """Break all connections that are open now."""
        for end in self._open:
            _shut(end)

    def close(self) -> None:
        self._stopping = True
        _shut(self._listener)
        self.cut()
        for thread in self._threads:
            thread.join()
        for end in [self._listener, *self._open]:
            end.close()

    def _spawn(self, run: object, *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._stopping:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._refusing:
                client.close()
                continue
            server = self._connect()
            self._open += [client, server]
            self._spawn(self._carry, client, server)

    def _carry(self, client: socket.socket, server: socket.socket) -> None:
        doomed = False
        try:
            while True:
                for source in select.select([client, server], [], [])[0]:
                    data = source.recv(65_536)
                    if not data:
                        return
                    if source is client and self._instead:
                        _read_whole(client, data)
                        client.sendall(self._instead.pop(0))
                        return
                    if source is client and self._loss is not None and self._marker in data:
                        loss, self._loss = self._loss, None
                        if loss == "request":
                            self._break()
                            return
                        doomed = True
                    elif source is server and doomed:
                        # The server answers once it has committed, not before.
                        self._break()
                        return
                    self._hand_on(data, server if source is client else client)
        except OSError:
            return
        finally:
            _shut(client)
            _shut(server)

    def _hand_on(self, data: bytes, end: socket.socket) -> None:
        end.sendall(data)

    def _break(self) -> None:
        self._refusing = self._for_good
        self.broken.set()


class HttpWire(Wire):
    """A wire to the service, at an address that stays while the service comes and goes."""

    def __init__(self, target: str, latency: float = 0.0) -> None:
        self.target = target
        self._latency = latency
        self._is_frozen = False
        # What it took while it was frozen, and never answered.
        self.unanswered: list[bytes] = []
        listener = socket.create_server(("127.0.0.1", 0))
        self._address: tuple[str, int] = listener.getsockname()
        super().__init__(listener, self._reach)

    @property
    def url(self) -> str:
        """The near end."""
        return f"http://{self._address[0]}:{self._address[1]}"

    def down(self) -> None:
        """Refuse and break every connection, as a host whose service has died."""
        self.close()
        self._open.clear()
        self._threads.clear()

    def up(self) -> None:
        """Let everything through again."""
        if self._refusing:
            self._refusing = False
            return
        self._stopping = False
        self._listener = socket.create_server(self._address)
        self._spawn(self._accept)

    def freeze(self) -> None:
        """Take every connection and every request, and answer none, as a stopped process does."""
        self._is_frozen = True

    def _hand_on(self, data: bytes, end: socket.socket) -> None:
        if self._is_frozen:
            self.unanswered.append(data)
            return
        time.sleep(self._latency)
        super()._hand_on(data, end)

    def _reach(self) -> socket.socket:
        parts = urlsplit(self.target)
        assert parts.hostname is not None
        server = socket.socket()
        with suppress(ConnectionRefusedError):  # then it breaks at the first byte
            server.connect((parts.hostname, parts.port or 80))
        return server


@contextmanager
def http_wire(url: str, latency: float = 0.0) -> Iterator[HttpWire]:
    """A wire to this service, each way of which takes so many seconds."""
    it = HttpWire(url, latency)
    try:
        yield it
    finally:
        it.close()


@contextmanager
def wire(url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to this database, and the URL of its near end."""
    given = conninfo_to_dict(url)
    host, port = str(given["host"]), given.get("port") or 5432

    def connect() -> socket.socket:
        server = socket.socket(socket.AF_UNIX)
        server.connect(f"{host}/.s.PGSQL.{port}")
        return server

    with tempfile.TemporaryDirectory(prefix="wire-", dir="/tmp") as folder:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(Path(folder) / ".s.PGSQL.5432"))
        it = Wire(listener, connect)
        try:
            yield it, make_conninfo(url, host=folder, port=5432)
        finally:
            it.close()


def _read_whole(client: socket.socket, data: bytes) -> None:
    """The rest of an HTTP request, so that the answer does not come in between."""
    while b"\r\n\r\n" not in data:
        data += client.recv(65_536)
    head, _, body = data.partition(b"\r\n\r\n")
    found = re.search(rb"(?i)content-length: (\d+)", head)
    while found is not None and len(body) < int(found[1]):
        body += client.recv(65_536)


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
