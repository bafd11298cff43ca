"""S4 1.1: what is stored of sessions, tasks and machines; read models stand in for collections."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from domain.machines.machine import MACHINE_STATUSES
from domain.sessions.session import SESSION_STATUSES
from domain.sessions.task import TASK_STATUSES
from interfaces.host.embedded_postgres import EmbeddedPostgres
from projections import machines, schema, sessions, tasks
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, cloned, gone, invalid, ok, refused
from tests.support.postgres import as_owner

TIME = "timestamp with time zone"
SESSION = {
    "session_id": "text",
    "project_id": "text",
    "last_heartbeat": TIME,
    "status": "text",
    "started_at": TIME,
    "metadata": "jsonb",
    "created_at": TIME,
    "updated_at": TIME,
}
SESSION_OPTIONAL = {
    # A recovery that clears the machine leaves a session without one (S4 3.3).
    "machine_id": "text",
    "docker_slot": "integer",
    "current_task_id": "text",
    "completed_at": TIME,
}
TASK = {
    "task_id": "text",
    "session_id": "text",
    "project_id": "text",
    "task_name": "text",
    "status": "text",
    "created_at": TIME,
    "updated_at": TIME,
}
TASK_OPTIONAL = {
    "github_issue_id": "text",
    "started_at": TIME,
    "completed_at": TIME,
    "error_message": "text",
}
MACHINE = {
    "machine_id": "text",
    "hostname": "text",
    "docker_slots": "jsonb",
    "status": "text",
    "last_heartbeat": TIME,
    "metadata": "jsonb",
    "created_at": TIME,
    "updated_at": TIME,
}


def columns(store: psycopg.Connection, table: str, *, nullable: bool) -> dict[str, str]:
    """The columns of a read model that may be null, or may not, and their types."""
    query = (
        "SELECT column_name, data_type FROM information_schema.columns"
        " WHERE table_schema ~ '^projection' AND table_name = %s AND is_nullable = %s"
    )
    rows = store.execute(query, [table, "YES" if nullable else "NO"]).fetchall()
    return dict(rows)


def test_a_session_has_all_its_fields_with_their_types(store: psycopg.Connection) -> None:
    """AC-1.1.a Every required field of a session is NOT NULL and typed; optional ones are not."""
    assert SESSION.items() <= columns(store, "sessions", nullable=False).items()
    assert SESSION_OPTIONAL.items() <= columns(store, "sessions", nullable=True).items()


def test_a_task_has_all_its_fields_with_their_types(store: psycopg.Connection) -> None:
    """AC-1.1.b The same of a task."""
    assert TASK.items() <= columns(store, "tasks", nullable=False).items()
    assert TASK_OPTIONAL.items() <= columns(store, "tasks", nullable=True).items()


def test_a_machine_has_all_its_fields_with_their_types(store: psycopg.Connection) -> None:
    """AC-1.1.c The same of a machine; active_sessions is made from the sessions on each read."""
    assert MACHINE.items() <= columns(store, "machines", nullable=False).items()
    query = (
        "SELECT data_type FROM information_schema.columns WHERE table_schema ~ '^projection'"
        " AND table_name = 'machines_now' AND column_name = 'active_sessions'"
    )
    assert store.execute(query).fetchone() == ("ARRAY",)


@pytest.mark.parametrize(
    ("path", "body", "required"),
    [
        ("/api/sessions", {"project_id": "p", "machine_id": "m"}, {"project_id", "machine_id"}),
        (
            "/api/tasks",
            {"session_id": "s", "project_id": "p", "task_name": "t"},
            {"session_id", "project_id", "task_name"},
        ),
        ("/api/machines", {"hostname": "h", "docker_slots": [1]}, {"hostname", "docker_slots"}),
    ],
)
def test_a_document_without_a_required_field_is_refused(
    api: Api,
    stored: Callable[[], int],
    path: str,
    body: dict[str, object],
    required: set[str],
) -> None:
    """AC-1.1.a, b, c Each required field missing, null or of another type: 400, nothing stored."""
    for field in required:
        invalid(api.post(path, json={k: v for k, v in body.items() if k != field}), field)
        invalid(api.post(path, json=body | {field: None}), field)
        invalid(api.post(path, json=body | {field: {"a": 1}}), field)
    invalid(api.post(path, json={}), *required)
    assert stored() == 0


@pytest.mark.parametrize("slots", ["1", 1, {"1": 1}, ["x"], [1.5], [True], [None], [-1], [2**31]])
def test_docker_slots_are_a_list_of_numbers(
    api: Api, stored: Callable[[], int], slots: object
) -> None:
    """AC-1.1.c docker_slots of any other type is 400."""
    reply = api.post("/api/machines", json={"hostname": "odin", "docker_slots": slots})
    body = refused(reply, 400, "validation_error")
    assert {error["field"].split(".")[0] for error in body["errors"]} == {"docker_slots"}
    assert stored() == 0


def test_only_statuses_of_the_enumeration_are_accepted(api: Api, stored: Callable[[], int]) -> None:
    """AC-1.1.d A status that is none is 400 wherever one can be given; every real one is taken."""
    session = api.session()
    task, machine = api.task(session), api.machine()
    before = stored()
    for path, plural, statuses in (
        (f"/api/sessions/{session['session_id']}", "sessions", SESSION_STATUSES),
        (f"/api/tasks/{task['task_id']}", "tasks", TASK_STATUSES),
        (f"/api/machines/{machine['machine_id']}", "machines", MACHINE_STATUSES),
    ):
        for wrong in ("sleeping", "ACTIVE", "", " active", 1, True, ["active"]):
            invalid(api.patch(path, json={"status": wrong}), "status")
        invalid(api.get(f"/api/{plural}", params={"status": "sleeping"}), "status")
        for status in statuses:
            ok(api.get(f"/api/{plural}", params={"status": status}))
    assert stored() == before


@pytest.mark.parametrize("status", SESSION_STATUSES)
def test_every_session_status_can_be_reached(api: Api, status: str) -> None:
    """AC-1.1.d active, paused, completed, failed and stalled are accepted by PATCH."""
    session_id = api.session()["session_id"]
    assert api.patch_session(session_id, status=status)["status"] == status
    assert api.get_session(session_id)["status"] == status


# Index use (AC-1.1.e): a read model as large as those of many teams together.


@pytest.fixture(scope="module")
def populated(cluster: EmbeddedPostgres, template: str) -> Iterator[psycopg.Connection]:
    """A database with 20 namespaces of 500 sessions each, and as many tasks and machines.

    Real rows, folded from events, are copied under other names, and with other times and statuses.
    """
    with cloned(cluster, template) as url, as_owner(url) as connection:
        Past(url, "n0").session(timedelta(days=1), tasks=1, ended=timedelta(days=1))
        schema.rebuild(url)
        for table, changes in COPIES.items():
            connection.execute(
                f"""
                INSERT INTO {table} SELECT (jsonb_populate_record(t, {changes})).*
                FROM {table} AS t, generate_series(1, 10000) AS n,
                LATERAL (SELECT now() - n * interval '1 minute') AS x (past)
                """.encode()
            )
        connection.execute("ANALYZE")
        yield connection


COPIES = {
    "sessions": """jsonb_build_object(
        'namespace', 'n' || n % 20, 'session_id', 's' || n, 'project_id', 'p' || n % 997,
        'machine_id', 'm' || n % 1009, 'last_heartbeat', past, 'created_at', past,
        'heartbeat_minute', floor(extract(epoch FROM past) / 60)::bigint,
        'status', (ARRAY['completed', 'completed', 'failed', 'active'])[1 + n % 4],
        'completed_at', CASE WHEN n % 4 < 3 THEN past END)""",
    "tasks": """jsonb_build_object(
        'namespace', 'n' || n % 20, 'task_id', 't' || n, 'session_id', 's' || n,
        'project_id', 'p' || n % 997, 'created_at', past)""",
    "machines": """jsonb_build_object(
        'namespace', 'n' || n % 20, 'machine_id', 'm' || n, 'created_at', past,
        'status', CASE n % 50 WHEN 1 THEN 'offline' ELSE 'online' END)""",
}


NOBODY = {"project_id": None, "machine_id": None, "status": None, "archived": False}
# The first page of a list: no row before it.
PAST = {
    "past_created_at": None,
    "past_created_num": None,
    "past_session_id": None,
    "past_machine_id": None,
}
FIRST = {"limit": 50, "offset": 0, **PAST}


@pytest.mark.parametrize(
    ("query", "parameters"),
    [
        pytest.param(sessions.SQL["get"], {"session_id": "s21"}, id="session_id"),
        pytest.param(
            sessions.SQL["list"], {**NOBODY, **FIRST, "project_id": "p21"}, id="project_id"
        ),
        pytest.param(
            sessions.SQL["list"],
            {**NOBODY, **FIRST, "project_id": "p21", "status": "active"},
            id="project_id and status",
        ),
        pytest.param(
            sessions.SQL["list"], {**NOBODY, **FIRST, "machine_id": "m21"}, id="machine_id"
        ),
        pytest.param(sessions.SQL["stalled"], {"limit": 50}, id="last_heartbeat, stalled list"),
        pytest.param(sessions.SQL["overdue"], {}, id="last_heartbeat, sweep"),
        pytest.param(sessions.SQL["health"], {}, id="health summary"),
        pytest.param(
            sessions.SQL["expired"],
            {"ended_before": datetime.now(UTC) - timedelta(days=6)},
            id="completed_at",
        ),
        pytest.param(tasks.SQL["get"], {"task_id": "t21"}, id="task_id"),
        pytest.param(tasks.SQL["of_session"], {"session_id": "s21"}, id="tasks of a session"),
        pytest.param(
            tasks.SQL["list"],
            {**FIRST, "session_id": None, "project_id": "p21", "status": None},
            id="tasks of a project",
        ),
        pytest.param(machines.SQL["get"], {"machine_id": "m21"}, id="machine"),
        pytest.param(machines.SQL["list"], {**FIRST, "status": "offline"}, id="machines by status"),
    ],
)
def test_queries_use_indexes(
    populated: psycopg.Connection, query: str, parameters: Mapping[str, object]
) -> None:
    """AC-1.1.e, AC-2.4.f By EXPLAIN: no query reads a table whole, each goes in by an index."""
    explained = populated.execute(
        f"EXPLAIN (FORMAT JSON) {query}".encode(), {"namespace": "n1", **parameters}
    ).fetchone()
    assert explained is not None
    nodes = list(_nodes(explained[0][0]["Plan"]))
    assert [node for node in nodes if node["Node Type"] == "Seq Scan"] == []
    assert any("Index" in node["Node Type"] for node in nodes)


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for child in plan.get("Plans", []):
        yield from _nodes(child)


def test_what_ended_long_ago_is_removed(api: Api, past: Past) -> None:
    """AC-1.1.f In place of a TTL index: clean-up removes what ended 31 days ago, and only that.

    That it also runs by itself is AC-3.4.a.
    """
    old = past.session(timedelta(days=40), ended=timedelta(days=31), tasks=1)
    kept = past.session(timedelta(days=40), ended=timedelta(days=29), tasks=1)
    assert ok(api.post("/api/sessions/cleanup")) == {"deleted_sessions": 1, "deleted_tasks": 1}
    refused(api.get(f"/api/sessions/{old['session_id']}"), 404, "session_not_found")
    refused(api.get(f"/api/tasks/{old['tasks'][0]}"), 404, "task_not_found")
    assert api.get_session(kept["session_id"])["status"] == "completed"
    assert api.get_task(kept["tasks"][0])["status"] == "pending"


def test_what_was_removed_frees_its_names(api: Api) -> None:
    """AC-1.1.f A removed session's place can be taken again."""
    session = api.session()
    gone(api.delete(f"/api/sessions/{session['session_id']}"))
    place = {key: session[key] for key in ("project_id", "machine_id")}
    assert api.session(**place)["session_id"] != session["session_id"]
