"""What a command answers is what a query answers of the same thing: one definition of replies.

That every reply is what its model says is held against it by ``serving.Api``, in every test.
"""

from __future__ import annotations

import pytest

from tests.acceptance.serving import AGES, Api, Json, lasting, name, ok


def same(told: Json, read: Json, *only_told: str) -> None:
    """The same fields and, but for ages, the same values."""
    assert set(told) - set(read) == set(only_told)
    assert set(read) <= set(told)
    assert {field: told[field] for field in lasting(read)} == lasting(read)
    for field in read.keys() & AGES:
        assert type(told[field]) is type(read[field]), field


def test_a_session(api: Api) -> None:
    """Created, beaten, changed, paused, stalled, failed, archived, recovered."""
    session = api.session(hostname="rack-1", metadata={"a": 1})
    key = session["session_id"]
    same(session, api.get_session(key))
    same(api.beat(key, metadata={"b": 2}), api.get_session(key), "age_seconds", "stale")
    taken = ok(api.post(f"/api/sessions/{key}/take-up", json={"supervisor": "s"}))
    same(taken, api.get_session(key))
    fence = {"supervisor_fence": taken["supervisor_fence"]}
    same(ok(api.post(f"/api/sessions/{key}/put-down", json=fence)), api.get_session(key))
    for status in ("paused", "active"):
        same(api.patch_session(key, status=status), api.get_session(key))
    same(api.stall(key), api.get_session(key))
    same(ok(api.post(f"/api/sessions/{key}/prepare-recovery")), api.get_session(key))
    same(api.fail(key), api.get_session(key))
    same(ok(api.post(f"/api/sessions/{key}/archive")), api.get_session(key))
    successor = ok(api.recover(key, session["machine_id"]), 201)
    same(successor, api.get_session(successor["session_id"]))
    same(
        ok(api.post(f"/api/sessions/{successor['session_id']}/end")),
        api.get_session(successor["session_id"]),
    )


def test_a_task(api: Api) -> None:
    """Created, and taken through every status."""
    session = api.session()
    task = api.task(session, github_issue_id="7", metadata={"a": 1})
    same(task, api.get_task(task["task_id"]))
    for change in (
        {"status": "in_progress"},
        {"status": "blocked", "error_message": "no key"},
        {"status": "failed", "error_message": "it broke"},
    ):
        same(api.patch_task(task["task_id"], **change), api.get_task(task["task_id"]))
    state = ok(api.get(f"/api/sessions/{session['session_id']}/recovery-state"))
    assert state["failed_tasks"] == [api.get_task(task["task_id"])]


def test_a_machine(api: Api) -> None:
    """Registered, beaten, changed; with a session on it, and one that nobody registered."""
    machine = api.machine(docker_slots=[2, 1], metadata={"a": 1})
    key = machine["machine_id"]
    same(machine, api.get_machine(key))
    api.session(machine_id=key, docker_slot=1)
    same(api.patch_machine(key, status="maintenance"), api.get_machine(key))
    same(ok(api.post(f"/api/machines/{key}/heartbeat", json={})), api.get_machine(key))
    unknown = api.session()["machine_id"]
    same(ok(api.post(f"/api/machines/{unknown}/heartbeat", json={})), api.get_machine(unknown))


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_a_claim_and_its_item(api: Api, kind: str) -> None:
    """Listed, claimed, claimed again, verified, released, claimed next, completed, reopened."""
    holder = {"session_id": api.session()["session_id"]}
    if kind == "instance":
        described = {"project": "odin", "instance_type": "PS"}
        holder = {"instance_id": ok(api.post("/api/instances", json=described), 201)["instance_id"]}
    item = name("item")
    claim, work_item = f"/api/claims/{item}", f"/api/work-items/{item}"

    def reads(path: str) -> Json:
        return ok(api.get(path))

    body: Json = {"item_id": item, "title": "Write it", "track": "a", "depends_on": []}
    same(ok(api.post("/api/work-items", json=body), 201), reads(work_item))
    where = {"hostname": "rack-1", "tty": "pts/7", "codebase": "/src"}
    granted = ok(api.post("/api/claims", json={"item_id": item, **holder, **where}), 201)
    same(granted, reads(claim))
    same(ok(api.post("/api/work-items", json={**body, "priority": 3})), reads(work_item))
    same(ok(api.post("/api/claims", json={"item_id": item, **holder})), reads(claim))
    verified = ok(api.post(f"{claim}/verify", json={"fence": granted["fence"]}))
    same(verified, reads(claim), "valid")
    same(ok(api.post(f"{claim}/release", json=holder)), reads(claim))
    same(ok(api.post("/api/work-items/claim-next", json=holder), 201), reads(claim))
    same(ok(api.post(f"{work_item}/complete", json=holder)), reads(work_item))
    same(ok(api.post(f"{work_item}/reopen", json={"reason": "not done"})), reads(work_item))
    same(ok(api.post(f"{work_item}/cancel", json={"reason": "no use"})), reads(work_item))


def test_an_instance(api: Api) -> None:
    """Registered, beaten, put under a parent, taken up, put down, closed."""

    def register(**fields: object) -> Json:
        body = {"project": "Odin X", "instance_type": "PS", "tags": ["a"], **fields}
        return ok(api.post("/api/instances", json=body), 201)

    def read(key: str) -> Json:
        found: Json = ok(api.get(f"/api/instances/{key}"))["instance"]
        return found

    top = register(scope="global", hostname="rack-1")["instance_id"]
    policy = {"policy": "on_failure", "max_restarts": 2, "backoff_seconds": 1}
    instance = register(restart_policy=policy, initial_context=40)
    key = instance["instance_id"]
    path = f"/api/instances/{key}"
    same(instance, read(key))
    told = {
        "context_percent": 95,
        "current_epic": "e-1",
        "metrics": {"error_rate": 0.5},
        "git": {"branch": "main", "dirty_files": 2},
        "activity": "waiting_for_human",
        "activity_reason": "a question",
    }
    beat = ok(api.post(f"{path}/heartbeat", json=told))
    now = read(key)
    assert {field: now[field] for field in lasting(beat) if field != "stale"} == {
        field: value for field, value in lasting(beat).items() if field != "stale"
    }
    same(ok(api.put(f"{path}/parent", json={"parent_id": top})), read(key))
    taken = ok(api.post(f"{path}/take-up", json={"supervisor": "s"}))
    same(taken, read(key))
    fence = {"supervisor_fence": taken["supervisor_fence"]}
    same(ok(api.post(f"{path}/put-down", json=fence)), read(key))
    same(ok(api.post(f"{path}/close", json={})), read(key), "cascaded")
    brief = ok(api.post(f"{path}/resume", json={}), 201)
    same(brief["instance"], read(brief["instance_id"]))
