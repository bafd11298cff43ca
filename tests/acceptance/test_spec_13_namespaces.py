"""Spec 2, 13, 17: two namespaces never meet."""

from __future__ import annotations

import psycopg

from tests.acceptance.serving import Api, Json, Server, is_uuid4, name, ok, position, refused


def test_what_one_namespace_has_another_cannot_reach(api: Api, other: Api) -> None:
    """Given a session, a task and a machine, then to another key they are 404, whatever it does."""
    session = api.session()
    task = api.task(session)
    before = api.get_session(session["session_id"])
    machine = api.get_machine(session["machine_id"])
    path, one_task = f"/api/sessions/{session['session_id']}", f"/api/tasks/{task['task_id']}"
    host = f"/api/machines/{session['machine_id']}"
    requests: list[tuple[str, str, Json | None]] = [
        ("GET", path, None),
        ("PATCH", path, {"status": "failed"}),
        ("DELETE", path, None),
        ("GET", f"{path}/health", None),
        ("GET", f"{path}/recovery-state", None),
        ("POST", f"{path}/heartbeat", {}),
        ("POST", f"{path}/mark-failed", {"error_message": "x"}),
        ("POST", f"{path}/mark-stalled", {}),
        ("POST", f"{path}/archive", {}),
        ("POST", f"{path}/prepare-recovery", {}),
        ("POST", f"{path}/recover", {"new_machine_id": "m"}),
        ("GET", one_task, None),
        ("PATCH", one_task, {"status": "completed"}),
        ("DELETE", one_task, None),
        ("GET", host, None),
        ("PATCH", host, {"status": "offline"}),
        ("POST", f"{host}/heartbeat", {}),
    ]
    for verb, path, body in requests:
        assert other.request(verb, path, json=body).status_code == 404, (verb, path)
    body = {
        "session_id": session["session_id"],
        "project_id": session["project_id"],
        "task_name": "t",
    }
    refused(other.post("/api/tasks", json=body), 400, "unknown_session")
    assert api.get_session(session["session_id"]) == before
    assert api.get_machine(session["machine_id"]) == machine
    assert api.tasks_of(session) == [task]


def test_the_same_names_mean_different_things(api: Api, other: Api) -> None:
    """Given one place and one machine id in two namespaces, then both may have their session."""
    place: Json = {"project_id": name("project"), "machine_id": name("machine"), "docker_slot": 1}
    ours, theirs = api.session(**place), other.session(**place)
    assert ours["session_id"] != theirs["session_id"]
    for client, session in ((api, ours), (other, theirs)):
        machine = client.get_machine(place["machine_id"])
        assert machine["active_sessions"] == [session["session_id"]]
    api.patch_machine(place["machine_id"], status="maintenance")
    assert other.get_machine(place["machine_id"])["status"] == "online"


def test_lists_and_counts_end_at_the_namespace(api: Api, other: Api) -> None:
    """Given sessions in one namespace, then another's lists and counts are empty."""
    session = api.session()
    api.task(session)
    api.stall(session["session_id"])
    for path in ("sessions", "sessions/active", "sessions/archived", "tasks", "machines"):
        assert ok(other.get(f"/api/{path}"))["total_count"] == 0
    assert ok(other.get("/api/sessions/stalled"))["stalled_sessions"] == []
    assert ok(other.get("/api/sessions/health"))["total_sessions"] == 0
    assert ok(other.post("/api/sessions/cleanup?older_than_days=0"))["deleted_sessions"] == 0


def test_each_namespace_has_a_log_of_its_own(
    api: Api, other: Api, store: psycopg.Connection
) -> None:
    """Given writes of two namespaces in turns, then positions run from 1 without gaps in each."""
    for _ in range(3):
        for client in (api, other):
            client.beat(client.session()["session_id"])
    for client in (api, other):
        rows = store.execute(
            "SELECT position FROM event_store WHERE namespace = %s ORDER BY position",
            [client.namespace],
        ).fetchall()
        assert [row[0] for row in rows] == list(range(1, len(rows) + 1))
        assert len(rows) >= 9


def test_an_idempotency_key_is_one_api_key_s_own(api: Api, other: Api) -> None:
    """Given the same Idempotency-Key and body from two API keys, then both are carried out."""
    body = {"project_id": name("project"), "machine_id": name("machine")}
    headers = {"Idempotency-Key": "the same"}
    ours = ok(api.post("/api/sessions", json=body, headers=headers), 201)
    theirs = ok(other.post("/api/sessions", json=body, headers=headers), 201)
    assert ours["session_id"] != theirs["session_id"]


def test_an_entry_of_api_keys_may_name_its_namespace(
    server: Server, store: psycopg.Connection
) -> None:
    """Given keys ``KEY`` and ``team-b:KEY``, then they write to ``default`` and to ``team-b``."""
    with server.default() as plain, server.team() as team:
        for client in (plain, team):
            body = {"hostname": "odin", "docker_slots": []}
            response = client.post("/api/machines", json=body)
            machine_id = ok(response, 201)["machine_id"]
            assert is_uuid4(machine_id)
            row = store.execute(
                "SELECT namespace, metadata FROM event_store"
                " WHERE stream_id = %s AND position = %s",
                [f"machine-{machine_id}", position(response)],
            ).fetchone()
            assert row is not None
            namespace, metadata = row
            assert namespace == client.namespace
            assert metadata["command"] == "machine_register"
            assert metadata["request_id"] == response.headers["x-request-id"]
            assert metadata["actor"]
            assert str(client.key) not in str(metadata)
