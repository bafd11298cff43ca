"""The record of when the service could be reached: all processes and the views agree on it."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from threading import Barrier

import pytest

from application.engine.engine import Engine
from application.engine.serving import ServingRecord
from application.engine.unit_of_work import Policy
from application.eventstore.migrate import Migration, migrations
from application.eventstore.store import EventStore
from application.registry import HANDLERS
from application.sessions import NoteOverdue, UpdateSession
from domain.errors import Unavailable
from domain.liveness import ALWAYS, Serving
from projections import sessions
from tests.support.given import new_session
from tests.support.postgres import as_owner, ask, ask_one, change
from tests.support.proxy import wire
from tests.support.wiring import Service, service

TOLERANCE = 10.0
MINUTE = timedelta(minutes=1)


@pytest.fixture
def record(database: str) -> Iterator[ServingRecord]:
    """What one process knows."""
    yield from a_record(database)


@pytest.fixture
def other(database: str) -> Iterator[ServingRecord]:
    """What another process knows."""
    yield from a_record(database)


def a_record(url: str) -> Iterator[ServingRecord]:
    made = ServingRecord(EventStore.at(url, size=1), TOLERANCE)
    yield made
    made.close()


def pass_by(url: str, seconds: float) -> None:
    """Make it so that nobody has touched for so long: everything recorded is older by that."""
    change(
        url,
        "UPDATE serving_intervals SET started_at = started_at - %s * interval '1 second',"
        " last_at = last_at - %s * interval '1 second'",
        seconds,
        seconds,
    )


def intervals(url: str) -> list[tuple[datetime, datetime]]:
    return ask(url, "SELECT started_at, last_at FROM serving_intervals ORDER BY interval_num")


def known_to_views(url: str) -> Serving:
    [(since, absent_since)] = ask(url, "SELECT serving_since(), absent_since()")
    return Serving(since, absent_since)


def test_nothing_is_known_of_an_absence_before_there_was_one(
    database: str, record: ServingRecord
) -> None:
    assert known_to_views(database) == ALWAYS
    assert record.touch() == ALWAYS
    assert record.touch() == known_to_views(database) == ALWAYS
    [(started_at, last_at)] = intervals(database)
    assert started_at < last_at


def test_a_gap_begins_a_new_interval_for_everyone(
    database: str, record: ServingRecord, other: ServingRecord
) -> None:
    record.touch()
    other.touch()
    pass_by(database, 60)
    [(_, ended)] = intervals(database)

    # Nobody is there at this moment, and the views say so before anyone has touched.
    before = ask_one(database, "SELECT clock_timestamp()")
    gone = known_to_views(database)
    after = ask_one(database, "SELECT clock_timestamp()")
    assert gone.absent_since == ended
    assert gone.since is not None
    assert before <= gone.since <= after

    back = record.touch()
    assert back.absent_since == ended
    assert back.since is not None
    assert back.since > ended + timedelta(seconds=59)
    assert other.touch() == back == known_to_views(database)
    assert len(intervals(database)) == 2


def test_a_pause_within_the_tolerance_is_no_absence(database: str, record: ServingRecord) -> None:
    record.touch()
    pass_by(database, TOLERANCE - 5)

    assert record.touch() == ALWAYS
    assert len(intervals(database)) == 1


def test_one_process_that_is_there_suffices(
    database: str, record: ServingRecord, other: ServingRecord
) -> None:
    """Given one process that is frozen and one that serves, then that is no absence."""
    record.touch()
    later = ask_one(database, "SELECT clock_timestamp()") + MINUTE
    other.touch()

    # The frozen one wakes: by its clock a minute has passed since its touch.
    assert record.at(later) == other.at(later) == ALWAYS


def test_who_comes_back_at_the_same_moment_agrees(database: str) -> None:
    records = [ServingRecord(EventStore.at(database, size=1), TOLERANCE) for _ in range(8)]
    records[0].touch()
    together = Barrier(len(records))

    def touch(record: ServingRecord) -> Serving:
        together.wait()
        return record.touch()

    with ThreadPoolExecutor(len(records)) as pool:
        list(pool.map(ServingRecord.touch, records))  # each has its connection
        for round_ in range(1, 11):
            pass_by(database, 60)
            told = set(pool.map(touch, records))
            assert len(told) == 1
            assert len(intervals(database)) == 1 + round_
    for record in records:
        record.close()


def test_a_clock_that_was_set_back_is_an_absence(database: str, record: ServingRecord) -> None:
    record.touch()
    pass_by(database, -3_600)

    assert record.touch().since is not None
    assert len(intervals(database)) == 2


def test_who_decides_asks_first_if_what_it_knows_is_too_old(
    database: str, record: ServingRecord
) -> None:
    """A process that was frozen, or cut off, knows nothing of what came meanwhile."""
    record.touch()
    now = ask_one(database, "SELECT clock_timestamp()")
    pass_by(database, 60)

    assert record.at(now) == ALWAYS  # as of then nobody had been away
    [(_, ended)] = intervals(database)
    later = now + timedelta(seconds=TOLERANCE + 1)
    known = record.at(later)
    assert known.absent_since == ended
    # At this moment nobody is there: that it decides does not make it so.
    assert known.since is not None
    assert known.since > now
    assert len(intervals(database)) == 1


def test_nothing_is_decided_while_nobody_knows_since_when_silence_counts(database: str) -> None:
    with wire(database) as (it, url):
        record = ServingRecord(EventStore.at(url, size=1), TOLERANCE)
        record.touch()
        now = ask_one(database, "SELECT clock_timestamp()")
        it.lose("request", "serving_since", for_good=True)
        with pytest.raises(Unavailable):
            record.at(now + MINUTE)
        record.close()


def test_a_process_cannot_rewrite_the_record(database: str) -> None:
    """The service's role touches through the function alone: the record is evidence."""
    with as_owner(database) as connection:
        rights = connection.execute(
            "SELECT r, has_table_privilege('holdfast_service', 'serving_intervals', r)"
            " FROM unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE']) AS r"
        ).fetchall()
    assert dict(rights) == {
        "SELECT": True,
        "INSERT": False,
        "UPDATE": False,
        "DELETE": False,
        "TRUNCATE": False,
    }


def test_a_log_older_than_the_record_was_last_served_at_its_last_event(
    database: str, record: ServingRecord
) -> None:
    """Given an upgrade that took longer than a threshold, then nobody was silent meanwhile."""
    with service(database, projecting=False) as running:
        running.given(new_session())
    [migration] = [m for m in migrations() if m.name.endswith("_serving")]
    _anew(database, migration)

    [(started_at, last_at)] = intervals(database)
    assert started_at == last_at == ask_one(database, 'SELECT max("timestamp") FROM event_store')
    back = record.touch()
    assert back.absent_since == last_at
    assert back.since is not None


def test_the_engine_and_the_views_agree(database: str, record: ServingRecord) -> None:
    """Given sessions from before a gap, then reads and decisions say the same of them."""
    with service(database, stall_threshold_ms=60_000) as running:
        old = running.open_session("m1")
        engine = Engine(running.store, running.mapper, HANDLERS, Policy(60_000), record)
        running.engine.stop()
        running.engine = engine
        engine.start()
        record.touch()
        pass_by(database, 30)
        _age(database, running, old, 100)
        back = record.touch()

        read = running.ask(sessions.get, old)
        assert (read["status"], read["unknown_since"]) == ("active", back.absent_since)
        decided = running.do(UpdateSession(session_id=old, metadata={"a": 1}))
        assert decided["status"] == "active"
        assert datetime.fromisoformat(decided["unknown_since"]) == back.absent_since
        assert running.do(NoteOverdue(session_id=old))["stalled"] is False
        assert running.ask(sessions.overdue) == []
        assert running.ask(sessions.stalled) == ([], False)

        # The service has been there for longer than the threshold since.
        change(
            database,
            "UPDATE serving_intervals SET started_at = started_at - interval '61 seconds'",
        )
        record.touch()
        read = running.ask(sessions.get, old)
        assert (read["status"], read["unknown_since"]) == ("stalled", None)
        assert running.ask(sessions.overdue) == [old]
        assert running.do(NoteOverdue(session_id=old))["stalled"] is True


def _anew(url: str, migration: Migration) -> None:
    with as_owner(url) as connection, connection.transaction():
        connection.execute("DROP TABLE serving_intervals CASCADE")
        connection.execute("DROP FUNCTION touch_serving")  # the others went with the table
        connection.execute(migration.ddl.encode())


def _age(url: str, running: Service, session_id: str, seconds: float) -> None:
    """Make it so that a session was last heard of so long ago, in the log and in the rows."""
    running.ask(sessions.get, session_id)  # it is projected
    with as_owner(url) as connection, connection.transaction():
        connection.execute("ALTER TABLE event_store DISABLE TRIGGER USER")
        connection.execute(
            'UPDATE event_store SET "timestamp" = "timestamp" - %s * interval \'1 second\'',
            [seconds],
        )
        connection.execute("ALTER TABLE event_store ENABLE TRIGGER USER")
        connection.execute(
            "UPDATE sessions SET"
            " last_heartbeat = last_heartbeat - %s * interval '1 second',"
            " heartbeat_minute = floor(extract(epoch FROM last_heartbeat - %s * interval"
            " '1 second') / 60)",
            [seconds, seconds],
        )
