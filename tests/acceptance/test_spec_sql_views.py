"""Architecture, "The read path": the SQL views that analysts query are part of the contract."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
from psycopg.rows import dict_row

from projections import schema
from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.past import Past
from tests.acceptance.queue import Queue
from tests.acceptance.serving import Api, gone, ok


def rows(store: psycopg.Connection, view: str, namespace: str) -> list[dict[str, Any]]:
    """A view's rows of one namespace, after a read that waited for them."""
    cursor = store.cursor(row_factory=dict_row)
    query = f"SELECT * FROM public.{view} WHERE namespace = %s"
    return cursor.execute(query.encode(), [namespace]).fetchall()


def test_v_active_sessions(api: Api, past: Past, store: psycopg.Connection) -> None:
    """Given live and ended sessions, then the view has a row for each live one."""
    live = api.session()["session_id"]
    old = past.session(timedelta(minutes=6))["session_id"]
    api.fail(api.session()["session_id"])
    ok(api.get("/api/sessions"))
    found = {row["session_id"]: row for row in rows(store, "v_active_sessions", api.namespace)}
    assert set(found) == {live, old}
    assert (found[live]["status"], found[live]["computed_status"]) == ("active", "idle")
    assert (found[old]["status"], found[old]["computed_status"]) == ("stalled", "stale")
    assert found[old]["heartbeat_age_human"] == "6m ago"


def test_v_active_sessions_tells_what_is_held(
    api: Api, past: Past, store: psycopg.Connection
) -> None:
    """S3 FR-5 Given sessions with items, then the view has these, the fences and for how long."""
    queue = Queue(api)
    session = api.session(docker_slot=1)
    fences = {item: queue.claim(item, session)["fence"] for item in ("b", "a")}
    old = past.session(timedelta(minutes=6), items=["c"])
    ok(api.get("/api/sessions"))
    found = {row["session_id"]: row for row in rows(store, "v_active_sessions", api.namespace)}
    row = found[session["session_id"]]
    assert (row["held_items"], row["computed_status"]) == (["a", "b"], "active")
    assert {claim["item_id"]: claim["fence"] for claim in row["claims"]} == fences
    assert 0 <= row["claim_duration_minutes"] < 1
    assert 290 < row["seconds_until_stale"] <= 300
    row = found[old["session_id"]]
    assert (row["held_items"], row["computed_status"]) == (["c"], "stale")
    assert row["claim_duration_minutes"] >= 6
    assert row["seconds_until_stale"] == 0
    assert row["heartbeat_age_minutes"] * 60 == row["heartbeat_age_seconds"]
    for item in fences:
        ok(queue.release(item, session))
    ok(api.get("/api/sessions"))
    found = {row["session_id"]: row for row in rows(store, "v_active_sessions", api.namespace)}
    row = found[session["session_id"]]
    assert (row["held_items"], row["claims"], row["computed_status"]) == ([], [], "idle")
    assert row["claim_duration_minutes"] is None


def test_work_queue(api: Api, past: Past, store: psycopg.Connection) -> None:
    """S3 FR-3, FR-6 Given items in every state, then the view says what the API says."""
    queue = Queue(api)
    queue.add("house", title="A house", track="build", priority=2, depends_on=["walls"])
    session = api.session(hostname="rack-1")
    queue.claim("walls", session)
    queue.claim("plan", session)
    ok(queue.complete("plan", session))
    silent = past.session(timedelta(minutes=6), items=["forgotten"])
    items = {item["item_id"]: item for item in queue.items()}
    found = {row["item_id"]: row for row in rows(store, "work_queue", api.namespace)}
    assert found.keys() == items.keys()
    steady = {
        *("title", "track", "priority", "depends_on", "blocked_by", "status", "is_working_on"),
        *("active_session_id", "active_instance_id", "hostname", "fence", "stale"),
    }
    for item_id, row in found.items():
        assert {field: row[field] for field in steady} == {
            field: items[item_id][field] for field in steady
        }
    assert found["house"]["blocked_by"] == ["walls"]
    assert found["walls"]["active_session_id"] == session["session_id"]
    assert found["forgotten"]["active_session_id"] == silent["session_id"]
    assert (found["forgotten"]["stale"], found["forgotten"]["seconds_until_takeover"]) == (True, 0)
    assert found["forgotten"]["heartbeat_age_human"] == "6m ago"
    assert found["plan"]["is_working_on"] is False


def test_stalled_sessions(api: Api, past: Past, store: psycopg.Connection) -> None:
    """Given stalled sessions, recorded and not, then the view has just these."""
    marked = api.session()["session_id"]
    api.stall(marked)
    old = past.session(timedelta(minutes=6))["session_id"]
    api.session()
    ok(api.get("/api/sessions"))
    found = {row["session_id"]: row for row in rows(store, "stalled_sessions", api.namespace)}
    assert set(found) == {marked, old}
    assert found[old]["time_since_heartbeat_ms"] >= 360_000


def test_recovery_state(api: Api, store: psycopg.Connection) -> None:
    """Given a session with tasks, then the view says what the API says."""
    session = api.session()
    done = api.task(session, "completed")
    failed = api.task(session, "failed")
    waiting = api.task(session)
    ok(api.get("/api/sessions"))
    (row,) = rows(store, "recovery_state", api.namespace)
    assert row["session_id"] == session["session_id"]
    assert row["last_successful_task"]["task_id"] == done["task_id"]
    assert [task["task_id"] for task in row["failed_tasks"]] == [failed["task_id"]]
    assert [task["task_id"] for task in row["pending_tasks"]] == [waiting["task_id"]]
    assert row["blocked_tasks"] == row["in_progress_tasks"] == []
    gone(api.delete(f"/api/sessions/{session['session_id']}"))
    ok(api.get("/api/sessions"))
    assert rows(store, "recovery_state", api.namespace) == []


def test_the_views_survive_a_rebuild(database: str, start: Start) -> None:
    """Given read models rebuilt while the server runs, then views and replies are as before."""
    with start(database) as server, server.default() as api:
        session = api.session()
        api.task(session, "completed")
        api.stall(session["session_id"])
        before = api.get_session(session["session_id"])
        schema.rebuild(database)
        assert api.get_session(session["session_id"]) == before
        assert api.beat(session["session_id"])["status"] == "active"
        assert api.get_session(session["session_id"])["status"] == "active"
        api.stall(session["session_id"])
        ok(api.get("/api/sessions"))
        with psycopg.connect(database) as store:
            for view in ("v_active_sessions", "stalled_sessions", "recovery_state"):
                (row,) = rows(store, view, "default")
                assert row["session_id"] == session["session_id"]


def test_the_views_go_by_the_thresholds_of_the_service(database: str, start: Start) -> None:
    """Spec 5, 15 (7) Given settings of its own, then who asks the views past it is told the same.

    A minute's silence is a stall, stale and a claim for the taking here, and nothing elsewhere.
    """
    settings = {
        "STALL_THRESHOLD_MS": "30000",
        "INSTANCE_STALE_SECONDS": "30",
        "CLAIM_STALE_SECONDS": "40",
    }
    minute = timedelta(minutes=1)
    with start(database, **settings) as server, server.world() as api:
        past = Past(database, api.namespace)
        session = past.session(minute, items=["held"])["session_id"]
        agent = Fleet(api, database).silent(minute, "00000a")
        read = ok(api.get("/api/sessions/active"))["sessions"][0]
        with psycopg.connect(database, autocommit=True) as analyst:
            [active] = rows(analyst, "v_active_sessions", api.namespace)
            [stalled] = rows(analyst, "stalled_sessions", api.namespace)
            [registered] = rows(analyst, "supervisor_sessions", api.namespace)
            [item] = rows(analyst, "work_queue", api.namespace)

    assert (read["status"], read["computed_status"]) == ("stalled", "stale")
    assert (active["status"], active["computed_status"]) == ("stalled", "stale")
    assert active["seconds_until_stale"] == 0
    assert (stalled["session_id"], stalled["stall_threshold_ms"]) == (session, 30_000)
    assert (registered["instance_id"], registered["status"]) == (agent, "stale")
    assert (item["stale"], item["seconds_until_takeover"]) == (True, 0)
