"""S4 3.4: clean-up and archive."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

from tests.acceptance.conftest import MEANT, Start
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Server, eventually, gone, ok, refused

AGES_AGO = timedelta(days=36)
OLD = timedelta(days=35)
RECENT = timedelta(days=29)


@contextmanager
def failing_tombstones(store: psycopg.Connection, namespace: str) -> Iterator[None]:
    """Let no session of the namespace be deleted meanwhile."""
    trigger = f"fail_in_{namespace.replace('-', '_')}"
    store.execute(
        f"""
        CREATE FUNCTION {trigger}() RETURNS trigger LANGUAGE plpgsql AS $$
        BEGIN RAISE EXCEPTION '{MEANT}'; END $$;
        CREATE TRIGGER {trigger} BEFORE INSERT ON event_store FOR EACH ROW
        WHEN (NEW.namespace = '{namespace}' AND NEW.event_type = 'session_deleted')
        EXECUTE FUNCTION {trigger}();
        """.encode()
    )
    yield
    store.execute(f"DROP FUNCTION {trigger} CASCADE".encode())


def test_the_background_job_deletes_what_ended_long_ago(database: str, start: Start) -> None:
    """AC-3.4.a, AC-1.1.f A session that ended 35 days ago goes by itself; one of 29 days stays."""
    past = Past(database, "default")
    old = past.session(AGES_AGO, ended=OLD, tasks=2)
    recent = past.session(AGES_AGO, ended=RECENT)
    silent = past.session(AGES_AGO)
    with start(database) as server, server.default() as api:
        eventually("the clean-up", lambda: server.lines("session_cleaned_up") or None)
        refused(api.get(f"/api/sessions/{old['session_id']}"), 404, "session_not_found")
        for task_id in old["tasks"]:
            refused(api.get(f"/api/tasks/{task_id}"), 404, "task_not_found")
        assert api.get_session(recent["session_id"])["status"] == "completed"
        assert api.get_session(silent["session_id"])["status"] == "stalled"
        (line,) = server.lines("session_cleaned_up")
        assert line["context"]["session_id"] == old["session_id"]
        assert line["context"]["project_id"] == old["project_id"]
        assert line["context"]["completed_at"]


def test_the_retention_is_a_setting(database: str, start: Start) -> None:
    """AC-3.4.a RETENTION_DAYS=10 lets a session of 29 days go."""
    past = Past(database, "default")
    old = past.session(AGES_AGO, ended=RECENT)["session_id"]
    with start(database, RETENTION_DAYS="10") as server, server.default() as api:
        eventually("the clean-up", lambda: server.lines("session_cleaned_up") or None)
        refused(api.get(f"/api/sessions/{old}"), 404, "session_not_found")


def test_a_deleted_session_takes_its_tasks_along(
    api: Api, store: psycopg.Connection, stored: Callable[[], int]
) -> None:
    """AC-3.4.b One tombstone, in one append, hides the session and all its tasks."""
    session = api.session()
    tasks = [api.task(session)["task_id"] for _ in range(3)]
    before = stored()
    gone(api.delete(f"/api/sessions/{session['session_id']}"))
    for task_id in tasks:
        refused(api.get(f"/api/tasks/{task_id}"), 404, "task_not_found")
    assert ok(api.get("/api/tasks"))["total_count"] == 0
    kept = store.execute(
        "SELECT event_type, metadata->>'request_id' FROM event_store"
        " WHERE namespace = %s AND position > %s",
        [api.namespace, before],
    ).fetchall()
    assert "session_deleted" in {event_type for event_type, _ in kept}
    assert len({request_id for _, request_id in kept}) == 1


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_an_ended_session_can_be_archived(api: Api, end: str) -> None:
    """AC-3.4.c archive sets metadata.archived; the session stays and is listed as archived."""
    session_id = api.session(metadata={"kept": 1})["session_id"]
    api.patch_session(session_id, status=end)
    archived = ok(api.post(f"/api/sessions/{session_id}/archive"))
    assert archived["metadata"]["archived"] is True
    assert archived["metadata"]["archived_at"] == archived["archived_at"]
    assert archived["metadata"]["kept"] == 1
    assert (archived["archived"], archived["status"]) == (True, end)
    assert api.get_session(session_id) == archived
    listed = ok(api.get("/api/sessions/archived"))
    assert (listed["sessions"], listed["total_count"]) == ([archived], 1)
    assert ok(api.post(f"/api/sessions/{session_id}/archive")) == archived


def test_a_live_session_cannot_be_archived(api: Api) -> None:
    """AC-3.4.c Archiving a live session is 409 (spec 17)."""
    session_id = api.session()["session_id"]
    refused(api.post(f"/api/sessions/{session_id}/archive"), 409, "not_archivable")
    assert ok(api.get("/api/sessions/archived"))["sessions"] == []


def test_an_archived_session_is_kept(api: Api, past: Past) -> None:
    """AC-3.4.d Clean-up leaves archived sessions alone, however old."""
    kept = past.session(AGES_AGO, ended=OLD, archived=True)["session_id"]
    assert ok(api.post("/api/sessions/cleanup")) == {"deleted_sessions": 0, "deleted_tasks": 0}
    assert ok(api.post("/api/sessions/cleanup?older_than_days=0"))["deleted_sessions"] == 0
    assert api.get_session(kept)["metadata"]["archived"] is True


def test_clean_up_counts_what_it_deleted(api: Api, past: Past) -> None:
    """AC-3.4.e POST /api/sessions/cleanup tells how many sessions and tasks went."""
    old = [past.session(AGES_AGO, ended=OLD, tasks=n)["session_id"] for n in range(5)]
    kept = past.session(AGES_AGO, ended=RECENT, tasks=1)["session_id"]
    assert ok(api.post("/api/sessions/cleanup")) == {"deleted_sessions": 5, "deleted_tasks": 10}
    for session_id in old:
        refused(api.get(f"/api/sessions/{session_id}"), 404, "session_not_found")
    assert api.get_session(kept)["status"] == "completed"
    assert ok(api.post("/api/sessions/cleanup")) == {"deleted_sessions": 0, "deleted_tasks": 0}


@pytest.mark.parametrize("verb", ["POST", "DELETE"])
def test_clean_up_takes_an_age_and_either_verb(api: Api, past: Past, verb: str) -> None:
    """AC-3.4.e ?older_than_days= overrides the setting; DELETE is an alias (spec 15, 9)."""
    past.session(AGES_AGO, ended=OLD)
    newer = past.session(AGES_AGO, ended=RECENT)["session_id"]
    live = api.session()["session_id"]
    reply = api.request(verb, "/api/sessions/cleanup", params={"older_than_days": 34})
    assert ok(reply)["deleted_sessions"] == 1
    assert api.get_session(newer)["status"] == "completed"
    reply = api.request(verb, "/api/sessions/cleanup", params={"older_than_days": 0})
    assert ok(reply)["deleted_sessions"] == 1
    assert api.get_session(live)["status"] == "active"


def test_a_deletion_that_fails_leaves_everything(
    server: Server, api: Api, store: psycopg.Connection, stored: Callable[[], int]
) -> None:
    """AC-3.4.f The database refuses the append: session and tasks both remain.

    A trigger makes the tombstone's insertion fail in this namespace, after the rows that the same
    append brings with it.
    """
    session = api.session()
    tasks = [api.task(session) for _ in range(3)]
    session = api.get_session(session["session_id"])
    before = stored()
    with failing_tombstones(store, api.namespace):
        refused(api.delete(f"/api/sessions/{session['session_id']}"), 500, "internal_error")
        assert stored() == before
        assert api.get_session(session["session_id"]) == session
        assert api.tasks_of(session) == tasks
        assert api.beat(session["session_id"])["status"] == "active"
    gone(api.delete(f"/api/sessions/{session['session_id']}"))
    assert api.tasks_of(session) == []
