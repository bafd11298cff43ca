"""Every query finds what it wants by an index: its cost must not grow with what others store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import psycopg
import pytest

from application.eventstore import sql
from projections import DEFINITIONS, READ_MODELS, dead_letters
from tests.support.given import START
from tests.support.postgres import Connection, as_owner

NAMESPACES = 40
STREAMS = 20
EVENTS = 40
SESSIONS = 150
TASKS = 2

# One row a namespace, or a job, by design.
SMALL = {"log_head", "positions", "dead_letters", "definitions", "job_runs"}
# Nothing of a namespace's: one row for each absence of the service itself.
SMALL |= {"serving_intervals", "serving_intervals_pkey"}

FILL: tuple[str, ...] = (
    f"""INSERT INTO event_store
        SELECT (stream - 1) * {EVENTS} + number, number, now(), gen_random_uuid(), 'n' || namespace,
               'session-' || stream, 'session_heartbeat', '{{}}', '{{"actor": "k"}}'
        FROM generate_series(1, {NAMESPACES}) AS namespace, generate_series(1, {STREAMS}) AS stream,
             generate_series(1, {EVENTS}) AS number
        ORDER BY namespace, stream, number""",
    f"""INSERT INTO log_head
        SELECT 'n' || n, {STREAMS * EVENTS} FROM generate_series(1, {NAMESPACES}) AS n""",
    f"""INSERT INTO snapshots
        SELECT 'n' || namespace, 'session-' || stream, 20, 1, '{{}}'
        FROM generate_series(1, {NAMESPACES}) AS namespace, generate_series(1, {STREAMS}) AS stream
        """,
    f"""INSERT INTO receipts
        SELECT 'n' || namespace, 'key-' || n, 'hash', 200, '{{}}', n,
               clock_timestamp() - n * interval '2 minutes'
        FROM generate_series(1, {NAMESPACES}) AS namespace, generate_series(1, 500) AS n""",
    f"""INSERT INTO sessions
               (namespace, session_id, project_id, project, machine_id, status, last_heartbeat,
                started_at,
                completed_at, metadata, archived_at, created_at, updated_at, held, held_since,
                released_items, status_num, heartbeat_num, heartbeat_minute)
        SELECT namespace, session_id, 'p' || n % 20, 'p' || n % 20, 'm' || n % 10, status,
               heartbeat, heartbeat,
               CASE WHEN status IN ('completed', 'failed') THEN heartbeat END, '{{}}',
               CASE WHEN n % 30 = 0 THEN now() END, heartbeat, heartbeat, '{{}}', '{{}}', '[]',
               1, 1, floor(extract(epoch FROM heartbeat) / 60)
        FROM (SELECT 'n' || namespace AS namespace, 'session-' || n AS session_id, n,
                     (ARRAY['active', 'paused', 'completed', 'failed', 'stalled'])[1 + n % 5]
                     AS status, now() - n * interval '1 minute' AS heartbeat
              FROM generate_series(1, {NAMESPACES}) AS namespace,
                   generate_series(1, {SESSIONS}) AS n) AS s""",
    f"""INSERT INTO tasks
        SELECT 'n' || namespace, 'task-' || session || '-' || n, 'session-' || session,
               'p' || session % 20, 'p' || session % 20, NULL, 'task',
               (ARRAY['pending', 'completed'])[1 + n % 2], NULL,
               NULL, NULL, '{{}}', NULL, now(), now(), n, n
        FROM generate_series(1, {NAMESPACES}) AS namespace,
             generate_series(1, {SESSIONS}) AS session, generate_series(1, {TASKS}) AS n""",
    f"""INSERT INTO machines
        SELECT 'n' || namespace, 'm' || n, 'host', '[]', 'online', now(), '{{}}', now(), now()
        FROM generate_series(1, {NAMESPACES}) AS namespace, generate_series(1, 50) AS n""",
    f"""INSERT INTO instances
               (namespace, instance_id, hash, project, project_name, instance_type, scope,
                parent_id, tags, status, last_heartbeat, restarts, crash_looping, alive_since,
                created_at, updated_at, heartbeat_minute)
        SELECT 'n' || namespace, 'p' || n % 20 || '-PS-' || hash, hash, 'p' || n % 20,
               'p' || n % 20, 'PS', 'project', CASE WHEN n % 5 = 0 THEN 'p1-PS-000001' END, '[]',
               (ARRAY['active', 'closed'])[1 + n % 2], heartbeat, 0, false, heartbeat, heartbeat,
               heartbeat, floor(extract(epoch FROM heartbeat) / 60)
        FROM (SELECT namespace, n, lpad(to_hex(n), 6, '0') AS hash,
                     now() - n * interval '1 minute' AS heartbeat
              FROM generate_series(1, {NAMESPACES}) AS namespace,
                   generate_series(1, {SESSIONS}) AS n) AS i""",
    f"""INSERT INTO work_items
               (namespace, item_id, priority, depends_on, status, holder_kind, holder_id, fence,
                claimed_at, created_at, updated_at, listed_at, open_dependencies)
        SELECT 'n' || namespace, 'item-' || n, n % 7,
               CASE WHEN n > 1 THEN to_jsonb(ARRAY['item-' || n - 1]) ELSE '[]' END, status,
               CASE WHEN status = 'claimed' THEN 'session' END,
               CASE WHEN status = 'claimed' THEN 'session-' || n END, 2, now(), now(), now(), n,
               '[]'
        FROM (SELECT namespace, n, (ARRAY['open', 'claimed', 'completed'])[1 + n % 3] AS status
              FROM generate_series(1, {NAMESPACES}) AS namespace,
                   generate_series(1, {SESSIONS}) AS n) AS w""",
    f"""INSERT INTO projections.positions
        SELECT 'n' || n, place, 1 FROM generate_series(1, {NAMESPACES}) AS n,
               projections.definitions""",
)

# Something for every parameter that a query may have; None for a filter that may be left out.
PARAMETERS: Mapping[str, Any] = {
    "namespace": "n7",
    "places": [each.place for each in DEFINITIONS],
    "place": DEFINITIONS[1].place,
    "past_position": None,
    "past_read_model": None,
    "streams": ["session-3", "session-4"],
    "state_versions": [1, 1],
    "stream_id": "session-3",
    "state_version": 1,
    "hostname": "m4",
    "to": 30,
    "after": 12,
    "upto": 2**63 - 1,
    "limit": 100,
    "offset": 0,
    "types": None,
    "start": None,
    "end": None,
    "keyword": None,
    "keys": ["key-1", "key-2"],
    "sequence_num": 3,
    "event_id": "00000000-0000-0000-0000-000000000001",
    "project_id": None,
    "machine_id": None,
    "status": None,
    "archived": False,
    "session_id": "session-3",
    "task_id": "task-3-1",
    "instance_id": "p1-PS-000001",
    "item_id": "item-3",
    "holder": None,
    "takeover": True,
    "besides": ["item-1"],
    "track": None,
    "reference": "00001",
    "project": None,
    "active_only": False,
    "scope": None,
    "type": None,
    "name": None,
    "tag": None,
    "parent_scope": None,
    "children_of": None,
    "ended_before": START,
    "position": 5,
    "read_model": "sessions",
    "error": "error",
    "names": ["claim_stale_seconds"],
    "values": [300.0],
    "snapshots": "[]",
    "job": "sweep",
    "item_ids": ["item-3"],
    "silent_seconds": 86_400.0,
    "period": "30 seconds",
    "tolerance_seconds": 3.0,
    "past": None,
    "past_created_at": None,
    "past_session_id": None,
    "past_created_num": None,
    "past_machine_id": None,
    "past_priority": None,
    "past_listed_at": None,
    "past_claimed_at": None,
    "past_item_id": None,
    "room": 1_000_000,
    "past_interval_num": None,
    "past_instance_id": None,
    "seen": ["0123456789abcdef"],
}
# What else a query may be asked with.
VARIANTS: Mapping[str, list[Mapping[str, Any]]] = {
    "sessions.list": [
        {},
        {"status": "active"},
        {"status": "stalled"},
        {"project_id": "p3"},
        {"machine_id": "m3"},
        {"archived": True},
        {"past_created_at": START, "past_session_id": "session-3"},
    ],
    "sessions.active_rest": [{}, {"past_session_id": "session-3"}],
    "tasks.list": [
        {},
        {"session_id": "session-3"},
        {"project_id": "p3"},
        {"status": "pending"},
        {"past_created_at": START, "past_session_id": "session-3", "past_created_num": 2},
    ],
    "machines.list": [
        {},
        {"status": "online"},
        {"past_created_at": START, "past_machine_id": "m3"},
    ],
    "machines.get": [{"machine_id": "m3"}],
    "queries.find_in_stream": [{}, {"keyword": "x", "start": START}, {"past": 3}],
    "queries.find_in_stream_backwards": [{}, {"past": 3}],
    "queries.log_of_types": [{"types": ["session_created", "task_created"]}],
    "instances.list_rest": [{}, {"past_instance_id": "p1-PS-000001"}],
    "instances.discover_rest": [{}, {"past_instance_id": "p1-PS-000001"}],
    "instances.list": [{}, {"project": "p3"}, {"active_only": True}],
    "instances.count": [{}, {"project": "p3"}, {"active_only": True}],
    "instances.discover": [{}, {"scope": "project"}, {"children_of": "p1-PS-000001"}],
    "work_items.list": [
        {},
        {"status": "open"},
        {"track": "core"},
        {"past_priority": 3, "past_listed_at": 7},
        {"status": "open", "past_priority": 3, "past_listed_at": 7},
    ],
    "work_items.claims": [
        {},
        {"holder": "session-4"},
        {"past_claimed_at": START, "past_item_id": "item-3"},
    ],
    "queries.log": [{}, {"types": ["session_heartbeat"]}],
}
EXEMPT: Mapping[str, str] = {
    "queries.forget_receipts": "a call of a function; a job of all namespaces",
    "queries.insert_snapshots": "a call of a function; each event is the primary key's to find",
    "queries.append": "a call of the function; what it looks up is the primary key's to find",
    "queries.hold": "a call of a function that locks one row by its primary key",
}


def queries() -> Iterator[tuple[str, str]]:
    """Every query of the event store and of the read models."""
    files = {
        "queries": sql.load("application.eventstore", "queries.sql"),
        "projector": sql.load("projections.kernel", "projector.sql"),
        "dead_letters": dead_letters.SQL,
        **{model.name: model.sql() for model in READ_MODELS},
    }
    for file, blocks in files.items():
        for name, query in blocks.items():
            if name != "create" and f"{file}.{name}" not in EXEMPT:
                yield f"{file}.{name}", query


def scanned(connection: Connection, query: str, parameters: Mapping[str, Any]) -> set[str]:
    """The tables and indexes that the plan reads from end to end, or in every namespace."""
    cursor = psycopg.ClientCursor(connection)
    found = cursor.execute(f"EXPLAIN (FORMAT JSON) {query}".encode(), parameters).fetchone()
    assert found is not None
    return set(_scans(found[0][0]["Plan"]))


def _scans(plan: Mapping[str, Any]) -> Iterator[str]:
    if plan["Node Type"] == "Seq Scan":
        yield plan["Relation Name"]
    elif "Index Name" in plan and "namespace" not in plan.get("Index Cond", ""):
        yield plan["Index Name"]
    for inner in plan.get("Plans", ()):
        yield from _scans(inner)


@pytest.fixture
def filled(database: str) -> Iterator[Connection]:
    with as_owner(database) as connection:
        for statement in FILL:
            connection.execute(statement.encode())
        connection.execute("ANALYZE")
        yield connection


def test_no_query_reads_a_whole_table(filled: Connection) -> None:
    offences = [
        f"{name} with {dict(variant)} reads all of {', '.join(sorted(tables))}"
        for name, query in queries()
        for variant in VARIANTS.get(name, [{}])
        if (tables := scanned(filled, query, {**PARAMETERS, **variant}) - SMALL)
    ]

    assert not offences, "\n".join(offences)


def test_the_test_would_notice(filled: Connection) -> None:
    assert scanned(filled, "SELECT * FROM sessions WHERE hostname = 'x'", {}) == {"sessions"}
    assert scanned(filled, "SELECT * FROM event_store WHERE position = 3", {})


def test_every_exemption_is_of_a_query_that_is_there() -> None:
    there = {f"queries.{name}" for name in sql.load("application.eventstore", "queries.sql")}

    assert set(EXEMPT) <= there


def test_every_index_begins_with_the_namespace(filled: Connection) -> None:
    """Spec 3: nothing is looked up across namespaces."""
    rows = filled.execute(
        "SELECT indexrelid::regclass::text, a.attname FROM pg_index i"
        " JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[0]"
        " JOIN pg_class c ON c.oid = i.indrelid"
        " WHERE c.relnamespace::regnamespace::text ~ '^(public$|projection)'"
    ).fetchall()

    without = {index for index, column in rows if column != "namespace"}

    # None of them has anything to do with a namespace's data.
    assert without == {
        "job_runs_pkey",
        "projections.definitions_pkey",
        "projections.public_views_pkey",
        "schema_migrations_pkey",
        "service_thresholds_pkey",
        "serving_intervals_pkey",
    }
