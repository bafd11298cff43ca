"""Being told of new events: LISTEN wakes, polling guarantees."""

from __future__ import annotations

import select
import socket
from collections import deque
from collections.abc import Sequence
from typing import TypeVar

import psycopg
from eventsourcing.persistence import ApplicationRecorder, Notification, Subscription

from application.eventstore import connect

CHANNEL = "holdfast_log"
POLL_SECONDS = 1.0
BATCH = 500

TRecorder = TypeVar("TRecorder", bound=ApplicationRecorder, covariant=True)


class LogListener:
    """Waits for appends to any namespace, on a connection of its own that it renews by itself.

    A wake-up may be missed (a broken connection, an append between two waits), so ``wait`` returns
    after ``POLL_SECONDS`` at the latest and the caller looks for itself.
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


class LogSubscription(Subscription[TRecorder]):
    """Iterates over a namespace's log and waits at its end; ``stop`` ends the iteration."""

    def __init__(
        self, recorder: TRecorder, url: str, gt: int | None = None, topics: Sequence[str] = ()
    ) -> None:
        super().__init__(recorder=recorder, gt=gt, topics=topics)
        self._listener = LogListener(url)
        self._ready: deque[Notification] = deque()

    def stop(self) -> None:
        """End the iteration, also one that waits in another thread."""
        super().stop()
        self._listener.wake()

    def __exit__(self, *args: object, **kwargs: object) -> None:
        super().__exit__(*args, **kwargs)
        self._listener.close()

    def __next__(self) -> Notification:
        while not self._has_been_stopped:
            if self._ready:
                notification = self._ready.popleft()
                self._last_notification_id = notification.id
                return notification
            self._ready.extend(
                self._recorder.select_notifications(
                    start=self._last_notification_id,
                    limit=BATCH,
                    topics=self._topics,
                    inclusive_of_start=False,
                )
            )
            if not self._ready:
                self._listener.wait()
        raise StopIteration
