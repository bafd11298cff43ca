"""Spec 8: tombstones. What is deleted is gone for readers and stays for auditors."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest

from tests.acceptance.serving import Api, gone, name, ok, refused


def test_a_deleted_session_is_gone_from_every_read(api: Api) -> None:
    """Given a deleted session, then no list, count, view or machine knows it."""
    session = api.session()
    path = f"/api/sessions/{session['session_id']}"
    api.task(session, "in_progress")
    api.stall(session["session_id"])
    gone(api.delete(path))
    for suffix in ("", "/health", "/recovery-state"):
        refused(api.get(f"{path}{suffix}"), 404, "session_not_found")
    for listed in ("sessions", "sessions/active", "sessions/archived", "tasks"):
        assert ok(api.get(f"/api/{listed}"))["total_count"] == 0
    assert ok(api.get("/api/sessions/stalled"))["stalled_sessions"] == []
    assert ok(api.get("/api/sessions/health"))["total_sessions"] == 0
    assert api.get_machine(session["machine_id"])["active_sessions"] == []


def test_every_write_to_a_deleted_session_is_not_found(api: Api, stored: Callable[[], int]) -> None:
    """Given a deleted session, then every command for it is 404, and nothing is stored."""
    session = api.session()
    task = api.task(session)
    path = f"/api/sessions/{session['session_id']}"
    gone(api.delete(path))
    before = stored()
    for verb, suffix, body in (
        ("PATCH", "", {"status": "active"}),
        ("PATCH", "", {"metadata": {"a": 1}}),
        ("DELETE", "", None),
        ("POST", "/heartbeat", {}),
        ("POST", "/mark-failed", {"error_message": "x"}),
        ("POST", "/mark-stalled", {}),
        ("POST", "/archive", {}),
        ("POST", "/prepare-recovery", {}),
        ("POST", "/recover", {"new_machine_id": name("machine")}),
    ):
        reply = api.request(verb, f"{path}{suffix}", json=body)
        refused(reply, 404, "session_not_found")
    reply = api.patch(f"/api/tasks/{task['task_id']}", json={"status": "completed"})
    refused(reply, 404, "task_not_found")
    assert stored() == before


def test_the_events_of_what_is_deleted_stay(api: Api, store: psycopg.Connection) -> None:
    """Given a deleted session and task, then their stream still tells everything."""
    session = api.session()
    task = api.task(session)
    gone(api.delete(f"/api/tasks/{task['task_id']}"))
    gone(api.delete(f"/api/sessions/{session['session_id']}"))
    rows = store.execute(
        "SELECT event_type, sequence_num FROM event_store"
        " WHERE namespace = %s AND stream_id = %s ORDER BY sequence_num",
        [api.namespace, f"session-{session['session_id']}"],
    ).fetchall()
    types = [event_type for event_type, _ in rows]
    assert (types[0], types[-1]) == ("session_created", "session_deleted")
    assert {"task_created", "task_deleted"} < set(types)
    assert [number for _, number in rows] == list(range(1, len(rows) + 1))


@pytest.mark.parametrize(
    "statement",
    ["UPDATE event_store SET position = 0", "DELETE FROM event_store", "TRUNCATE event_store"],
)
def test_not_even_the_owner_changes_events_by_mistake(
    api: Api, store: psycopg.Connection, statement: str
) -> None:
    """Given stored events, then the database itself refuses to change or remove them."""
    api.session()
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        store.execute(statement.encode())


def test_a_session_can_be_deleted_in_any_status(api: Api) -> None:
    """Given a session in each status, then DELETE is 204."""
    for status in ("active", "paused", "stalled", "completed", "failed"):
        session_id = api.session()["session_id"]
        api.patch_session(session_id, status=status)
        gone(api.delete(f"/api/sessions/{session_id}"))
    assert ok(api.get("/api/sessions/health"))["total_sessions"] == 0
