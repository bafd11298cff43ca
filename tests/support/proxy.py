"""A wire to Postgres that can be cut at the worst moment."""

from __future__ import annotations

import select
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from psycopg.conninfo import conninfo_to_dict, make_conninfo

# What is to be lost: the request on its way there, or the reply on its way back.
Loss = Literal["request", "reply"]


class Wire:
    """Listens on a socket of its own, hands on every byte, and breaks once when it is told to."""

    def __init__(self, folder: Path, target: str) -> None:
        self.folder = folder
        self._target = target
        self._marker = b""
        self._loss: Loss | None = None
        self.broken = threading.Event()
        self._stopping = False
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(str(folder / ".s.PGSQL.5432"))
        self._listener.listen()
        self._spawn(self._accept)

    def lose(self, loss: Loss, marker: str) -> None:
        """Break the connection that carries the next request with these words in it."""
        self.broken.clear()
        self._marker = marker.encode()
        self._loss = loss

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
            server = socket.socket(socket.AF_UNIX)
            server.connect(self._target)
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
                    if source is client and self._loss is not None and self._marker in data:
                        loss, self._loss = self._loss, None
                        if loss == "request":
                            self.broken.set()
                            return
                        doomed = True
                    elif source is server and doomed:
                        # The server answers once it has committed, not before.
                        self.broken.set()
                        return
                    (server if source is client else client).sendall(data)
        except OSError:
            return
        finally:
            _shut(client)
            _shut(server)


@contextmanager
def wire(url: str) -> Iterator[tuple[Wire, str]]:
    """A wire to this database, and the URL of its near end."""
    given = conninfo_to_dict(url)
    host, port = str(given["host"]), given.get("port") or 5432
    with tempfile.TemporaryDirectory(prefix="wire-", dir="/tmp") as folder:
        it = Wire(Path(folder), f"{host}/.s.PGSQL.{port}")
        try:
            yield it, make_conninfo(url, host=folder, port=5432)
        finally:
            it.close()


def _shut(end: socket.socket) -> None:
    try:
        end.shutdown(socket.SHUT_RDWR)
    except OSError:
        return
