"""S4 3.2: failure detection and marking."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Server, eventually, invalid, ok, refused

OLD = timedelta(minutes=5)


def test_a_session_can_be_marked_failed(api: Api) -> None:
    """AC-3.2.a mark-failed: status failed, completed_at set, the error in metadata."""
    session_id = api.session(metadata={"kept": True})["session_id"]
    body = {"error_message": "out of memory", "metadata": {"exit_code": 137}}
    marked = ok(api.post(f"/api/sessions/{session_id}/mark-failed", json=body))
    read = api.get_session(session_id)
    assert read == marked
    assert (read["status"], read["outcome"]) == ("failed", "failed")
    assert read["completed_at"] == read["updated_at"]
    assert read["metadata"] == {"kept": True, "exit_code": 137, "error_message": "out of memory"}


def test_marking_failed_needs_a_reason(api: Api) -> None:
    """AC-3.2.a error_message is required and not blank."""
    session_id = api.session()["session_id"]
    path = f"/api/sessions/{session_id}/mark-failed"
    invalid(api.post(path, json={}), "error_message")
    invalid(api.post(path, json={"error_message": "  "}), "error_message")
    assert api.get_session(session_id)["status"] == "active"


def test_tasks_in_progress_fail_with_their_session(api: Api) -> None:
    """AC-3.2.b Tasks in progress become failed; all others stay as they are."""
    session = api.session()
    statuses = ("in_progress", "in_progress", "pending", "completed", "blocked", "failed")
    tasks = [api.task(session, status) for status in statuses]
    api.fail(session["session_id"], "out of memory")
    after = api.tasks_of(session)
    assert [task["status"] for task in after] == [
        "failed",
        "failed",
        "pending",
        "completed",
        "blocked",
        "failed",
    ]
    assert after[2:] == tasks[2:]
    assert all("out of memory" in task["error_message"] for task in after[:2])
    assert api.get_session(session["session_id"])["current_task_id"] is None


def test_the_background_job_records_a_stall(database: str, start: Start) -> None:
    """AC-3.2.c Without anyone asking, a silent session's stall is recorded as an event."""
    old = Past(database, "default").session(OLD)
    with start(database, SWEEP_SECONDS="0.2") as server, server.default() as api:
        eventually("the stall to be logged", lambda: server.lines("session_stalled") or None)
        (line,) = server.lines("session_stalled")
        assert {k: line["context"][k] for k in ("session_id", "project_id", "machine_id")} == {
            k: old[k] for k in ("session_id", "project_id", "machine_id")
        }
        assert api.get_session(old["session_id"])["status"] == "stalled"
        # A session that goes silent while the service runs is found by a later round.
        later = Past(database, "default").session(OLD)["session_id"]
        eventually("the next stall", lambda: len(server.lines("session_stalled")) == 2 or None)
        assert api.get_session(later)["status"] == "stalled"
        assert len(ok(api.get("/api/sessions/stalled"))["stalled_sessions"]) == 2


def test_a_recorded_stall_is_one_event(
    api: Api, past: Past, server: Server, stored: Callable[[], int]
) -> None:
    """AC-3.2.c detect-failures records each stall once; asking again records nothing."""
    old = past.session(OLD)
    alive = api.session()["session_id"]
    paused = past.session(OLD)["session_id"]
    api.patch_session(paused, status="paused")
    before = stored()
    first = ok(api.post("/api/sessions/detect-failures"))
    assert (first["stalled"], first["instances_stale"]) == (1, 0)
    assert first["duration_ms"] > 0
    assert stored() == before + 1
    assert ok(api.post("/api/sessions/detect-failures"))["stalled"] == 0
    assert stored() == before + 1
    assert api.get_session(alive)["status"] == "active"
    assert api.get_session(paused)["status"] == "paused"
    logged = [line["context"]["session_id"] for line in server.lines("session_stalled")]
    assert logged.count(old["session_id"]) == 1


def test_marking_stalled_leaves_the_session_open(api: Api) -> None:
    """AC-3.2.d mark-stalled: status stalled, completed_at stays null; again changes nothing."""
    session_id = api.session()["session_id"]
    marked = api.stall(session_id)
    assert (marked["status"], marked["completed_at"]) == ("stalled", None)
    assert api.stall(session_id) == marked == api.get_session(session_id)


def test_a_sweep_over_a_hundred_silent_sessions_finds_them_all(api: Api, past: Past) -> None:
    """AC-3.2.e What the load test makes is recorded in one sweep; the time is `make bench`'s."""
    for _ in range(100):
        past.session(OLD)
    assert ok(api.post("/api/sessions/detect-failures"))["stalled"] == 100
    health = ok(api.get("/api/sessions/health"))
    assert (health["stalled_sessions"], health["total_sessions"]) == (100, 100)


def test_a_failed_session_leaves_its_machine(api: Api) -> None:
    """AC-3.2.f mark-failed takes the session out of its machine's active_sessions."""
    machine_id = api.machine()["machine_id"]
    stays = api.session(machine_id=machine_id)["session_id"]
    fails = api.session(machine_id=machine_id)["session_id"]
    api.fail(fails)
    assert api.get_machine(machine_id)["active_sessions"] == [stays]


@pytest.mark.parametrize("action", ["mark-failed", "mark-stalled"])
def test_an_ended_session_can_be_neither_failed_nor_stalled(api: Api, action: str) -> None:
    """AC-3.2.a, d An ended session goes nowhere: 409 (spec 7)."""
    session_id = api.session()["session_id"]
    api.patch_session(session_id, status="completed")
    body = {"error_message": "late"} if action == "mark-failed" else {}
    response = api.post(f"/api/sessions/{session_id}/{action}", json=body)
    refused(response, 409, "invalid_transition")
    assert api.get_session(session_id)["status"] == "completed"
