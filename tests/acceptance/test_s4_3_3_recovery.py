"""S4 3.3: recovery."""

from __future__ import annotations

import pytest

from tests.acceptance.serving import Api, Json, name, ok, refused


def ended_badly(api: Api, how: str) -> Json:
    """A session that failed or stalled."""
    session = api.session(metadata={"branch": "main"})
    ended: Json = (api.fail if how == "failed" else api.stall)(session["session_id"])
    return ended


def test_the_recovery_state_sorts_a_session_s_tasks(api: Api) -> None:
    """AC-3.3.a last_successful_task and the tasks by status, with what a resuming agent needs."""
    session = api.session(metadata={"branch": "main", "checkpoint": {"epic": 3}})
    pending = api.task(session)
    api.task(session, "completed")
    failed = api.task(session, "failed")
    blocked = api.task(session, "blocked")
    running = api.task(session, "in_progress")
    latest = api.task(session, "completed")
    state = ok(api.get(f"/api/sessions/{session['session_id']}/recovery-state"))
    brief = state.pop("brief")
    assert state == {
        "session_id": session["session_id"],
        "project_id": session["project_id"],
        "status": "active",
        "last_successful_task": latest,
        "failed_tasks": [failed],
        "in_progress_tasks": [running],
        "pending_tasks": [pending],
        "blocked_tasks": [blocked],
        "held_claims": [],
        "released_items": [],
        "last_heartbeat": session["last_heartbeat"],
        "checkpoint": {"epic": 3},
        "metadata": session["metadata"],
        "recovered_to": None,
    }
    for task in (pending, failed, blocked, running, latest):
        assert task["task_name"] in brief


def test_a_session_without_tasks_has_a_recovery_state_too(api: Api) -> None:
    """AC-3.3.a Nothing done yet: no last_successful_task, empty lists."""
    session_id = api.session()["session_id"]
    state = ok(api.get(f"/api/sessions/{session_id}/recovery-state"))
    assert state["last_successful_task"] is None
    assert state["failed_tasks"] == state["pending_tasks"] == state["in_progress_tasks"] == []
    refused(api.get("/api/sessions/nonsense/recovery-state"), 404, "session_not_found")


@pytest.mark.parametrize("how", ["failed", "stalled"])
def test_a_recovery_can_be_prepared(api: Api, how: str) -> None:
    """AC-3.3.b prepare-recovery notes its time in metadata; the machine stays."""
    session = ended_badly(api, how)
    path = f"/api/sessions/{session['session_id']}/prepare-recovery"
    prepared = ok(api.post(path))
    assert prepared["metadata"]["recovery_prepared_at"] == prepared["updated_at"]
    assert prepared["machine_id"] == session["machine_id"]
    assert prepared["status"] == how
    assert api.get_session(session["session_id"]) == prepared


def test_preparing_may_clear_the_machine(api: Api) -> None:
    """AC-3.3.b With clear_machine the session has no machine any more (spec 17)."""
    session = ended_badly(api, "failed")
    path = f"/api/sessions/{session['session_id']}/prepare-recovery"
    assert ok(api.post(path, json={"clear_machine": True}))["machine_id"] is None
    assert api.get_session(session["session_id"])["machine_id"] is None
    ok(api.recover(session["session_id"], name("machine")), 201)


@pytest.mark.parametrize("how", ["failed", "stalled"])
def test_recovering_opens_a_new_session(api: Api, how: str) -> None:
    """AC-3.3.c recover answers 201 with an active session of a new id on the new machine."""
    original = ended_badly(api, how)
    machine_id = name("machine")
    successor = ok(api.recover(original["session_id"], machine_id, docker_slot=4), 201)
    assert successor["session_id"] != original["session_id"]
    assert (successor["status"], successor["machine_id"]) == ("active", machine_id)
    assert (successor["project_id"], successor["docker_slot"]) == (original["project_id"], 4)
    assert successor["recovered_from"] == original["session_id"]
    assert successor["metadata"]["branch"] == "main"
    assert successor["metadata"]["recovery"] == {"recovered_from": original["session_id"]}
    assert "error_message" not in successor["metadata"]
    assert api.get_session(successor["session_id"]) == successor
    assert api.get_machine(machine_id)["active_sessions"] == [successor["session_id"]]


@pytest.mark.parametrize("how", ["failed", "stalled"])
def test_the_original_is_completed_and_names_its_successor(api: Api, how: str) -> None:
    """AC-3.3.d The original: completed, outcome recovered, recovered_to, recovery in metadata."""
    original = ended_badly(api, how)
    successor = ok(api.recover(original["session_id"], name("machine")), 201)["session_id"]
    closed = api.get_session(original["session_id"])
    assert (closed["status"], closed["outcome"]) == ("completed", "recovered")
    assert closed["recovered_to"] == successor
    assert closed["metadata"]["recovery"] == {"outcome": "recovered", "recovered_to": successor}
    assert closed["completed_at"] is not None
    assert api.get_machine(original["machine_id"])["active_sessions"] == []


def test_failed_tasks_start_again(api: Api) -> None:
    """AC-3.3.e With reset_failed_tasks failed and unfinished tasks are pending in the successor."""
    session = api.session()
    statuses = ("failed", "failed", "in_progress", "pending", "blocked", "completed")
    tasks = [
        api.task(session, status, metadata={"n": n}, github_issue_id=f"#{n}")
        for n, status in enumerate(statuses)
    ]
    api.fail(session["session_id"])
    body = {"reset_failed_tasks": True}
    successor = ok(api.recover(session["session_id"], name("machine"), **body), 201)
    carried = api.tasks_of(successor)
    assert [task["status"] for task in carried] == ["pending"] * 4 + ["blocked"]
    assert [task["carried_from"] for task in carried] == [task["task_id"] for task in tasks[:5]]
    for new, old in zip(carried, tasks[:5], strict=True):
        assert new["task_id"] != old["task_id"]
        for field in ("task_name", "metadata", "github_issue_id", "project_id"):
            assert new[field] == old[field]
        assert new["started_at"] is new["completed_at"] is None
    assert len(api.tasks_of(session)) == 6


def test_failed_tasks_stay_behind_when_they_are_not_to_start_again(api: Api) -> None:
    """AC-3.3.e Without reset_failed_tasks only pending and blocked tasks are carried over."""
    session = api.session()
    for status in ("failed", "in_progress", "pending", "blocked", "completed"):
        api.task(session, status)
    api.stall(session["session_id"])
    body = {"reset_failed_tasks": False}
    successor = ok(api.recover(session["session_id"], name("machine"), **body), 201)
    assert [task["status"] for task in api.tasks_of(successor)] == ["pending", "blocked"]


@pytest.mark.parametrize("status", ["active", "paused", "completed"])
def test_a_session_in_order_can_be_neither_prepared_nor_recovered(api: Api, status: str) -> None:
    """AC-3.3.f prepare-recovery of an active session is 400; so is recover, and other statuses."""
    session_id = api.session()["session_id"]
    before = api.patch_session(session_id, status=status)
    prepare = api.post(f"/api/sessions/{session_id}/prepare-recovery")
    for response in (prepare, api.recover(session_id, name("machine"))):
        body = refused(response, 400, "not_recoverable")
        assert body["details"]["status"] == status
    assert api.get_session(session_id) == before
