"""Waiting for new events: NOTIFY wakes early, polling guarantees."""

from __future__ import annotations

import select
import socket

import psycopg

from application.eventstore import connect

CHANNEL = "holdfast_log"
POLL_SECONDS = 1.0


class LogListener:
    """Waits for appends to any namespace, on a connection of its own that it reopens when broken.

    A notification may be missed (a broken connection, an append between two waits), so ``wait``
    returns after ``POLL_SECONDS`` at the latest; the caller must then read the log.
    """

    def __init__(self, url: str) -> None:
        self._info = connect.conninfo(url)
        self._connection: psycopg.Connection | None = None
        self._ours, self._theirs = socket.socketpair()

    def wait(self, seconds: float = POLL_SECONDS) -> None:
        """Return on the next append, on :meth:`wake`, or after ``seconds``."""
        waiting_on: list[socket.socket | int] = [self._ours]
        try:
            if self._connection is None:
                self._connection = connect.Connection.connect(self._info, autocommit=True)
                self._connection.execute(f"LISTEN {CHANNEL}")
                return  # what was appended before LISTEN took effect is found by looking
            waiting_on.append(self._connection.fileno())
        except psycopg.Error:
            self._drop()
        readable, _, _ = select.select(waiting_on, [], [], seconds)
        if self._ours in readable:
            self._ours.recv(4096)
        if self._connection is not None and len(readable) > (self._ours in readable):
            self._drain(self._connection)

    def wake(self) -> None:
        """Make a :meth:`wait` in another thread return."""
        self._theirs.send(b".")

    def close(self) -> None:
        """Close the connection."""
        self._drop()
        self._ours.close()
        self._theirs.close()

    def _drain(self, connection: psycopg.Connection) -> None:
        try:
            for _ in connection.notifies(timeout=0):
                pass
        except psycopg.Error:
            self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
