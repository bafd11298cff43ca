"""S4 2.1: session CRUD endpoints."""

from __future__ import annotations

from tests.acceptance.serving import Api, gone, invalid, is_uuid4, name, ok, refused


def test_a_valid_request_creates_a_session(api: Api) -> None:
    """AC-2.1.a POST /api/sessions answers 201 with a session_id of its own making."""
    project, machine = name("project"), name("machine")
    created = ok(
        api.post("/api/sessions", json={"project_id": project, "machine_id": machine}), 201
    )
    assert is_uuid4(created["session_id"])
    assert (created["project_id"], created["machine_id"]) == (project, machine)
    assert (created["status"], created["metadata"]) == ("active", {})
    assert created["started_at"] == created["created_at"] == created["last_heartbeat"]
    assert created["completed_at"] is None


def test_a_session_without_a_project_is_refused(api: Api) -> None:
    """AC-2.1.b A missing project_id is 400 and named."""
    body = invalid(api.post("/api/sessions", json={"machine_id": name("machine")}), "project_id")
    assert "project_id" in body["message"]


def test_a_session_can_be_read_back_whole(api: Api) -> None:
    """AC-2.1.c GET answers 200 with the complete session."""
    created = api.session(docker_slot=2, metadata={"vscode": "1.96"}, hostname="odin", tty="pts/3")
    assert api.get_session(created["session_id"]) == created


def test_a_session_that_is_not_there_is_not_found(api: Api) -> None:
    """AC-2.1.d An unknown or malformed session_id is 404."""
    for session_id in ("invalid-uuid-123", "0b2ab3c8-5d1f-4f7e-9d2c-8c1b0e8f6a77"):
        refused(api.get(f"/api/sessions/{session_id}"), 404, "session_not_found")


def test_a_list_can_be_narrowed_to_active_sessions(api: Api) -> None:
    """AC-2.1.e ?status=active answers active sessions only."""
    active = [api.session()["session_id"] for _ in range(2)]
    done = api.session()["session_id"]
    api.patch_session(done, status="completed")
    listed = ok(api.get("/api/sessions", params={"status": "active"}))
    assert [s["session_id"] for s in listed["sessions"]] == active[::-1]
    assert listed["total_count"] == 2


def test_a_list_can_be_narrowed_to_a_project_and_a_machine(api: Api) -> None:
    """AC-2.1.e The filters project_id and machine_id, alone and together."""
    here = api.session()
    there = api.session(project_id=here["project_id"])
    api.session(machine_id=there["machine_id"])
    for query, expected in (
        ({"project_id": here["project_id"]}, {here["session_id"], there["session_id"]}),
        ({"machine_id": here["machine_id"]}, {here["session_id"]}),
        (
            {"project_id": here["project_id"], "machine_id": there["machine_id"]},
            {there["session_id"]},
        ),
        ({"project_id": name("project")}, set()),
    ):
        listed = ok(api.get("/api/sessions", params=query))
        assert {s["session_id"] for s in listed["sessions"]} == expected
        assert listed["total_count"] == len(expected)


def test_an_update_is_stored_and_refreshes_updated_at(api: Api) -> None:
    """AC-2.1.f PATCH to completed changes status and updated_at."""
    created = api.session()
    patched = api.patch_session(created["session_id"], status="completed")
    read = api.get_session(created["session_id"])
    assert read == patched
    assert (read["status"], read["outcome"]) == ("completed", "completed")
    assert read["updated_at"] != created["updated_at"]
    assert read["completed_at"] == read["updated_at"]


def test_a_deleted_session_is_gone(api: Api) -> None:
    """AC-2.1.g DELETE answers 204; from then on the session is 404."""
    session_id = api.session()["session_id"]
    gone(api.delete(f"/api/sessions/{session_id}"))
    refused(api.get(f"/api/sessions/{session_id}"), 404, "session_not_found")
    refused(api.delete(f"/api/sessions/{session_id}"), 404, "session_not_found")
    assert ok(api.get("/api/sessions"))["sessions"] == []
