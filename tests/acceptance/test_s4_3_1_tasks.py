"""S4 3.1: tasks."""

from __future__ import annotations

from tests.acceptance.serving import Api, gone, invalid, is_uuid4, name, ok, refused

NEVER = "0b2ab3c8-5d1f-4f7e-9d2c-8c1b0e8f6a77"


def test_a_valid_request_creates_a_pending_task(api: Api) -> None:
    """AC-3.1.a POST /api/tasks answers 201: task_id, status pending, timestamps."""
    session = api.session()
    body = {
        "session_id": session["session_id"],
        "project_id": session["project_id"],
        "task_name": "write the tests",
        "github_issue_id": "42",
        "metadata": {"size": "S"},
    }
    created = ok(api.post("/api/tasks", json=body), 201)
    assert is_uuid4(created["task_id"])
    assert {key: created[key] for key in body} == body
    assert created["status"] == "pending"
    assert created["created_at"] == created["updated_at"]
    assert created["started_at"] is created["completed_at"] is created["error_message"] is None
    assert api.get_task(created["task_id"]) == created


def test_a_task_of_an_unknown_session_is_refused(api: Api) -> None:
    """AC-3.1.b An unknown, malformed or deleted session_id in the body is 400."""
    deleted = api.session()["session_id"]
    gone(api.delete(f"/api/sessions/{deleted}"))
    for session_id in ("invalid-uuid", NEVER, deleted):
        body = {"session_id": session_id, "project_id": "p", "task_name": "t"}
        reply = refused(api.post("/api/tasks", json=body), 400, "unknown_session")
        assert [error["field"] for error in reply["errors"]] == ["session_id"]


def test_a_task_of_another_project_than_its_session_s_is_refused(api: Api) -> None:
    """AC-3.1.b A task's project_id is its session's (spec 17)."""
    session_id = api.session()["session_id"]
    body = {"session_id": session_id, "project_id": name("project"), "task_name": "t"}
    invalid(api.post("/api/tasks", json=body), "project_id")


def test_starting_a_task_sets_started_at(api: Api) -> None:
    """AC-3.1.c From pending to in_progress started_at is set to the time of the change."""
    task = api.task(api.session())
    api.patch_task(task["task_id"], status="in_progress")
    started = api.get_task(task["task_id"])
    assert (started["status"], started["completed_at"]) == ("in_progress", None)
    assert started["started_at"] == started["updated_at"] != task["updated_at"]


def test_completing_a_task_sets_completed_at(api: Api) -> None:
    """AC-3.1.d A completed task has completed_at and is found by GET."""
    task_id = api.task(api.session(), "in_progress")["task_id"]
    patched = api.patch_task(task_id, status="completed")
    read = api.get_task(task_id)
    assert read == patched
    assert (read["status"], read["completed_at"]) == ("completed", read["updated_at"])
    assert read["started_at"] != read["completed_at"]


def test_a_task_in_progress_is_the_session_s_current_task(api: Api) -> None:
    """AC-3.1.e current_task_id follows the task that was started last."""
    session = api.session()
    first = api.task(session, "in_progress")["task_id"]
    assert api.get_session(session["session_id"])["current_task_id"] == first
    second = api.task(session, "in_progress")["task_id"]
    assert api.get_session(session["session_id"])["current_task_id"] == second


def test_an_ended_task_is_no_longer_current(api: Api) -> None:
    """AC-3.1.e Completing or failing clears current_task_id if it matches, and only then."""
    session = api.session()
    first, second = (api.task(session, "in_progress")["task_id"] for _ in range(2))
    api.patch_task(first, status="completed")
    assert api.get_session(session["session_id"])["current_task_id"] == second
    api.patch_task(second, status="failed", error_message="it broke")
    assert api.get_session(session["session_id"])["current_task_id"] is None


def test_tasks_can_be_listed_by_session(api: Api) -> None:
    """AC-3.1.f ?session_id= answers that session's tasks only, in the order of their making."""
    one, two = api.session(), api.session()
    of_one = [api.task(one)["task_id"] for _ in range(2)]
    api.task(two)
    assert [task["task_id"] for task in api.tasks_of(one)] == of_one


def test_tasks_can_be_listed_by_project_and_status(api: Api) -> None:
    """AC-3.1.f The filters project_id and status, alone and together."""
    one, two = api.session(), api.session()
    waiting, done = api.task(one)["task_id"], api.task(one, "completed")["task_id"]
    elsewhere = api.task(two)["task_id"]
    for query, expected in (
        ({"project_id": one["project_id"]}, [waiting, done]),
        ({"status": "pending"}, [waiting, elsewhere]),
        ({"status": "completed", "project_id": one["project_id"]}, [done]),
        ({"status": "blocked"}, []),
    ):
        listed = ok(api.get("/api/tasks", params=query))
        assert [task["task_id"] for task in listed["tasks"]] == expected
        assert listed["total_count"] == len(expected)


def test_failing_a_task_needs_a_reason(api: Api) -> None:
    """AC-3.1.g status=failed without error_message is 400, naming it; nothing changes."""
    task = api.task(api.session(), "in_progress")
    path = f"/api/tasks/{task['task_id']}"
    invalid(api.patch(path, json={"status": "failed"}), "error_message")
    assert api.get_task(task["task_id"]) == task
    failed = ok(api.patch(path, json={"status": "failed", "error_message": "no network"}))
    assert (failed["status"], failed["error_message"]) == ("failed", "no network")
    assert failed["completed_at"] == failed["updated_at"]


def test_a_deleted_task_is_gone(api: Api) -> None:
    """AC-3.1.f DELETE answers 204; the task is 404 then and in no list."""
    session = api.session()
    task_id = api.task(session, "in_progress")["task_id"]
    gone(api.delete(f"/api/tasks/{task_id}"))
    refused(api.get(f"/api/tasks/{task_id}"), 404, "task_not_found")
    refused(api.patch(f"/api/tasks/{task_id}", json={}), 404, "task_not_found")
    refused(api.delete(f"/api/tasks/{task_id}"), 404, "task_not_found")
    assert api.tasks_of(session) == []
    assert api.get_session(session["session_id"])["current_task_id"] is None
