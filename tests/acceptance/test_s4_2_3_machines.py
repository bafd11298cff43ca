"""S4 2.3: machines and docker slots."""

from __future__ import annotations

import pytest

from tests.acceptance.serving import Api, gone, is_uuid4, name, ok, refused


def test_a_machine_is_registered_online_with_an_id_of_its_own(api: Api) -> None:
    """AC-2.3.a POST /api/machines makes a machine_id and starts online, without sessions."""
    body = {"hostname": "odin", "docker_slots": [1], "metadata": {"os": "linux"}}
    created = ok(api.post("/api/machines", json=body), 201)
    assert is_uuid4(created["machine_id"])
    assert (created["status"], created["active_sessions"]) == ("online", [])
    assert (created["hostname"], created["metadata"]) == ("odin", {"os": "linux"})
    assert created["last_heartbeat"] == created["created_at"] == created["updated_at"]


def test_a_machine_may_bring_its_own_id_and_register_again(api: Api) -> None:
    """AC-2.3.a machine_id may be given; registering it again is 200 and updates it (spec 17)."""
    machine_id = name("machine")
    first = {"machine_id": machine_id, "hostname": "odin", "docker_slots": [1]}
    again = {"machine_id": machine_id, "hostname": "thor", "docker_slots": [2, 3]}
    assert ok(api.post("/api/machines", json=first), 201)["machine_id"] == machine_id
    updated = ok(api.post("/api/machines", json=again), 200)
    assert (updated["hostname"], updated["docker_slots"]) == ("thor", [2, 3])
    assert api.get_machine(machine_id) == updated
    assert ok(api.get("/api/machines"))["total_count"] == 1


def test_docker_slots_are_stored(api: Api) -> None:
    """AC-2.3.b docker_slots=[1,2,3] comes back from GET."""
    machine_id = api.machine(docker_slots=[1, 2, 3])["machine_id"]
    assert api.get_machine(machine_id)["docker_slots"] == [1, 2, 3]


def test_a_new_session_is_listed_by_its_machine(api: Api) -> None:
    """AC-2.3.c A created session is in its machine's active_sessions."""
    machine_id = api.machine()["machine_id"]
    first = api.session(machine_id=machine_id)["session_id"]
    second = api.session(machine_id=machine_id)["session_id"]
    assert api.get_machine(machine_id)["active_sessions"] == [first, second]


def test_a_session_on_an_unknown_machine_makes_it_known(api: Api) -> None:
    """AC-2.3.c The machine of a session is registered with its id as its hostname (spec 7)."""
    machine_id = name("machine")
    session_id = api.session(machine_id=machine_id, docker_slot=7)["session_id"]
    machine = api.get_machine(machine_id)
    assert (machine["hostname"], machine["docker_slots"]) == (machine_id, [])
    assert (machine["status"], machine["active_sessions"]) == ("online", [session_id])


def test_a_deleted_session_leaves_its_machine(api: Api) -> None:
    """AC-2.3.d DELETE takes the session out of active_sessions."""
    machine_id = api.machine()["machine_id"]
    session_id = api.session(machine_id=machine_id)["session_id"]
    gone(api.delete(f"/api/sessions/{session_id}"))
    assert api.get_machine(machine_id)["active_sessions"] == []


@pytest.mark.parametrize("end", ["completed", "failed"])
def test_an_ended_session_leaves_its_machine(api: Api, end: str) -> None:
    """AC-2.3.d So does a session's end."""
    machine_id = api.machine()["machine_id"]
    session_id = api.session(machine_id=machine_id)["session_id"]
    api.patch_session(session_id, status=end)
    assert api.get_machine(machine_id)["active_sessions"] == []


def test_every_reply_about_a_machine_lists_its_sessions(api: Api) -> None:
    """AC-2.3.e The machine's own writes and the list tell the same active_sessions."""
    machine_id = api.machine()["machine_id"]
    session_id = api.session(machine_id=machine_id)["session_id"]
    replies = [
        ok(api.post(f"/api/machines/{machine_id}/heartbeat")),
        api.patch_machine(machine_id, metadata={"a": 1}),
        ok(
            api.post(
                "/api/machines",
                json={"machine_id": machine_id, "hostname": "odin", "docker_slots": []},
            )
        ),
        ok(api.get("/api/machines"))["machines"][0],
        api.get_machine(machine_id),
    ]
    assert [reply["active_sessions"] for reply in replies] == [[session_id]] * 5
    assert replies[2] == replies[3] == replies[4]


def test_a_heartbeat_brings_an_offline_machine_online(api: Api) -> None:
    """AC-2.3.e A machine's heartbeat updates last_heartbeat and takes it from offline to online."""
    created = api.machine()
    machine_id = created["machine_id"]
    assert api.patch_machine(machine_id, status="offline")["status"] == "offline"
    beaten = ok(api.post(f"/api/machines/{machine_id}/heartbeat", json={"metadata": {"load": 2}}))
    assert (beaten["status"], beaten["metadata"]) == ("online", {"load": 2})
    assert beaten["last_heartbeat"] != created["last_heartbeat"]
    assert api.get_machine(machine_id) == beaten


def test_a_heartbeat_leaves_a_machine_in_maintenance(api: Api) -> None:
    """AC-2.3.e Only offline changes with a heartbeat: maintenance was meant."""
    machine_id = api.machine()["machine_id"]
    api.patch_machine(machine_id, status="maintenance")
    assert ok(api.post(f"/api/machines/{machine_id}/heartbeat"))["status"] == "maintenance"


def test_machines_can_be_listed_by_status(api: Api) -> None:
    """AC-2.3.f ?status=online answers only machines that are online."""
    online, offline = api.machine()["machine_id"], api.machine()["machine_id"]
    api.patch_machine(offline, status="offline")
    for status, expected in (("online", [online]), ("offline", [offline]), ("maintenance", [])):
        listed = ok(api.get("/api/machines", params={"status": status}))
        assert [machine["machine_id"] for machine in listed["machines"]] == expected
        assert listed["total_count"] == len(expected)


def test_a_machine_that_is_not_there_is_not_found(api: Api) -> None:
    """AC-2.3.e Reading, beating and changing an unknown machine are 404."""
    path = f"/api/machines/{name('machine')}"
    for response in (
        api.get(path),
        api.patch(path, json={"status": "offline"}),
        api.post(f"{path}/heartbeat"),
    ):
        refused(response, 404, "machine_not_found")


@pytest.mark.parametrize("machine_id", ["rack 7/blade 3", "Bünker", "a%2Fb", "heartbeat", "x?y#z"])
def test_a_machine_may_have_any_name(api: Api, machine_id: str) -> None:
    """AC-2.3.a An id that needs escaping in a path is found under it."""
    api.machine(machine_id=machine_id, docker_slots=[1])
    session_id = api.session(machine_id=machine_id, docker_slot=1)["session_id"]
    quoted = "".join(f"%{byte:02X}" for byte in machine_id.encode())
    assert ok(api.get(f"/api/machines/{quoted}"))["active_sessions"] == [session_id]
    assert ok(api.post(f"/api/machines/{quoted}/heartbeat"))["machine_id"] == machine_id
