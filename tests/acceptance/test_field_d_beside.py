"""What a former supervisor does to the items of a session, and who has other work (spec 17)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.serving import Api, Json, Server, name, ok, refused
from tests.support.waiting import eventually

WITHOUT = "working_without_session"


def agent(api: Api, **fields: object) -> str:
    body = {"project": name("project"), "instance_type": "PS", **fields}
    instance_id: str = ok(api.post("/api/instances", json=body), 201)["instance_id"]
    return instance_id


def claimed(api: Api, **holder: object) -> str:
    item = name("item")
    ok(api.post("/api/claims", json={"item_id": item, **holder}), 201)
    return item


def queue(api: Api) -> set[tuple[object, ...]]:
    items = ok(api.get("/api/work-items"))["work_items"]
    return {(item["item_id"], item["status"], item["fence"]) for item in items}


def by_claiming(item: str) -> tuple[str, Json]:
    return "/api/claims", {"item_id": name("item")}


def by_claiming_the_next(item: str) -> tuple[str, Json]:
    return "/api/work-items/claim-next", {}


def by_completing(item: str) -> tuple[str, Json]:
    return f"/api/work-items/{item}/complete", {}


def by_cancelling(item: str) -> tuple[str, Json]:
    return f"/api/work-items/{item}/cancel", {}


def by_releasing(item: str) -> tuple[str, Json]:
    return f"/api/claims/{item}/release", {}


@pytest.mark.parametrize("kind", ["session", "instance"])
@pytest.mark.parametrize(
    "asking", [by_claiming, by_claiming_the_next, by_completing, by_cancelling, by_releasing]
)
def test_a_former_supervisor_does_nothing_to_the_items(
    api: Api, kind: str, asking: Callable[[str], tuple[str, Json]]
) -> None:
    """The claim's fence is as it was: the holder is the same, but another looks after it."""
    if kind == "session":
        holder = {"session_id": api.session(supervisor="first")["session_id"]}
    else:
        holder = {"instance_id": agent(api, supervisor="first")}
    path = f"/api/{kind}s/{holder[f'{kind}_id']}/take-up"
    item = claimed(api, **holder, supervisor_fence=1)
    second = ok(api.post(path, json={"supervisor": "second", "takeover": True}))
    api.post("/api/work-items", json={"item_id": name("item"), "title": "free"})
    before = queue(api)

    to, body = asking(item)
    late = api.post(to, json={**body, **holder, "supervisor_fence": 1})
    assert refused(late, 409, "supervisor_replaced")["details"]["supervisor"] == "second"
    assert queue(api) == before
    own = {**body, **holder, "supervisor_fence": second["supervisor_fence"]}
    assert api.post(to, json=own).is_success


def test_of_a_holder_that_is_over_its_end_says_more(api: Api) -> None:
    session = api.session(supervisor="first")
    api.stall(session["session_id"])
    heir = ok(api.recover(session["session_id"], name("machine")), 201)["session_id"]
    body = {"item_id": name("item"), "session_id": session["session_id"], "supervisor_fence": 9}
    details = refused(api.post("/api/claims", json=body), 409, "session_ended")["details"]
    assert details["recovered_to"] == heir


def taken(api: Api, item: str, *alive: str) -> None:
    """Take the item over from a silent holder."""
    rival = agent(api)

    def take() -> bool:
        for instance_id in (*alive, rival):
            ok(api.post(f"/api/instances/{instance_id}/heartbeat", json={}))
        body = {"item_id": item, "instance_id": rival, "takeover": True}
        return api.post("/api/claims", json=body).status_code == 201

    eventually(take, "the takeover")


def warnings(api: Api, instance_id: str) -> list[str]:
    told = ok(api.post(f"/api/instances/{instance_id}/heartbeat", json={}))
    found: list[str] = told.get("warnings", [])
    return found


def test_who_lost_an_item_and_has_one_in_another_session_works_on(hasty: Server) -> None:
    with hasty.world() as api:
        worker = agent(api)
        first, second = (api.session(instance_id=worker)["session_id"] for _ in range(2))
        item = claimed(api, session_id=first)
        claimed(api, session_id=second)
        taken(api, item, worker)
        assert warnings(api, worker) == []


def test_who_lost_its_own_item_and_has_one_in_its_session_works_on(hasty: Server) -> None:
    with hasty.world() as api:
        worker = agent(api)
        session = api.session(instance_id=worker)["session_id"]
        item, other = claimed(api, instance_id=worker), claimed(api, session_id=session)
        taken(api, item)
        assert warnings(api, worker) == []
        taken(api, other, worker)
        assert warnings(api, worker) == [WITHOUT]


@pytest.mark.parametrize("supervisor", [None, "gone"])
def test_a_restart_that_was_asked_of_a_dead_supervisor_is_none(
    hasty: Server, supervisor: str | None
) -> None:
    """Without a supervisor nobody tells what happened: what was asked for is all that is known."""
    policy = {"policy": "on_failure", "max_restarts": 3, "backoff_seconds": 1}
    given = {} if supervisor is None else {"supervisor": supervisor}
    with hasty.world() as api:
        worker = agent(api, restart_policy=policy, **given)

        def asked() -> bool:
            api.post("/api/sessions/detect-failures")
            path = f"/api/instances/{worker}/events"
            found = ok(api.get(path, params={"event_type": "restart_requested"}))
            return bool(found["events"])

        eventually(asked, "the request")
        one = ok(api.get(f"/api/instances/{worker}"))["instance"]
        [listed] = ok(api.get("/api/instances"))["instances"]
        assert one["restarts"] == listed["restarts"] == (1 if supervisor is None else 0)
        if supervisor is None:
            return
        body = {"supervisor": "next", "takeover": True}
        taken = ok(api.post(f"/api/instances/{worker}/take-up", json=body))
        assert taken["restarts"] == 0
        said = {"restarts": 1, "supervisor_fence": taken["supervisor_fence"]}
        ok(api.post(f"/api/instances/{worker}/heartbeat", json=said))
        assert ok(api.get(f"/api/instances/{worker}"))["instance"]["restarts"] == 1
