"""Writing history: a session's events with the times that they had, straight into the store."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg

from application.eventstore.mapper import Mapper, Origin
from application.eventstore.store import EventStore
from application.registry import EVENTS
from domain.claims import claim
from domain.claims.claim import Claim, HolderKind
from domain.instances.instance import Instance
from domain.machines.machine import Machine
from domain.sessions.session import Session
from tests.acceptance.serving import Json, eventually, name

_MAPPER = Mapper(EVENTS)


def claimed(holder: Session | Instance, items: Iterable[str], at: datetime) -> list[Claim]:
    """The claims on new work items that a holder made at this time."""
    claims = []
    for item_id in items:
        it = Claim(id=Claim.stream_id(item_id))
        it.list_item(at)
        kind: HolderKind = "session" if isinstance(holder, Session) else "instance"
        fence = it.grant(
            at,
            kind,
            holder.key,
            hostname=holder.hostname,
            tty=holder.tty,
            codebase=holder.codebase,
            machine_id=holder.machine,
        )
        holder.acquire(at, item_id, fence)
        claims.append(it)
    return claims


def served_all_along(database_url: str) -> None:
    """Make it so that the service has been there since long ago, and all its processes know it.

    Silence counts only as far as it was there (spec 5), which it may not have been for a moment.
    """
    with psycopg.connect(database_url, autocommit=True) as connection:
        count = connection.execute(
            "UPDATE serving_intervals SET started_at = started_at - interval '10 years'"
            " WHERE started_at > clock_timestamp() - interval '1 year' AND interval_num > 1"
        ).rowcount
        if count == 0:
            return

        def touched(after: datetime) -> Callable[[], datetime | None]:
            def look() -> datetime | None:
                row = connection.execute("SELECT max(last_at) FROM serving_intervals").fetchone()
                return row[0] if row and row[0] > after else None

            return look

        # With the first touch from now on a process learns of it; the second comes after that.
        first = eventually("a touch", touched(datetime.now(UTC)), 20)
        eventually("the next touch", touched(first), 20)


class Past:
    """What happened in one namespace before a test began."""

    def __init__(self, database_url: str, namespace: str) -> None:
        self._url = database_url
        self._namespace = namespace
        served_all_along(database_url)

    def session(
        self,
        ago: timedelta,
        *,
        project_id: str | None = None,
        machine_id: str | None = None,
        tasks: int = 0,
        ended: timedelta | None = None,
        archived: bool = False,
        stall_threshold_ms: int | None = None,
        items: Iterable[str] = (),
    ) -> Json:
        """A session that was opened then and has not been heard of since, unless it ended.

        It claimed the ``items`` at once.
        """
        at = datetime.now(UTC) - ago
        aggregate = Session(id=Session.stream_id(str(uuid4())))
        host = Machine(id=Machine.stream_id(machine_id or name("machine")))
        aggregate.open(
            at, project_id or name("project"), host.key, stall_threshold_ms=stall_threshold_ms
        )
        host.register(at, host.key, None, {})
        place = Claim(id=Claim.stream_id(claim.place(aggregate.project_id, host.key, None)))
        aggregate.acquire(at, place.resource, place.grant(at, "session", aggregate.key))
        claims = claimed(aggregate, items, at)
        for number in range(tasks):
            aggregate.add_task(at, str(uuid4()), f"task {number}")
        if ended is not None:
            then = datetime.now(UTC) - ended
            aggregate.change_status(then, "completed")
            place.release(then, aggregate.key)
            aggregate.give_up(then, place.resource)
            assert not claims
            if archived:
                aggregate.archive(then)
        described = {
            "session_id": aggregate.key,
            "project_id": aggregate.project_id,
            "machine_id": host.key,
            "tasks": list(aggregate.tasks),
        }
        self._append(aggregate, host, place, *claims)
        return described

    def _append(self, *aggregates: Session | Machine | Claim) -> None:
        events = [event for aggregate in aggregates for event in aggregate.collect_events()]
        origin = Origin(str(uuid4()), "history", "session_create")
        store = EventStore.at(self._url, size=1)
        try:
            store.append(self._namespace, _MAPPER.rows(events, origin))
        finally:
            store.close()
