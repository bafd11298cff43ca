"""Spec 7, 17: recovering is one step, once, onto one machine."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Json, Server, gone, name, ok, position, refused


@pytest.fixture
def failed(api: Api) -> Json:
    """A session that failed with a few tasks."""
    session = api.session(stall_threshold_ms=60_000, codebase="/src/odin")
    for status in ("pending", "in_progress", "completed"):
        api.task(session, status)
    return api.fail(session["session_id"])


def test_fifty_at_once_get_one_successor(server: Server, api: Api, failed: Json) -> None:
    """Given fifty recoveries at once, then one is 201, the rest 200, and all name one session."""
    machine_id = name("machine")

    def recover(_: int) -> httpx.Response:
        with Api(server.url, api.key, api.namespace) as client:
            return client.recover(failed["session_id"], machine_id)

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(recover, range(50)))
    assert sorted(reply.status_code for reply in replies) == [200] * 49 + [201]
    (successor,) = {reply.json()["session_id"] for reply in replies}
    assert api.get_machine(machine_id)["active_sessions"] == [successor]
    assert ok(api.get("/api/sessions"))["total_count"] == 2
    assert len(api.tasks_of({"session_id": successor})) == 2


def test_asked_again_it_answers_the_same_successor(
    api: Api, failed: Json, stored: Callable[[], int]
) -> None:
    """Given a second call for the same machine, then 200, the same session, and no event."""
    machine_id = name("machine")
    first = ok(api.recover(failed["session_id"], machine_id), 201)
    before = stored()
    again = api.recover(failed["session_id"], machine_id, reset_failed_tasks=False)
    assert ok(again, 200) == first
    assert (stored(), position(again)) == (before, before)


def test_another_machine_on_the_repeat_is_refused(
    api: Api, failed: Json, stored: Callable[[], int]
) -> None:
    """Given a session that was recovered, then another machine is 409 already_recovered."""
    machine_id = name("machine")
    successor = ok(api.recover(failed["session_id"], machine_id), 201)["session_id"]
    before = stored()
    body = refused(api.recover(failed["session_id"], name("machine")), 409, "already_recovered")
    assert body["details"] == {"recovered_to": successor, "machine_id": machine_id}
    assert stored() == before


@pytest.mark.parametrize("status", ["offline", "maintenance"])
def test_a_machine_that_is_not_online_is_refused(
    api: Api, failed: Json, status: str, stored: Callable[[], int]
) -> None:
    """Given a machine that is offline or in maintenance, then 409, and nothing has changed."""
    machine_id = api.machine()["machine_id"]
    api.patch_machine(machine_id, status=status)
    before = stored()
    body = refused(api.recover(failed["session_id"], machine_id), 409, "machine_unavailable")
    assert body["details"] == {"machine_id": machine_id, "machine_status": status}
    assert (stored(), api.get_session(failed["session_id"])) == (before, failed)
    api.patch_machine(machine_id, status="online")
    ok(api.recover(failed["session_id"], machine_id), 201)


def test_an_occupied_place_is_refused(api: Api, failed: Json, stored: Callable[[], int]) -> None:
    """Given a place with an active session, then 409 session_exists, and nothing has changed."""
    holder = api.session(project_id=failed["project_id"], machine_id=name("machine"))
    before = stored()
    reply = api.recover(failed["session_id"], holder["machine_id"])
    body = refused(reply, 409, "session_exists")
    assert body["details"]["session_id"] == holder["session_id"]
    slot = api.session(machine_id=name("machine"), docker_slot=1)
    taken = api.recover(failed["session_id"], slot["machine_id"], docker_slot=1)
    refused(taken, 409, "slot_taken")
    assert api.get_session(failed["session_id"]) == failed
    assert stored() > before


@pytest.mark.parametrize("how", ["failed", "stalled", "overdue"])
def test_a_session_can_be_recovered_where_it_was(api: Api, past: Past, how: str) -> None:
    """Given the same machine, then the successor takes the original's own place."""
    if how == "overdue":
        original = past.session(timedelta(minutes=5))
    else:
        original = api.session()
        (api.fail if how == "failed" else api.stall)(original["session_id"])
    successor = ok(api.recover(original["session_id"], original["machine_id"]), 201)
    closed = api.get_session(original["session_id"])
    assert (closed["status"], closed["outcome"]) == ("completed", "recovered")
    assert closed["superseded_by"] is None
    machine = api.get_machine(original["machine_id"])
    assert machine["active_sessions"] == [successor["session_id"]]
    place = {key: original[key] for key in ("project_id", "machine_id")}
    body = refused(api.post("/api/sessions", json=place), 409, "session_exists")
    assert body["details"]["session_id"] == successor["session_id"]


def test_the_recovered_session_can_write_no_more(api: Api, past: Past) -> None:
    """Given a recovered session, then each of its writes is 409 session_ended with recovered_to."""
    original = past.session(timedelta(minutes=5), tasks=1, items=["kept"])
    successor = ok(api.recover(original["session_id"], name("machine")), 201)["session_id"]
    holder = {"session_id": original["session_id"]}
    path = f"/api/sessions/{original['session_id']}"
    task = f"/api/tasks/{original['tasks'][0]}"
    before = api.get_session(original["session_id"])
    body = {
        "session_id": original["session_id"],
        "project_id": original["project_id"],
        "task_name": "late",
    }
    for reply in (
        api.post(f"{path}/heartbeat"),
        api.patch(path, json={"status": "active"}),
        api.patch(path, json={"metadata": {"late": True}}),
        api.patch(path, json={"current_task_id": "late"}),
        api.post(f"{path}/mark-failed", json={"error_message": "late"}),
        api.post(f"{path}/mark-stalled"),
        api.post("/api/tasks", json=body),
        api.patch(task, json={"status": "completed"}),
        api.patch(task, json={"metadata": {"late": True}}),
        api.delete(task),
        api.post("/api/claims", json={"item_id": "kept", **holder}),
        api.post("/api/claims/kept/release", json=holder),
        api.post("/api/work-items/kept/complete", json=holder),
    ):
        refusal = refused(reply, 409, "session_ended")
        assert refusal["details"]["recovered_to"] == successor
    assert api.get_session(original["session_id"]) == before
    refused(api.post(f"{path}/prepare-recovery"), 400, "not_recoverable")
    ok(api.post(f"{path}/archive"))
    gone(api.delete(path))
    assert api.get_session(successor)["status"] == "active"


def test_the_successor_has_the_original_s_settings(api: Api, failed: Json) -> None:
    """Given a session's own threshold and code base, then its successor has them too."""
    api.patch_session(failed["session_id"], metadata={"branch": "main"})
    successor = ok(api.recover(failed["session_id"], name("machine")), 201)
    for field in ("project_id", "stall_threshold_ms", "codebase"):
        assert successor[field] == failed[field]
    assert successor["metadata"] == {
        "branch": "main",
        "recovery": {"recovered_from": failed["session_id"]},
    }
    state = ok(api.get(f"/api/sessions/{failed['session_id']}/recovery-state"))
    assert (state["status"], state["recovered_to"]) == ("completed", successor["session_id"])
    assert successor["session_id"] in state["brief"]


def test_a_recovery_can_be_recovered(api: Api, failed: Json) -> None:
    """Given a successor that fails too, then the chain goes on, with the tasks left over."""
    second = ok(api.recover(failed["session_id"], name("machine")), 201)
    tasks = api.tasks_of(second)
    api.patch_task(tasks[0]["task_id"], status="completed")
    api.fail(second["session_id"])
    third = ok(api.recover(second["session_id"], name("machine")), 201)
    assert third["recovered_from"] == second["session_id"]
    assert [task["carried_from"] for task in api.tasks_of(third)] == [tasks[1]["task_id"]]
    # The first call, repeated, still answers with the first successor.
    again = ok(api.recover(failed["session_id"], second["machine_id"]), 200)
    assert (again["session_id"], again["outcome"]) == (second["session_id"], "recovered")


def test_recovering_and_beating_at_once_leaves_one_of_them_right(
    server: Server, api: Api, past: Past
) -> None:
    """Given a late heartbeat and a recovery at once, then either it revived or it was recovered."""
    for _ in range(5):
        old = past.session(timedelta(minutes=5))["session_id"]

        def act(what: int, session_id: str = old) -> httpx.Response:
            with Api(server.url, api.key, api.namespace) as client:
                if what:
                    return client.post(f"/api/sessions/{session_id}/heartbeat")
                return client.recover(session_id, name("machine"))

        with ThreadPoolExecutor(2) as pool:
            recovered, beaten = pool.map(act, (0, 1))
        if recovered.status_code == 201:
            body = refused(beaten, 409, "session_ended")
            assert body["details"]["recovered_to"] == recovered.json()["session_id"]
        else:
            refused(recovered, 400, "not_recoverable")
            assert ok(beaten)["status"] == "active"
