"""A free docker slot by itself: ``any_slot`` when a session is opened or recovered (spec 7)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.acceptance.serving import Api, Json, invalid, name, ok, refused


def opened(api: Api, project: str, machine: str, **fields: object) -> Json:
    return api.session(project_id=project, machine_id=machine, any_slot=True, **fields)


def test_each_further_one_takes_the_next_free_slot(api: Api) -> None:
    project, machine = name("project"), name("machine")
    found = [opened(api, project, machine) for _ in range(4)]

    assert [session["docker_slot"] for session in found] == [None, 1, 2, 3]
    assert {s["status"] for s in (api.get_session(f["session_id"]) for f in found)} == {"active"}
    api.patch_session(found[2]["session_id"], status="completed")
    assert opened(api, project, machine)["docker_slot"] == 2


def test_many_at_once_each_get_a_place_of_their_own(api: Api) -> None:
    project, machine = name("project"), name("machine")
    with ThreadPoolExecutor(20) as pool:
        found = [*pool.map(lambda _: opened(api, project, machine), range(40))]

    assert {s["docker_slot"] for s in found} == {None, *range(1, 40)}


def test_a_slot_belongs_to_one_whatever_its_project(api: Api) -> None:
    machine = name("machine")
    api.session(machine_id=machine, docker_slot=1)
    one, other = name("project"), name("project")
    slots = [opened(api, p, machine)["docker_slot"] for p in (one, one, other, other)]

    assert slots == [None, 2, None, 3]


@pytest.mark.parametrize("slots", [[4, 2], [9], []])
def test_a_machine_that_declared_its_slots_has_no_others(api: Api, slots: list[int]) -> None:
    project, machine = name("project"), name("machine")
    api.machine(machine_id=machine, docker_slots=slots)
    found = [opened(api, project, machine) for _ in range(1 + len(slots))]

    assert [session["docker_slot"] for session in found] == [None, *sorted(slots)]
    body = {"project_id": project, "machine_id": machine, "any_slot": True}
    details = refused(api.post("/api/sessions", json=body), 409, "session_exists")["details"]
    assert details["session_id"] == found[0]["session_id"]


def test_a_stalled_session_s_slot_is_taken_when_no_other_is_free(api: Api) -> None:
    project, machine = name("project"), name("machine")
    api.machine(machine_id=machine, docker_slots=[1, 2])
    found = [opened(api, project, machine) for _ in range(2)]
    api.stall(found[1]["session_id"])

    assert opened(api, project, machine)["docker_slot"] == 2
    assert opened(api, project, machine)["docker_slot"] == 1
    late = api.post(f"/api/sessions/{found[1]['session_id']}/heartbeat", json={})
    refused(late, 409, "superseded")


def test_without_the_wish_a_taken_place_is_refused_as_ever(api: Api) -> None:
    place = {"project_id": name("project"), "machine_id": name("machine")}
    ok(api.post("/api/sessions", json=place), 201)

    refused(api.post("/api/sessions", json=place), 409, "session_exists")
    for wish in ({"docker_slot": 1}, {"replace": True}):
        invalid(api.post("/api/sessions", json={**place, **wish, "any_slot": True}), "any_slot")


def test_recovering_onto_the_same_machine_goes_beside_whoever_works_there(api: Api) -> None:
    project, machine = name("project"), name("machine")
    found = [opened(api, project, machine) for _ in range(3)]
    lost = found[0]["session_id"]
    api.fail(lost)
    opened(api, project, machine)
    refused(api.recover(lost, machine), 409, "session_exists")

    heir = ok(api.recover(lost, machine, any_slot=True), 201)
    assert heir["docker_slot"] == 3
    again = ok(api.recover(lost, machine, any_slot=True))
    assert again["session_id"] == heir["session_id"]
    invalid(api.recover(lost, machine, any_slot=True, docker_slot=1), "any_slot")


@pytest.mark.parametrize("ended", ["failed", "stalled"])
def test_recovering_onto_the_same_machine_keeps_the_slot_if_it_can(api: Api, ended: str) -> None:
    project, machine = name("project"), name("machine")
    found = [opened(api, project, machine) for _ in range(3)]
    lost = found[2]["session_id"]
    (api.fail if ended == "failed" else api.stall)(lost)

    assert ok(api.recover(lost, machine, any_slot=True), 201)["docker_slot"] == 2


def test_recovering_elsewhere_takes_what_is_free_there(api: Api) -> None:
    project, machine, other = name("project"), name("machine"), name("machine")
    lost = opened(api, project, machine)["session_id"]
    opened(api, project, other)
    api.stall(lost)

    assert ok(api.recover(lost, other, any_slot=True), 201)["docker_slot"] == 1
