"""Spec 7, 17: places, slots, statuses; who may write and who may not any more."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Json, Server, gone, invalid, name, ok, refused

OLD = timedelta(minutes=5)
LIVE = ("active", "paused", "stalled")


@pytest.fixture
def place() -> Json:
    """A place that nobody is in."""
    return {"project_id": name("project"), "machine_id": name("machine")}


@pytest.mark.parametrize("status", ["active", "paused"])
def test_a_place_has_one_session(
    api: Api, place: Json, status: str, stored: Callable[[], int]
) -> None:
    """Given an active or paused session, then a second in its place is 409 and is told of it."""
    holder = api.session(**place)
    holder = api.patch_session(holder["session_id"], status=status)
    before = stored()
    body = refused(api.post("/api/sessions", json=place), 409, "session_exists")
    assert set(body["details"]) == {"session", "session_id", "heartbeat_age_seconds"}
    assert body["details"]["session"] == holder
    assert body["details"]["session_id"] == holder["session_id"]
    assert body["details"]["heartbeat_age_seconds"] >= 0
    assert stored() == before


def test_other_places_are_free(api: Api, place: Json) -> None:
    """Given a session, then another project, machine or slot is another place."""
    api.session(**place)
    api.session(**place, docker_slot=0)
    api.session(**place, docker_slot=1)
    api.session(project_id=place["project_id"])
    api.session(machine_id=place["machine_id"])
    for taken in ({}, {"docker_slot": 0}, {"docker_slot": 1}):
        reply = api.post("/api/sessions", json={**place, **taken})
        refused(reply, 409, "session_exists")


def test_names_that_look_alike_are_different_places(api: Api) -> None:
    """Given ids with slashes, then p/a on b is not p on a/b."""
    first, second = name("p"), name("m")
    api.session(project_id=f"{first}/a", machine_id=second)
    api.session(project_id=first, machine_id=f"a/{second}")
    api.session(project_id=f"{first}%2Fa", machine_id=second)


@pytest.mark.parametrize("end", ["completed", "failed", "deleted", "mark-failed"])
def test_an_ended_session_leaves_its_place(api: Api, place: Json, end: str) -> None:
    """Given a session that ended one way or the other, then its place and slot are free."""
    holder = api.session(**place, docker_slot=1)["session_id"]
    if end == "deleted":
        gone(api.delete(f"/api/sessions/{holder}"))
    elif end == "mark-failed":
        api.fail(holder)
    else:
        api.patch_session(holder, status=end)
    api.session(**place, docker_slot=1)


def test_replacing_fails_the_session_in_the_place(api: Api, place: Json) -> None:
    """Given replace, then the old session has failed, its tasks with it; the new one is there."""
    old = api.session(**place, docker_slot=2)
    task = api.task(old, "in_progress")
    new = api.session(**place, docker_slot=2, replace=True)
    replaced = api.get_session(old["session_id"])
    assert (replaced["status"], replaced["outcome"]) == ("failed", "failed")
    assert new["session_id"] in replaced["metadata"]["error_message"]
    assert api.get_task(task["task_id"])["status"] == "failed"
    assert api.get_machine(place["machine_id"])["active_sessions"] == [new["session_id"]]
    reply = api.post(f"/api/sessions/{old['session_id']}/heartbeat")
    assert reply.status_code == 409
    ok(api.recover(old["session_id"], name("machine")), 201)


def test_replacing_nobody_is_simply_creating(api: Api, place: Json) -> None:
    """Given an empty place, then replace makes no difference."""
    assert api.session(**place, replace=True)["status"] == "active"


def test_of_many_who_ask_at_once_one_gets_the_place(server: Server, api: Api, place: Json) -> None:
    """Given twenty requests for one place at once, then one is 201 and the rest are 409."""

    def ask(_: int) -> httpx.Response:
        with Api(server.url, api.key, api.namespace) as client:
            return client.post("/api/sessions", json=place)

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(ask, range(20)))
    (winner,) = (reply.json() for reply in replies if reply.status_code == 201)
    for reply in replies:
        if reply.status_code != 201:
            body = refused(reply, 409, "session_exists")
            assert body["details"]["session_id"] == winner["session_id"]
    assert ok(api.get("/api/sessions"))["sessions"] == [winner]


@pytest.mark.parametrize("recorded", [True, False])
def test_a_stalled_session_does_not_stand_in_the_way(
    api: Api, past: Past, place: Json, recorded: bool
) -> None:
    """Given a stalled session, recorded or not, then a new one takes its place.

    The old one's late heartbeat and other writes are 409 superseded.
    """
    old = past.session(OLD, **place, tasks=1)
    if recorded:
        ok(api.post("/api/sessions/detect-failures"))
    new = api.session(**place)
    ok(api.post("/api/claims", json={"item_id": "held", "session_id": new["session_id"]}), 201)
    new = api.get_session(new["session_id"])
    path = f"/api/sessions/{old['session_id']}"
    before = api.get_session(old["session_id"])
    assert (before["status"], before["superseded_by"]) == ("stalled", new["session_id"])
    task = {"session_id": old["session_id"], "project_id": place["project_id"], "task_name": "t"}
    for reply in (
        api.post(f"{path}/heartbeat"),
        api.patch(path, json={"status": "active"}),
        api.patch(path, json={"metadata": {"a": 1}}),
        api.post("/api/tasks", json=task),
        api.patch(f"/api/tasks/{old['tasks'][0]}", json={"status": "in_progress"}),
        api.post(f"{path}/mark-failed", json={"error_message": "late"}),
        api.post(f"{path}/mark-stalled"),
        api.post("/api/claims", json={"item_id": "i", "session_id": old["session_id"]}),
        api.post("/api/claims/held/release", json={"session_id": old["session_id"]}),
        api.post("/api/work-items/held/complete", json={"session_id": old["session_id"]}),
    ):
        body = refused(reply, 409, "superseded")
        assert body["details"]["superseded_by"] == new["session_id"]
    assert api.get_session(old["session_id"]) == before
    assert api.get_session(new["session_id"]) == new


def test_a_superseded_session_can_still_be_recovered_elsewhere(
    api: Api, past: Past, place: Json
) -> None:
    """Given a superseded session, then its work can be carried on in another place."""
    old = past.session(OLD, **place, tasks=2)
    api.session(**place)
    refused(api.recover(old["session_id"], place["machine_id"]), 409, "session_exists")
    successor = ok(api.recover(old["session_id"], name("machine")), 201)
    assert len(api.tasks_of(successor)) == 2


def test_a_stalled_session_that_nobody_replaced_comes_back(
    api: Api, past: Past, place: Json
) -> None:
    """Given a stalled session, then its heartbeat revives it and its place is taken again."""
    old = past.session(OLD, **place)["session_id"]
    beaten = api.beat(old)
    assert (beaten["status"], beaten["stale"]) == ("active", True)
    assert beaten["age_seconds"] >= 300
    refused(api.post("/api/sessions", json=place), 409, "session_exists")
    again = api.beat(old)
    assert again["stale"] is False
    assert again["age_seconds"] < 300


# Docker slots


def test_a_slot_holds_one_session_whichever_project_asks(api: Api) -> None:
    """Given a taken slot, then another project gets 409 slot_taken, also with replace."""
    machine_id = api.machine(docker_slots=[1, 2])["machine_id"]
    holder = api.session(machine_id=machine_id, docker_slot=1)
    other = {"project_id": name("project"), "machine_id": machine_id, "docker_slot": 1}
    for replace in (False, True):
        body = refused(
            api.post("/api/sessions", json={**other, "replace": replace}), 409, "slot_taken"
        )
        assert body["details"]["session_id"] == holder["session_id"]
        assert body["details"]["docker_slot"] == 1
    api.session(**{**other, "docker_slot": 2})
    api.patch_session(holder["session_id"], status="completed")
    api.session(**other)


def test_a_stalled_session_does_not_keep_its_slot(api: Api) -> None:
    """Given a stalled session in a slot, then another project takes it and supersedes it."""
    machine_id = name("machine")
    holder = api.session(machine_id=machine_id, docker_slot=1)["session_id"]
    api.stall(holder)
    taker = api.session(machine_id=machine_id, docker_slot=1)["session_id"]
    reply = api.post(f"/api/sessions/{holder}/heartbeat")
    assert refused(reply, 409, "superseded")["details"]["superseded_by"] == taker


@pytest.mark.parametrize("slots", [[], [1, 2]])
def test_a_slot_that_is_not_declared_is_unknown(
    api: Api, slots: list[int], stored: Callable[[], int]
) -> None:
    """Given a declaration that leaves a slot out, then 400 unknown_slot, and nothing is stored."""
    machine_id = api.machine(docker_slots=slots)["machine_id"]
    before = stored()
    wanted = {"project_id": "p", "machine_id": machine_id, "docker_slot": 7}
    body = refused(api.post("/api/sessions", json=wanted), 400, "unknown_slot")
    assert [error["field"] for error in body["errors"]] == ["docker_slot"]
    failed = api.session()["session_id"]
    api.fail(failed)
    refused(api.recover(failed, machine_id, docker_slot=7), 400, "unknown_slot")
    assert api.get_session(failed)["status"] == "failed"
    assert before < stored()
    api.session(machine_id=machine_id)


def test_a_machine_that_never_declared_slots_takes_any(api: Api) -> None:
    """Given a machine that only a session named, then any slot goes, until it declares some."""
    machine_id = name("machine")
    api.session(machine_id=machine_id, docker_slot=99)
    api.session(machine_id=machine_id, docker_slot=0)
    api.patch_machine(machine_id, docker_slots=[1])
    wanted = {"project_id": "p", "machine_id": machine_id, "docker_slot": 2}
    refused(api.post("/api/sessions", json=wanted), 400, "unknown_slot")
    api.session(**{**wanted, "docker_slot": 1})


# Statuses


@pytest.mark.parametrize("to", [*LIVE, "completed", "failed"])
@pytest.mark.parametrize("start", LIVE)
def test_live_statuses_change_freely(api: Api, start: str, to: str) -> None:
    """Given a live session, then PATCH takes it to any status."""
    session_id = api.session()["session_id"]
    api.patch_session(session_id, status=start)
    patched = api.patch_session(session_id, status=to)
    assert patched["status"] == to
    assert (patched["completed_at"] is None) == (to in LIVE)
    assert api.get_session(session_id) == patched


@pytest.mark.parametrize("to", [*LIVE, "completed", "failed"])
@pytest.mark.parametrize("end", ["completed", "failed"])
def test_an_ended_session_goes_nowhere(
    api: Api, end: str, to: str, stored: Callable[[], int]
) -> None:
    """Given an ended session, then a status is 409 invalid_transition, and a heartbeat ended."""
    session = api.session()
    task = api.task(session)
    path = f"/api/sessions/{session['session_id']}"
    api.patch_session(session["session_id"], status=end)
    before = stored()
    refused(api.patch(path, json={"status": to}), 409, "invalid_transition")
    for reply in (
        api.post(f"{path}/heartbeat"),
        api.patch(f"/api/tasks/{task['task_id']}", json={"status": "in_progress"}),
        api.post(
            "/api/tasks",
            json={
                "session_id": session["session_id"],
                "project_id": session["project_id"],
                "task_name": "late",
            },
        ),
    ):
        body = refused(reply, 409, "session_ended")
        assert body["details"]["recovered_to"] is None
    assert stored() == before


def test_a_session_past_its_threshold_can_be_made_active(api: Api, past: Past) -> None:
    """Given a session that reads stalled, then PATCH to active is what the reply and reads say."""
    session_id = past.session(OLD)["session_id"]
    assert api.patch_session(session_id, status="active")["status"] == "active"
    assert api.get_session(session_id)["status"] == "active"


def test_metadata_is_merged_and_null_removes_a_key(api: Api) -> None:
    """Given a PATCH of metadata, then its keys go over the old ones; null takes one away."""
    session_id = api.session(metadata={"a": 1, "b": {"c": 2, "d": 3}})["session_id"]
    api.patch_session(session_id, metadata={"b": {"c": None}, "e": [None]})
    assert api.get_session(session_id)["metadata"] == {"a": 1, "b": {"c": None}, "e": [None]}
    api.patch_session(session_id, metadata={"a": None, "b": None, "never": None})
    assert api.get_session(session_id)["metadata"] == {"e": [None]}
    nothings: list[Json] = [{}, {"metadata": {}}, {"metadata": None}, {"status": None}]
    for nothing in nothings:
        assert ok(api.patch(f"/api/sessions/{session_id}", json=nothing))["metadata"] == {
            "e": [None]
        }


def test_the_current_task_can_be_set_and_cleared(api: Api) -> None:
    """Given current_task_id in a PATCH, then it is set; null clears it; its absence keeps it."""
    session_id = api.session()["session_id"]
    assert api.patch_session(session_id, current_task_id="a")["current_task_id"] == "a"
    assert api.patch_session(session_id, metadata={"x": 1})["current_task_id"] == "a"
    assert api.patch_session(session_id, current_task_id=None)["current_task_id"] is None
    assert api.get_session(session_id)["current_task_id"] is None


# Tasks

ALLOWED = {
    "pending": {"in_progress", "completed", "failed", "blocked"},
    "in_progress": {"completed", "failed", "blocked"},
    "blocked": {"pending", "in_progress", "completed", "failed"},
    "completed": {"blocked"},
    "failed": {"blocked"},
}


@pytest.fixture(scope="module")
def shared(server: Server) -> Iterator[tuple[Api, Json]]:
    """One session for many tasks."""
    with server.world() as api:
        yield api, api.session()


@pytest.mark.parametrize("to", ALLOWED)
@pytest.mark.parametrize("start", ALLOWED)
def test_tasks_go_where_the_rules_say(shared: tuple[Api, Json], start: str, to: str) -> None:
    """Given a task in any status, then it goes where spec 7 says, and nowhere else."""
    api, session = shared
    task = api.task(session, start)
    reason = {"error_message": "why"} if to == "failed" else {}
    reply = api.patch(f"/api/tasks/{task['task_id']}", json={"status": to, **reason})
    if to in ALLOWED[start]:
        moved = ok(reply)
        assert moved["status"] == to
        assert (moved["completed_at"] is not None) == (to in ("completed", "failed"))
        if to in ("in_progress", "completed", "failed"):
            assert moved["started_at"] is not None
        assert api.get_task(task["task_id"]) == moved
    elif to == start and to in ("pending", "in_progress", "blocked"):
        assert ok(reply) == task
    else:
        body = refused(reply, 409, "invalid_transition")
        assert (body["details"]["from"], body["details"]["to"]) == (start, to)
        assert api.get_task(task["task_id"]) == task


def test_a_pending_task_that_completes_has_started_too(api: Api) -> None:
    """Given a pending task that completes or fails directly, then started_at is set with it."""
    session = api.session()
    for status in ("completed", "failed"):
        task = api.task(session, status)
        assert task["started_at"] == task["completed_at"] is not None


def test_a_task_can_be_annotated(api: Api) -> None:
    """Given metadata for a task, then it is merged, with a status or without."""
    task_id = api.task(api.session(), metadata={"a": 1})["task_id"]
    api.patch_task(task_id, metadata={"b": 2})
    blocked = api.patch_task(
        task_id, status="blocked", error_message="waiting for review", metadata={"a": None}
    )
    assert (blocked["metadata"], blocked["error_message"]) == ({"b": 2}, "waiting for review")
    resumed = api.patch_task(task_id, status="in_progress")
    assert (resumed["status"], resumed["error_message"]) == ("in_progress", None)
    assert api.get_task(task_id) == resumed
    invalid(api.patch(f"/api/tasks/{task_id}", json={"error_message": "x"}), "error_message")
