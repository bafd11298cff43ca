from __future__ import annotations

import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, LiteralString

import orjson
import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg.sql import SQL, Identifier

from application.eventstore import migrate as migrating
from application.eventstore.connect import SERVICE_ROLE
from application.eventstore.mapper import Mapper, NewRow, Origin
from application.eventstore.migrate import MigrationError, migrate
from application.eventstore.records import NewReceipt, ReceiptConflict, VersionConflict
from application.eventstore.store import EventStore
from application.registry import EVENTS
from domain.errors import Unavailable
from interfaces.host.embedded_postgres import EmbeddedPostgres
from projections import schema
from tests.support.given import START, at, new_session
from tests.support.postgres import (
    as_owner,
    ask,
    ask_one,
    assert_contiguous,
    blocked,
    change,
    log_held,
    streams,
    wait_until_blocked,
)
from tests.support.proxy import Loss, Wire, wire
from tests.support.waiting import eventually

ROOT = Path(__file__).parents[2]


@pytest.fixture
def store(database: str) -> Iterator[EventStore]:
    opened = EventStore.at(database, size=8)
    yield opened
    opened.close()


def row(stream_id: str, sequence_num: int, **data: object) -> NewRow:
    return {
        "stream_id": stream_id,
        "sequence_num": sequence_num,
        "event_id": str(uuid.uuid4()),
        "event_type": "noted",
        "timestamp": START,
        "event_data": data,
        "metadata": {},
    }


def receipt(key: str, body: str = "hello", last: int = 0) -> NewReceipt:
    return {
        "receipt_key": key,
        "request_hash": "hash",
        "status": 201,
        "body": orjson.Fragment(orjson.dumps({"said": body})),
        "last": last,
    }


# Append-only


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_store SET event_type = 'forged'",
        "DELETE FROM event_store",
        "TRUNCATE event_store",
        "INSERT INTO event_store VALUES (2, 1, now(), gen_random_uuid(), 'default', 's', 't',"
        " '{}', '{}')",
        "UPDATE log_head SET position = 7",
        "INSERT INTO log_head VALUES ('default', 7)",
        "UPDATE snapshots SET state = '{}'",
        "INSERT INTO snapshots VALUES ('default', 'a', 1, 1, '{}')",
        "DELETE FROM snapshots",
        "DELETE FROM receipts",
        "SET session_replication_role = 'replica'",
        "INSERT INTO receipts VALUES ('default', 'k', 'h', 200, '{}', 1, now())",
        "ALTER TABLE event_store DISABLE TRIGGER ALL",
        "DROP TABLE event_store",
    ],
)
def test_the_services_role_can_change_nothing_that_is_stored(
    database: str, store: EventStore, statement: LiteralString
) -> None:
    store.append("default", [row("a", 1)])

    with as_owner(database) as connection:
        connection.execute(SQL("SET ROLE {}").format(Identifier(SERVICE_ROLE)))
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(statement)

    assert streams(database) == {"a": [1]}


def test_the_owner_cannot_skip_a_number_by_mistake(database: str, store: EventStore) -> None:
    store.append("default", [row("a", 1)])
    insert: LiteralString = (
        "INSERT INTO event_store SELECT g, g, now(), gen_random_uuid(), 'default', 'a', 't', '{}',"
        " '{}' FROM generate_series(%s::int, %s::int) AS g ORDER BY g"
    )

    with pytest.raises(psycopg.Error, match="does not follow the last one"):
        change(database, insert, 3, 4)
    with pytest.raises(psycopg.errors.UniqueViolation):
        change(database, insert, 1, 2)
    change(database, insert, 2, 3)

    assert streams(database) == {"a": [1, 2, 3]}


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE event_store SET event_type = 'forged'",
        "DELETE FROM event_store",
        "DELETE FROM event_store WHERE false",
        "TRUNCATE event_store",
    ],
)
def test_the_owner_cannot_change_an_event_by_mistake(
    database: str, store: EventStore, statement: LiteralString
) -> None:
    store.append("default", [row("a", 1)])

    with pytest.raises(psycopg.errors.InsufficientPrivilege, match="append-only"):
        change(database, statement)

    assert streams(database) == {"a": [1]}


# Appending


@pytest.mark.parametrize(
    "numbers",
    [[5], [3], [1], [2, 4], [2, 2], [2, 2, 4], [2, 1], [3, 2], [4, 3], [0]],
    ids=lambda numbers: "-".join(map(str, numbers)),
)
def test_a_number_that_does_not_follow_the_streams_last_is_refused(
    database: str, store: EventStore, numbers: list[int]
) -> None:
    """After 1 comes 2, then 3."""
    store.append("default", [row("a", 1)])

    with pytest.raises(VersionConflict) as refused:
        store.append("default", [row("a", number) for number in numbers])

    assert refused.value.streams == ("a",)
    assert streams(database) == {"a": [1]}
    assert store.head("default") == 1


def test_a_stream_begins_with_1(database: str, store: EventStore) -> None:
    for wrong in (0, 2, -1):
        with pytest.raises(VersionConflict):
            store.append("default", [row("a", wrong)])

    assert streams(database) == {}


def test_one_append_over_several_streams_is_whole_or_nothing(
    database: str, store: EventStore
) -> None:
    store.append("default", [row("b", 1)])
    good = [row("a", 1), row("a", 2), row("c", 1)]

    with pytest.raises(VersionConflict) as refused:
        store.append("default", [*good, row("b", 1)], receipts=[receipt("k", last=4)])

    assert refused.value.streams == ("b",)
    assert streams(database) == {"b": [1]}
    assert store.receipts("default", ["k"]) == []

    store.append("default", [*good, row("b", 2)])

    assert streams(database) == {"a": [1, 2], "b": [1, 2], "c": [1]}


def test_what_cannot_be_stored_leaves_nothing(database: str, store: EventStore) -> None:
    broken = row("b", 1) | {"event_id": "not a uuid"}

    with pytest.raises(psycopg.DataError):
        store.append("default", [row("a", 1), broken])

    assert streams(database) == {}
    assert store.append("default", [row("a", 1)]).head == 1


def test_an_event_comes_back_as_it_was_stored(store: EventStore) -> None:
    given = row("a", 1, text="wörd ☃", number=1.5, none=None, deep={"list": [1, True]})
    given["metadata"] = {"actor": "me"}

    store.append("default", [given])

    [recorded] = store.read_stream("default", "a")
    assert recorded._asdict() == {
        **given,
        "position": 1,
        "event_id": uuid.UUID(given["event_id"]),
    }
    assert recorded.timestamp.utcoffset() == START.utcoffset()


def test_an_append_tells_the_head_and_the_databases_time(database: str, store: EventStore) -> None:
    before = ask_one(database, "SELECT clock_timestamp()")

    appended = store.append("default", [row("a", 1), row("a", 2)])

    assert appended.head == store.head("default") == 2
    assert before <= appended.written_at <= ask_one(database, "SELECT clock_timestamp()")


def test_a_stream_that_was_read_must_not_have_moved(database: str, store: EventStore) -> None:
    store.append("default", [row("read", 1), row("also-read", 1)])
    store.append("default", [row("read", 2)])

    with pytest.raises(VersionConflict) as refused:
        store.append("default", [row("a", 1)], {"read": 1, "also-read": 1, "absent": 0})
    assert refused.value.streams == ("read",)
    assert "a" not in streams(database)

    store.append("default", [row("a", 1)], {"read": 2, "also-read": 1, "absent": 0})
    assert streams(database)["a"] == [1]


def test_a_decision_that_writes_nothing_is_proved_too(store: EventStore) -> None:
    store.append("default", [row("read", 1)])

    assert store.append("default", [], {"read": 1}).head == 1
    with pytest.raises(VersionConflict):
        store.append("default", [], {"read": 0})


def test_whoever_holds_the_log_keeps_everyone_else_out(database: str, store: EventStore) -> None:
    with ThreadPoolExecutor(1) as pool:
        with store.exclusive("default") as held:
            late = pool.submit(store.append, "default", [row("late", 1)])
            wait_until_blocked(database)
            held.append("default", [row("first", 1)])
            assert store.head("default") == 0
        assert late.result().head == 2

    assert [r.stream_id for r in store.page_of_log("default")[0]] == ["first", "late"]


def test_what_fails_while_the_log_is_held_leaves_nothing(database: str, store: EventStore) -> None:
    def twice() -> None:
        with store.exclusive("default") as held:
            held.append("default", [row("a", 1)])
            held.append("default", [row("a", 1)])

    with pytest.raises(VersionConflict):
        twice()

    assert streams(database) == {}


# Order


def test_positions_have_no_gaps_and_appear_in_order(database: str, store: EventStore) -> None:
    """A reader never sees position n+1 before n (spec 3)."""
    writers, appends = 4, 40
    done = threading.Event()
    seen: list[int] = []

    def write(writer: int) -> None:
        for number in range(appends):
            size = 1 + (number + writer) % 4
            stream = f"{writer}-{number}"
            try:
                store.append("default", [row(stream, n + 1) for n in range(size)])
                # A refused append takes no position with it.
                store.append("default", [row("elsewhere", 1), row(stream, 99)])
            except VersionConflict:
                continue

    def read() -> None:
        while True:
            last_look = done.is_set()
            after = seen[-1] if seen else 0
            seen.extend(r.position for r in store.page_of_log("default", after=after, limit=7)[0])
            if last_look and len(seen) == store.head("default"):
                return

    with ThreadPoolExecutor(writers + 1) as pool:
        reading = pool.submit(read)
        for future in [pool.submit(write, writer) for writer in range(writers)]:
            future.result()
        done.set()
        reading.result()

    assert seen == list(range(1, len(seen) + 1))
    assert len(seen) == sum(1 + (n + w) % 4 for n in range(appends) for w in range(writers))
    assert_contiguous(database)


def test_namespaces_never_meet(database: str, store: EventStore) -> None:
    store.append("red", [row("session-1", 1, team="red"), row("session-1", 2)])
    store.append("blue", [row("session-1", 1, team="blue")])

    assert (store.head("red"), store.head("blue"), store.head("default")) == (2, 1, 0)
    assert [r.position for r in store.page_of_log("blue")[0]] == [1]
    [recorded] = store.read_stream("blue", "session-1")
    assert recorded.event_data == {"team": "blue"}
    assert [r.sequence_num for r in store.load("red", {"session-1": 1})] == [1, 2]
    with pytest.raises(VersionConflict):
        store.append("blue", [row("session-1", 3)])


def test_one_namespaces_lock_is_not_anothers(database: str, store: EventStore) -> None:
    store.append("red", [row("a", 1)])

    with log_held(database, "red"):
        assert store.append("blue", [row("a", 1)]).head == 1


# Reading


def test_a_stream_is_read_between_two_numbers(store: EventStore) -> None:
    store.append("default", [row("a", n) for n in range(1, 8)])

    def numbers(**bounds: Any) -> list[int]:
        return [r.sequence_num for r in store.read_stream("default", "a", **bounds)]

    assert numbers() == [1, 2, 3, 4, 5, 6, 7]
    assert numbers(after=2, upto=5) == [3, 4, 5]
    assert numbers(after=2, limit=2) == [3, 4]
    assert numbers(after=7) == []


def test_the_log_is_read_by_type_too(store: EventStore) -> None:
    odd = row("a", 2)
    odd["event_type"] = "odd"
    store.append("default", [row("a", 1), odd, row("b", 1)])

    assert [r.position for r in store.page_of_log("default", types=["noted"])[0]] == [1, 3]
    assert [r.position for r in store.page_of_log("default", types=["odd"], after=2)[0]] == []
    assert [r.position for r in store.page_of_log("default", upto=2)[0]] == [1, 2]


def test_loading_begins_at_the_newest_snapshot_that_can_be_used(store: EventStore) -> None:
    store.append("default", [row("a", n) for n in range(1, 6)] + [row("b", 1)])
    for number, version in ((2, 1), (3, 1), (4, 2)):
        store.insert_snapshots(
            "default",
            [{"stream_id": "a", "sequence_num": number, "state_version": version, "state": {}}],
        )

    def loaded(**state_versions: int) -> list[tuple[str, int, str | None]]:
        rows = store.load("default", state_versions)
        return [(r.stream_id, r.sequence_num, r.event_type) for r in rows]

    assert loaded(a=1) == [("a", 3, None), ("a", 4, "noted"), ("a", 5, "noted")]
    assert loaded(a=2) == [("a", 4, None), ("a", 5, "noted")]
    assert loaded(a=3) == [("a", n, "noted") for n in range(1, 6)]
    assert loaded(b=1, c=1) == [("b", 1, "noted")]


def test_a_snapshot_is_found_at_or_below_a_number(store: EventStore) -> None:
    store.append("default", [row("a", n) for n in range(1, 1_001)])
    store.insert_snapshots(
        "default",
        [
            {"stream_id": "a", "sequence_num": n, "state_version": 1, "state": {"n": n}}
            for n in (500, 1_000)
        ],
    )

    assert store.snapshot_before("default", "a", 1, 499) is None
    assert store.snapshot_before("default", "a", 1, 500) == (500, {"n": 500})
    assert store.snapshot_before("default", "a", 1, 5_000) == (1_000, {"n": 1_000})
    assert store.snapshot_before("default", "a", 2, 5_000) is None
    assert store.snapshot_before("other", "a", 1, 5_000) is None


# Receipts


def test_a_receipt_is_kept_with_its_events(store: EventStore) -> None:
    store.append("default", [row("a", 1)])

    store.append(
        "default",
        [row("a", 2), row("a", 3)],
        receipts=[receipt("first", last=1), receipt("second", "bye", last=2)],
    )

    first, second = sorted(store.receipts("default", ["first", "second", "third"]))
    assert (first.position, first.status, first.request_hash) == (2, 201, "hash")
    assert (second.position, second.body) == (3, '{"said":"bye"}')
    assert store.receipts("other", ["first"]) == []


def test_a_second_receipt_for_one_key_is_refused_with_its_events(
    database: str, store: EventStore
) -> None:
    store.append("default", [row("a", 1)], receipts=[receipt("k", "first", 1)])

    with pytest.raises(ReceiptConflict):
        store.append("default", [row("a", 2)], receipts=[receipt("k", "second", 1)])

    assert streams(database) == {"a": [1]}
    [kept] = store.receipts("default", ["k"])
    assert kept.body == '{"said":"first"}'


def test_a_receipt_older_than_a_day_makes_way(database: str, store: EventStore) -> None:
    store.append("default", [], receipts=[receipt("k", "old"), receipt("young")])
    change(
        database,
        "UPDATE receipts SET created_at = created_at - interval '24 hours 1 second'"
        " WHERE receipt_key = 'k'",
    )

    assert store.receipts("default", ["k"]) == []
    store.append("default", [row("a", 1)], receipts=[receipt("k", "new", 1)])

    [kept] = store.receipts("default", ["k"])
    assert (kept.body, kept.position) == ('{"said":"new"}', 1)


def test_old_receipts_are_forgotten_and_no_others(database: str, store: EventStore) -> None:
    store.append("default", [], receipts=[receipt("old"), receipt("young")])
    change(
        database,
        "UPDATE receipts SET created_at = created_at - interval '24 hours 1 second'"
        " WHERE receipt_key = 'old'",
    )

    assert store.forget_receipts("default") == 1

    assert ask(database, "SELECT receipt_key FROM receipts") == [("young",)]


# A lost acknowledgement is not a conflict


@pytest.fixture
def near_end(database: str) -> Iterator[tuple[Wire, EventStore]]:
    """A store behind a wire that can be cut, with one event in it."""
    with wire(database) as (it, url):
        store = EventStore.at(url)
        store.append("default", [row("lost", 1)])
        yield it, store
        store.close()


@pytest.mark.parametrize("loss", ["request", "reply"])
def test_an_append_whose_connection_breaks_is_carried_out_once(
    database: str, near_end: tuple[Wire, EventStore], loss: Loss
) -> None:
    it, store = near_end
    it.lose(loss, '"lost"')

    appended = store.append("default", [row("lost", 2), row("lost", 3)])

    assert it.broken.is_set()
    assert appended.head == 3
    assert streams(database) == {"lost": [1, 2, 3]}


def test_the_position_of_a_lost_acknowledgement_is_the_appends_own(
    database: str, near_end: tuple[Wire, EventStore]
) -> None:
    it, store = near_end
    other = EventStore.at(database)
    mine = row("lost", 2)
    it.lose("reply", '"lost"')
    with ThreadPoolExecutor(1) as pool:
        with log_held(database):
            appending = pool.submit(store.append, "default", [mine])
            wait_until_blocked(database)
            # Comes second: by the time that the first one looks, the head has moved on.
            overtaking = threading.Thread(target=other.append, args=("default", [row("b", 1)]))
            overtaking.start()
            wait_until_blocked(database, 2)
        overtaking.join()
        appended = appending.result()
    other.close()

    [position] = [r.position for r in store.read_stream("default", "lost", after=1)]
    assert appended.head == position


def test_a_retry_waits_for_the_append_that_is_still_at_work(
    database: str, near_end: tuple[Wire, EventStore]
) -> None:
    it, store = near_end

    with ThreadPoolExecutor(1) as pool:
        with log_held(database):
            appending = pool.submit(store.append, "default", [row("lost", 2)])
            wait_until_blocked(database)
            it.cut()
            # The first attempt has lost its client and does not know it; the second queues up.
            wait_until_blocked(database, 2)
        assert appending.result().head == 2

    assert streams(database) == {"lost": [1, 2]}


def test_a_receipt_that_was_written_unheard_is_no_conflict(
    database: str, near_end: tuple[Wire, EventStore]
) -> None:
    it, store = near_end

    with ThreadPoolExecutor(1) as pool:
        with log_held(database):
            appending = pool.submit(
                store.append, "default", [row("lost", 2)], None, [receipt("k", last=1)]
            )
            wait_until_blocked(database)
            it.cut()
            wait_until_blocked(database, 2)
        assert appending.result().head == 2

    assert ask_one(database, "SELECT count(*) FROM receipts") == 1


def test_an_append_whose_backend_was_ended_is_carried_out_once(
    database: str, store: EventStore
) -> None:
    store.append("default", [row("a", 1)])

    with ThreadPoolExecutor(1) as pool:
        with log_held(database):
            appending = pool.submit(store.append, "default", [row("a", 2)])
            wait_until_blocked(database)
            change(
                database,
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE datname = current_database() AND wait_event_type = 'Lock'",
            )
            eventually(lambda: blocked(database) == 1, "a second attempt")
        assert appending.result().head == 2

    assert streams(database) == {"a": [1, 2]}


def test_a_real_conflict_after_a_broken_connection_is_still_one(
    database: str, near_end: tuple[Wire, EventStore]
) -> None:
    it, store = near_end
    other = EventStore.at(database)
    it.lose("request", '"lost"')
    with ThreadPoolExecutor(2) as pool, log_held(database):
        first = pool.submit(other.append, "default", [row("lost", 2, by="other")])
        wait_until_blocked(database)
        second = pool.submit(store.append, "default", [row("lost", 2, by="me")])
        assert it.broken.wait(60)
    with pytest.raises(VersionConflict):
        second.result()
    assert first.result().head == 2
    other.close()


def test_without_a_database_the_store_says_that_it_is_unavailable() -> None:
    store = EventStore.at("postgresql:///nothing?host=/nowhere")

    with pytest.raises(Unavailable):
        store.head("default")

    store.close()


# Size


def test_a_heartbeat_is_small(database: str, store: EventStore) -> None:
    """At most 300 bytes on disk, indexes included (spec 3)."""
    session = new_session(str(uuid.uuid4()))
    mapper = Mapper(EVENTS)
    store.append("default", mapper.rows(session.collect_events(), origin("session_create")))

    def size_after(beats: int) -> int:
        for _ in range(beats // 100):
            rows: list[NewRow] = []
            for _ in range(100):
                session.beat(at(session.version))
                rows += mapper.rows(session.collect_events(), origin("session_heartbeat"))
            store.append("default", rows)
        return int(ask_one(database, "SELECT pg_total_relation_size('event_store')"))

    # What an empty table takes up is not a heartbeat's to account for.
    before = size_after(1_000)
    assert (size_after(4_000) - before) / 4_000 <= 300


def origin(command: str) -> Origin:
    return Origin(str(uuid.uuid4()), "key-0123456789ab", command)


# Migrations


@pytest.fixture
def empty_database(cluster: EmbeddedPostgres) -> Iterator[str]:
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        yield cluster.url_of(name)
        admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))


CATALOGUE: Sequence[LiteralString] = (
    "SELECT table_name, column_name, ordinal_position, data_type, is_nullable, column_default"
    " FROM information_schema.columns WHERE table_schema = 'public' ORDER BY 1, 3",
    "SELECT tablename, indexdef FROM pg_indexes WHERE schemaname = 'public' ORDER BY 1, 2",
    "SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid) FROM pg_constraint"
    " WHERE connamespace = 'public'::regnamespace ORDER BY 1, 2",
    "SELECT proname, pg_get_functiondef(oid), proacl::text FROM pg_proc"
    " WHERE pronamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT relname, relacl::text, reloptions::text FROM pg_class"
    " WHERE relnamespace = 'public'::regnamespace ORDER BY 1",
    "SELECT tgrelid::regclass::text, pg_get_triggerdef(oid) FROM pg_trigger"
    " WHERE NOT tgisinternal ORDER BY 1, 2",
    "SELECT name, checksum FROM schema_migrations ORDER BY 1",
)


def definition_of(url: str) -> list[list[tuple[Any, ...]]]:
    return [ask(url, query) for query in CATALOGUE]


def test_migrating_again_changes_nothing(empty_database: str) -> None:
    everything = [migration.name for migration in migrating.migrations()]

    assert migrate(empty_database) == everything
    fresh = definition_of(empty_database)
    assert migrate(empty_database) == []

    assert definition_of(empty_database) == fresh


def test_migrating_one_by_one_ends_where_a_fresh_database_begins(
    empty_database: str, database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = migrating.migrations()
    for number in range(1, len(every) + 1):
        monkeypatch.setattr(migrating, "migrations", lambda: every[:number])  # noqa: B023
        assert migrate(empty_database) == [every[number - 1].name]
    schema.install(empty_database)

    assert definition_of(empty_database) == definition_of(database)


def test_a_migration_that_was_altered_afterwards_is_refused(database: str) -> None:
    change(database, "UPDATE schema_migrations SET checksum = 'other'")

    with pytest.raises(MigrationError, match="0001_event_store is not the one"):
        migrate(database)


def test_a_database_that_a_newer_version_has_broken_with_is_refused(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    every = migrating.migrations()
    moon = migrating.Migration("9999_moon", f"{migrating.BREAKING}DROP TABLE job_runs")
    monkeypatch.setattr(migrating, "migrations", lambda: [*every, moon])
    assert migrate(database) == ["9999_moon"]
    monkeypatch.setattr(migrating, "migrations", lambda: every)

    with pytest.raises(MigrationError, match="9999_moon, which this version lacks"):
        migrate(database)


def test_a_database_to_which_a_newer_version_has_added_is_served(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """During a deployment a version of before may have to start again."""
    every = migrating.migrations()
    moon = migrating.Migration("9999_moon", "CREATE TABLE moon ()")
    monkeypatch.setattr(migrating, "migrations", lambda: [*every, moon])
    assert migrate(database) == ["9999_moon"]
    monkeypatch.setattr(migrating, "migrations", lambda: every)

    assert migrate(database) == []


def test_a_migration_that_fails_leaves_nothing(
    empty_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = migrating.Migration("0001_broken", "CREATE TABLE half (); SELECT 1 / 0")
    monkeypatch.setattr(migrating, "migrations", lambda: [broken])

    with pytest.raises(psycopg.errors.DivisionByZero):
        migrate(empty_database)

    assert ask_one(empty_database, "SELECT to_regclass('half') IS NULL")
    assert ask(empty_database, "SELECT name FROM schema_migrations") == []


def test_threads_that_migrate_at_once_migrate_once(empty_database: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        applied = [*pool.map(migrate, [empty_database] * 6)]
        installed = [*pool.map(schema.install, [empty_database] * 6)]

    assert sorted(map(len, applied)) == [0] * 5 + [len(migrating.migrations())]
    assert sorted(installed) == [False] * 5 + [True]


def test_processes_that_migrate_at_once_migrate_once(empty_database: str) -> None:
    program = (
        "import sys; from application.eventstore.migrate import migrate;"
        " sys.stdin.readline(); print(len(migrate(sys.argv[1])))"
    )
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", program, empty_database],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )
        for _ in range(3)
    ]

    said = [process.communicate("go\n", timeout=60)[0].strip() for process in processes]

    assert sorted(said) == ["0", "0", str(len(migrating.migrations()))]
    assert [process.returncode for process in processes] == [0, 0, 0]


def test_databases_of_one_server_that_migrate_at_once_share_the_role(
    cluster: EmbeddedPostgres,
) -> None:
    names = [f"t_{uuid.uuid4().hex}" for _ in range(3)]
    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        for name in names:
            admin.execute(SQL("CREATE DATABASE {}").format(Identifier(name)))
        with ThreadPoolExecutor(3) as pool:
            applied = [*pool.map(migrate, map(cluster.url_of, names))]
        for name in names:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))

    assert {len(names) for names in applied} == {len(migrating.migrations())}


def test_an_owner_who_is_no_superuser_can_migrate_and_serve(cluster: EmbeddedPostgres) -> None:
    name = f"t_{uuid.uuid4().hex}"
    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        make = SQL("CREATE ROLE {} LOGIN PASSWORD 'lent' CREATEROLE")
        admin.execute(make.format(Identifier(name)))
        admin.execute(SQL("CREATE DATABASE {0} OWNER {0}").format(Identifier(name)))
        url = make_conninfo(cluster.url_of(name), user=name, password="lent")
        try:
            # The role is shared by the databases of a server: whoever made it has to lend it.
            admin.execute(SQL("GRANT {} TO {}").format(Identifier(SERVICE_ROLE), Identifier(name)))
            migrate(url)
            schema.install(url)
            store = EventStore.at(url)
            assert store.append("default", [row("a", 1)]).head == 1
            store.close()
        finally:
            admin.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            admin.execute(SQL("DROP ROLE {}").format(Identifier(name)))


def test_the_service_works_under_its_own_role(store: EventStore, database: str) -> None:
    store.head("default")

    roles = ask(
        database,
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
        " AND application_name = 'holdfast'",
    )
    assert roles == [(1,)]
    with store._pool.connection() as connection:
        assert connection.execute("SELECT current_user").fetchone() == (SERVICE_ROLE,)
