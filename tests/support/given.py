"""What has happened before a test begins: aggregates with a history, at known times."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from domain.aggregate import Aggregate, Event, Json
from domain.sessions.session import Session, SessionStatus

START = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
THRESHOLD_MS = 180_000


def at(seconds: float) -> datetime:
    """A moment, counted from the start of the story."""
    return START + timedelta(seconds=seconds)


def new_session(key: str = "s1", **rest: object) -> Session:
    """An active session, opened at the start."""
    session = Session(id=Session.stream_id(key))
    session.open(at(0), "apollo", "m1", **rest)
    return session


def session_that_is(status: SessionStatus) -> Session:
    """A session that was opened at the start and has this status since second 1."""
    session = new_session()
    match status:
        case "active":
            pass
        case "failed":
            session.fail(at(1), "out of memory")
        case _:
            session.change_status(at(1), status)
    return session


def session_with_task(status: str) -> Session:
    """An active session whose only task, ``t1``, has this status."""
    session = new_session()
    session.add_task(at(1), "t1", "compile")
    match status:
        case "pending":
            pass
        case "failed":
            session.update_task(at(2), "t1", "failed", "no compiler")
        case "in_progress" | "completed" | "blocked":
            session.update_task(at(2), "t1", status)
        case _:
            raise ValueError(status)
    return session


def events_of(aggregate: Aggregate) -> Sequence[Event]:
    """What was recorded since the last look."""
    return aggregate.collect_events()


def types_of(aggregate: Aggregate) -> list[str]:
    """The names of what was recorded since the last look."""
    return [event.event_type for event in aggregate.collect_events()]


def payload_of(event: Event) -> Json:
    """An event's own fields."""
    base = ("originator_id", "originator_version", "timestamp")
    return {k: v for k, v in vars(event).items() if k not in base}
