"""Writing history: events as the service's own commands would have left them, by the thousand."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from uuid import NAMESPACE_URL, uuid4, uuid5

from application.eventstore.mapper import Mapper, NewRow, Origin
from application.eventstore.store import EventStore
from application.registry import EVENTS
from domain.aggregate import Aggregate
from domain.claims import claim
from domain.claims.claim import Claim
from domain.machines.machine import Machine
from domain.sessions.session import Session

NAMESPACE = "default"
# As long as the id of a real key.
ACTOR = "0be7c4a1"
AT_ONCE = 2_000
SESSIONS_PER_MACHINE = 100

_MAPPER = Mapper(EVENTS)


def session_id(number: int) -> str:
    """The id of the bench's session of this number, the same in every server."""
    return str(uuid5(NAMESPACE_URL, f"session {number}"))


class Writer:
    """Collects what aggregates have recorded and appends it in large batches."""

    def __init__(self, store: EventStore) -> None:
        self._store = store
        self._rows: list[NewRow] = []
        self.written = 0

    def keep(self, command: str, *aggregates: Aggregate) -> None:
        """Take the new events of these aggregates, as one command's."""
        origin = Origin(str(uuid4()), ACTOR, command)
        for aggregate in aggregates:
            self._rows += _MAPPER.rows(aggregate.collect_events(), origin)
        if len(self._rows) >= AT_ONCE:
            self.flush()

    def flush(self) -> None:
        """Append what is left."""
        if self._rows:
            self._store.append(NAMESPACE, self._rows)
            self.written += len(self._rows)
            self._rows = []


@contextmanager
def writing(url: str) -> Iterator[Writer]:
    """A writer of a database; all that it was given is there at the end."""
    store = EventStore.at(url, size=1)
    try:
        writer = Writer(store)
        yield writer
        writer.flush()
    finally:
        store.close()


def open_session(writer: Writer, number: int, at: datetime | None = None) -> Session:
    """A session in a place of its own, as ``POST /api/sessions`` leaves it."""
    at = at or datetime.now(UTC)
    opened = Session(id=Session.stream_id(session_id(number)))
    host = Machine(id=Machine.stream_id(f"machine-{number // SESSIONS_PER_MACHINE}"))
    opened.open(at, f"project-{number % SESSIONS_PER_MACHINE}", host.key)
    if number % SESSIONS_PER_MACHINE == 0:
        host.register(at, host.key, None, {})
    place = Claim(id=Claim.stream_id(claim.place(opened.project_id, host.key, None)))
    opened.acquire(at, place.resource, place.grant(at, "session", opened.key))
    writer.keep("session_create", opened, host, place)
    return opened


def open_sessions(url: str, count: int) -> list[Session]:
    """So many sessions of this moment, from number 0 on."""
    with writing(url) as writer:
        return [open_session(writer, number) for number in range(count)]


class Fleet:
    """Sessions that go on living: nine events of ten are heartbeats, the rest is work."""

    def __init__(self, sessions: list[Session]) -> None:
        self._sessions = sessions
        self._next = len(sessions)
        self._random = random.Random(16)

    def live(self, writer: Writer, events: int) -> int:
        """Write at least so many events, evenly mixed; how many it were."""
        before = writer.written
        for _ in range(-(-events // 100)):
            for _ in range(30):
                self._beat(writer)
            self._work(writer)
            for _ in range(30):
                self._beat(writer)
            for _ in range(2):
                open_session(writer, self._next)
                self._next += 1
            for _ in range(30):
                self._beat(writer)
        writer.flush()
        return writer.written - before

    def _beat(self, writer: Writer) -> None:
        beating = self._random.choice(self._sessions)
        beating.beat(datetime.now(UTC))
        writer.keep("session_heartbeat", beating)

    def _work(self, writer: Writer) -> None:
        working = self._random.choice(self._sessions)
        task_id = str(uuid4())
        now = datetime.now(UTC)
        working.add_task(now, task_id, "a task")
        working.update_task(now, task_id, "in_progress")
        working.update_task(now, task_id, "completed")
        working.update(now, metadata={"tasks_done": len(working.tasks)})
        writer.keep("task_update", working)
