"""An agent that goes on although its work is another's: marked, and told (spec 17, 18)."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.acceptance.serving import Api, Json, Server, gone, name, ok, refused
from tests.support.waiting import eventually

WITHOUT = "working_without_session"


def agent(api: Api) -> str:
    """An instance that is alive."""
    body = {"project": name("project"), "instance_type": "PS"}
    instance_id: str = ok(api.post("/api/instances", json=body), 201)["instance_id"]
    return instance_id


def beat(api: Api, instance_id: str, **said: object) -> Json:
    return ok(api.post(f"/api/instances/{instance_id}/heartbeat", json=said))


def read(api: Api, instance_id: str) -> Json:
    instance: Json = ok(api.get(f"/api/instances/{instance_id}"))["instance"]
    return instance


def is_marked(api: Api, instance_id: str) -> bool:
    """After a heartbeat; the reply, the bulk reply and every read agree on it."""
    told = beat(api, instance_id)
    [in_bulk] = ok(
        api.post("/api/heartbeats", json={"heartbeats": [{"instance_id": instance_id}]})
    )["results"]
    one = read(api, instance_id)
    [listed] = [
        i for i in ok(api.get("/api/instances"))["instances"] if i["instance_id"] == instance_id
    ]
    [in_health] = [
        i
        for i in ok(api.get("/api/v1/registry/health"))["instances"]
        if i["instance_id"] == instance_id
    ]
    found: set[bool] = {
        WITHOUT in told.get("warnings", []),
        WITHOUT in in_bulk.get("warnings", []),
        *(WITHOUT in i.get("health_reasons", []) for i in (one, listed, in_health)),
        *(i["health"] == "degraded" for i in (one, listed, in_health)),
        "lost_work" in told,
        one["lost_work"] is not None,
    }
    [marked] = found
    return marked


def recovered(api: Api, session: Json) -> str:
    api.stall(session["session_id"])
    heir: str = ok(api.recover(session["session_id"], name("machine")), 201)["session_id"]
    return heir


def superseded(api: Api, session: Json) -> str:
    api.stall(session["session_id"])
    return replaced(api, session, replace=False)


def replaced(api: Api, session: Json, replace: bool = True) -> str:
    place = {key: session[key] for key in ("project_id", "machine_id")}
    heir: str = api.session(**place, replace=replace)["session_id"]
    return heir


def failed(api: Api, session: Json) -> None:
    api.fail(session["session_id"])


def set_to_failed(api: Api, session: Json) -> None:
    api.patch_session(session["session_id"], status="failed")


def deleted(api: Api, session: Json) -> None:
    gone(api.delete(f"/api/sessions/{session['session_id']}"))


def taken_up(api: Api, session: Json) -> str:
    rival = agent(api)
    body = {"supervisor": "rival", "takeover": True, "instance_id": rival}
    ok(api.post(f"/api/sessions/{session['session_id']}/take-up", json=body))
    return rival


WAYS = [
    (recovered, "recovered"),
    (superseded, "superseded"),
    (replaced, "replaced"),
    (failed, "failed"),
    (set_to_failed, "failed"),
    (deleted, "deleted"),
    (taken_up, "taken_up"),
]


@pytest.mark.parametrize(("lose", "reason"), WAYS)
def test_whoever_beats_on_after_its_session_was_taken_is_marked_and_told(
    api: Api, lose: Callable[[Api, Json], str | None], reason: str
) -> None:
    instance = agent(api)
    session = api.session(instance_id=instance)
    assert not is_marked(api, instance)
    by = lose(api, session)

    assert is_marked(api, instance)
    lost = beat(api, instance)["lost_work"]
    assert lost == read(api, instance)["lost_work"]
    assert (lost["session_id"], lost["reason"], lost["by"]) == (session["session_id"], reason, by)
    replay = ok(api.get(f"/api/instances/{instance}/replay"))["final_state"]
    assert replay["lost_work"] == lost


def test_it_is_well_again_with_another_session(api: Api) -> None:
    instance = agent(api)
    heir = recovered(api, api.session(instance_id=instance))
    assert is_marked(api, instance)
    api.session(instance_id=instance)
    assert not is_marked(api, instance)

    second = agent(api)
    recovered(api, api.session(instance_id=second))
    assert is_marked(api, second)
    body = {"supervisor": "me", "instance_id": second}
    ok(api.post(f"/api/sessions/{heir}/take-up", json=body))
    assert not is_marked(api, second)


def test_one_of_two_sessions_leaves_it_work_to_do(api: Api) -> None:
    instance = agent(api)
    first, second = (api.session(instance_id=instance) for _ in range(2))
    recovered(api, first)
    assert not is_marked(api, instance)
    recovered(api, second)
    assert is_marked(api, instance)


def test_an_end_of_its_own_is_none(api: Api) -> None:
    instance = agent(api)
    completed = api.session(instance_id=instance)
    api.patch_session(completed["session_id"], status="completed")
    assert not is_marked(api, instance)

    own = api.session(instance_id=instance, supervisor="me")
    body = {"error_message": "tests failed", "supervisor_fence": 1}
    ok(api.post(f"/api/sessions/{own['session_id']}/mark-failed", json=body))
    assert not is_marked(api, instance)

    there = api.session(instance_id=instance)
    place = {key: there[key] for key in ("project_id", "machine_id")}
    api.session(**place, replace=True, instance_id=instance)
    assert not is_marked(api, instance)


def test_who_does_not_go_on_is_not_marked(api: Api) -> None:
    instance = agent(api)
    recovered(api, api.session(instance_id=instance))
    assert read(api, instance)["health"] == "healthy"
    beat(api, instance, activity="idle")
    assert "health_reasons" not in read(api, instance)
    beat(api, instance, activity="working")
    assert read(api, instance)["health_reasons"] == [WITHOUT]
    ok(api.post(f"/api/instances/{instance}/close", json={}))
    assert read(api, instance)["health"] == "closed"


def test_a_session_of_nobody_s_or_of_an_unknown_instance_ends_as_ever(api: Api) -> None:
    for fields in ({}, {"instance_id": "odin-PS-000000"}, {"instance_id": "Löwe 7"}):
        recovered(api, api.session(**fields))
        failed(api, api.session(**fields))
        superseded(api, api.session(**fields))


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_whoever_beats_on_after_its_claim_was_taken_is_marked_and_told(
    hasty: Server, kind: str
) -> None:
    item = name("item")
    with hasty.world() as api:
        instance = agent(api)
        session = api.session(instance_id=instance)
        holder = {f"{kind}_id": instance if kind == "instance" else session["session_id"]}
        ok(api.post("/api/claims", json={"item_id": item, **holder}), 201)
        rival = agent(api)

        def taken() -> bool:
            beat(api, rival)
            body = {"item_id": item, "instance_id": rival, "takeover": True}
            return api.post("/api/claims", json=body).status_code == 201

        eventually(taken, "the takeover")
        told = beat(api, instance)
        assert told["warnings"] == [WITHOUT]
        assert (told["lost_work"]["item_id"], told["lost_work"]["by"]) == (item, rival)
        assert "warnings" not in beat(api, rival)
        assert ok(api.post("/api/claims", json={"item_id": name("item"), **holder}), 201)
        told = beat(api, instance)
        assert "warnings" not in told


def test_who_lost_one_item_of_two_works_on(hasty: Server) -> None:
    items = [name("item") for _ in range(2)]
    with hasty.world() as api:
        instance, rival = agent(api), agent(api)
        for item in items:
            body = {"item_id": item, "instance_id": instance}
            ok(api.post("/api/claims", json=body), 201)

        def taken() -> bool:
            beat(api, rival)
            body = {"item_id": items[0], "instance_id": rival, "takeover": True}
            return api.post("/api/claims", json=body).status_code == 201

        eventually(taken, "the takeover")
        told = beat(api, instance)
        assert [claim["item_id"] for claim in told["lost_claims"]] == [items[0]]
        assert "warnings" not in told


def test_what_its_session_says_is_refused_with_who_has_it(api: Api) -> None:
    session = api.session(instance_id=agent(api))
    heir = recovered(api, session)
    reply = api.post(f"/api/sessions/{session['session_id']}/heartbeat", json={})
    assert refused(reply, 409, "session_ended")["details"]["recovered_to"] == heir
