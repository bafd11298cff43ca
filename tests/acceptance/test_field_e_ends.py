"""What is over ends, and what is away takes nothing (field case 23)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.past import Past
from tests.acceptance.queue import Queue
from tests.acceptance.serving import Api, Json, Server, cloned, eventually, gone, name, ok, refused

DAYS_AGO, A_WHILE_AGO = timedelta(days=2), timedelta(hours=2)


@pytest.fixture
def fleet(api: Api, server: Server) -> Fleet:
    """The agents of this test."""
    return Fleet(api, server.database_url)


def sweep(api: Api) -> int:
    """How many sessions and instances a sweep ends."""
    return int(ok(api.post("/api/sessions/detect-failures"))["ended"])


def in_the_place_of(api: Api, session: Json) -> Json:
    """A new session in the place of a stalled one."""
    return api.session(project_id=session["project_id"], machine_id=session["machine_id"])


# Machines


def test_a_machine_that_holds_nothing_is_removed(api: Api) -> None:
    machine = api.machine(docker_slots=[1])["machine_id"]
    path = f"/api/machines/{machine}"

    gone(api.delete(path))

    for reply in (
        api.get(path),
        api.delete(path),
        api.post(f"{path}/heartbeat", json={}),
        api.patch(path, json={"status": "online"}),
    ):
        refused(reply, 404, "machine_not_found")
    assert ok(api.get("/api/machines"))["machines"] == []
    refused(api.delete("/api/machines/unknown"), 404, "machine_not_found")


def test_a_machine_on_which_a_session_lives_is_not_removed(api: Api, past: Past) -> None:
    machine = name("machine")
    path = f"/api/machines/{machine}"
    live = [api.session(machine_id=machine) for _ in range(2)]
    api.patch_session(live[0]["session_id"], status="paused")
    api.stall(live[1]["session_id"])

    details = refused(api.delete(path), 409, "machine_in_use")["details"]
    assert sorted(details["active_sessions"]) == sorted(s["session_id"] for s in live)
    api.fail(live[0]["session_id"])
    refused(api.delete(path), 409, "machine_in_use")
    in_place = in_the_place_of(api, live[1])
    api.patch_session(in_place["session_id"], status="completed")
    # The stalled one lives nowhere any more: another had its place.
    gone(api.delete(path))


def test_a_removed_machine_comes_back_as_a_new_one(api: Api) -> None:
    machine = api.machine(docker_slots=[1], metadata={"old": True})["machine_id"]
    path = f"/api/machines/{machine}"
    api.patch_machine(machine, status="offline")
    gone(api.delete(path))

    session = api.session(machine_id=machine, docker_slot=7)
    found = ok(api.get(path))

    assert (found["status"], found["docker_slots"], found["metadata"]) == ("online", [], {})
    assert found["active_sessions"] == [session["session_id"]]
    api.fail(session["session_id"])
    gone(api.delete(path))
    body = {"machine_id": machine, "hostname": "h", "docker_slots": [2]}
    assert ok(api.post("/api/machines", json=body), 201) == ok(api.get(path))


@pytest.mark.parametrize("status", ["offline", "maintenance"])
@pytest.mark.parametrize("known", [False, True], ids=["empty", "stalled there"])
def test_no_session_opens_on_a_machine_that_is_away(api: Api, status: str, known: bool) -> None:
    """Given a machine that is away, then neither an empty nor a stalled session's place is had."""
    machine = api.machine(docker_slots=[1, 2])["machine_id"]
    body: Json = {"project_id": name("project"), "machine_id": machine, "docker_slot": 1}
    if known:
        api.stall(api.session(**body)["session_id"])
    api.patch_machine(machine, status=status)

    details = refused(api.post("/api/sessions", json=body), 409, "machine_unavailable")["details"]

    assert details == {"machine_id": machine, "machine_status": status}
    refused(api.post("/api/sessions", json={**body, "replace": True}), 409, "machine_unavailable")
    ok(api.post(f"/api/machines/{machine}/heartbeat", json={}))
    if status == "maintenance":
        refused(api.post("/api/sessions", json=body), 409, "machine_unavailable")
        api.patch_machine(machine, status="online")
    ok(api.post("/api/sessions", json=body), 201)


def test_who_is_at_work_on_a_machine_works_on_whatever_is_said_of_it(api: Api) -> None:
    session = api.session()
    api.patch_machine(session["machine_id"], status="maintenance")

    api.beat(session["session_id"])
    Queue(api).claim("SD-1", session)
    assert api.patch_session(session["session_id"], status="completed")["status"] == "completed"


# By hand


@pytest.mark.parametrize("status", ["active", "paused", "stalled"])
def test_a_session_is_ended_by_hand(api: Api, status: str) -> None:
    session = api.session()
    task = api.task(session, "in_progress")
    Queue(api).claim("SD-1", session)
    api.patch_session(session["session_id"], status=status)
    path = f"/api/sessions/{session['session_id']}/end"

    ended = ok(api.post(path, json={"reason": "Its host was sold."}))

    assert ended == api.get_session(session["session_id"])
    assert (ended["status"], ended["outcome"]) == ("failed", "failed")
    assert ended["metadata"]["error_message"] == "Its host was sold."
    assert api.get_task(task["task_id"])["status"] == "failed"
    assert Queue(api).claims() == []
    refused(api.post(path, json={}), 409, "session_ended")
    assert ok(api.recover(session["session_id"], "elsewhere"), 201)


def test_a_session_whose_place_another_has_is_ended_by_hand(api: Api) -> None:
    session = api.session()
    api.stall(session["session_id"])
    successor = in_the_place_of(api, session)
    path = f"/api/sessions/{session['session_id']}"

    ended = ok(api.post(f"{path}/end"))

    assert (ended["status"], ended["outcome"]) == ("failed", "superseded")
    assert ended["superseded_by"] == successor["session_id"]
    refused(api.post(f"{path}/heartbeat", json={}), 409, "superseded")
    assert api.get_session(successor["session_id"])["status"] == "active"
    refused(
        api.post("/api/sessions/00000000-0000-4000-8000-000000000000/end"), 404, "session_not_found"
    )


def test_why_an_instance_was_closed_is_recorded(fleet: Fleet) -> None:
    instance = fleet.id()
    fleet.close(instance, reason="Its host was sold.")

    [event] = fleet.events(instance, event_type="instance_closed")
    assert event["event_data"]["reason"] == "Its host was sold."


# By themselves


def test_a_session_whose_place_has_passed_on_ends_past_takeover(api: Api, past: Past) -> None:
    old, recent = past.session(A_WHILE_AGO, tasks=1), past.session(timedelta(seconds=200))
    alone = past.session(DAYS_AGO)
    sweep(api)
    for session in (old, recent):
        in_the_place_of(api, session)

    assert sweep(api) == 1

    ended = api.get_session(old["session_id"])
    assert (ended["status"], ended["outcome"]) == ("failed", "superseded")
    assert ended["metadata"]["error_message"].endswith("took its place while it was silent.")
    for session in (recent, alone):
        assert api.get_session(session["session_id"])["status"] == "stalled"
    assert sweep(api) == 0
    path = f"/api/sessions/{old['session_id']}/heartbeat"
    refused(api.post(path, json={}), 409, "superseded")


def test_an_instance_whose_items_have_passed_on_ends_after_a_day(api: Api, fleet: Fleet) -> None:
    queue, me = Queue(api), api.session()
    old = fleet.silent(DAYS_AGO, "00000a", items=["a"])
    holding = fleet.silent(DAYS_AGO, "00000b", items=["b", "b2"])
    recent = fleet.silent(A_WHILE_AGO, "00000c", items=["c"])
    idle = fleet.silent(DAYS_AGO, "00000d")
    for item in ("a", "b", "c"):
        queue.claim(item, me, takeover=True)

    assert sweep(api) == 1

    assert fleet.get(old)["status"] == "closed"
    [event] = fleet.events(old, event_type="instance_closed")
    assert event["event_data"]["reason"]
    assert [fleet.get(other)["status"] for other in (holding, recent, idle)] == ["stale"] * 3
    assert sweep(api) == 0


def test_an_instance_whose_session_was_recovered_ends_after_a_day(api: Api, fleet: Fleet) -> None:
    recovered, superseded, working, failed = (fleet.silent(DAYS_AGO, f"00001{n}") for n in "abcd")
    sessions = {i: api.session(instance_id=i) for i in (recovered, superseded, working, failed)}
    for instance in (recovered, superseded):
        api.stall(sessions[instance]["session_id"])
    ok(api.recover(sessions[recovered]["session_id"], "elsewhere"), 201)
    in_the_place_of(api, sessions[superseded])
    api.fail(sessions[failed]["session_id"])

    assert sweep(api) == 2

    statuses = {i: fleet.get(i)["status"] for i in sessions}
    assert statuses == {
        recovered: "closed",
        superseded: "closed",
        working: "stale",
        failed: "stale",
    }


def test_an_instance_that_beats_again_does_not_end(api: Api, fleet: Fleet) -> None:
    instance = fleet.silent(DAYS_AGO, "00002a", items=["a"])
    Queue(api).claim("a", api.session(), takeover=True)
    fleet.beat(instance)

    assert sweep(api) == 0
    assert fleet.get(instance)["status"] == "active"


def test_the_sweep_ends_them_after_the_times_that_are_set(
    cluster: EmbeddedPostgres, template: str, start: Start
) -> None:
    settings = {"SWEEP_SECONDS": "1", "PASSED_ON_SECONDS": "1", "STALL_THRESHOLD_MS": "500"}
    more = {"INSTANCE_STALE_SECONDS": "0.5", "CLAIM_STALE_SECONDS": "1"}
    with (
        cloned(cluster, template) as url,
        start(url, **settings, **more) as server,
        server.default() as api,
    ):
        body = {"project": "odin", "instance_type": "PS"}
        instance = ok(api.post("/api/instances", json=body), 201)["instance_id"]
        session = api.session(instance_id=instance)
        api.stall(session["session_id"])
        in_the_place_of(api, session)

        def ended() -> bool:
            found = ok(api.get(f"/api/instances/{instance}"))["instance"]["status"]
            outcome = api.get_session(session["session_id"])["outcome"]
            return (outcome, found) == ("superseded", "closed")

        eventually("both ends", ended)
