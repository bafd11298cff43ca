"""A session and the instance that works in it are taken up together, or not at all (spec 17)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.acceptance.serving import Api, Json, name, ok, refused


class Pair:
    """A session and its instance, both supervised by ``first``."""

    def __init__(self, api: Api) -> None:
        self.api = api
        body = {"project": name("project"), "instance_type": "PS", "supervisor": "first"}
        self.instance: str = ok(api.post("/api/instances", json=body), 201)["instance_id"]
        self.session: str = api.session(instance_id=self.instance, supervisor="first")["session_id"]

    def take_up(self, supervisor: str, **fields: object) -> httpx.Response:
        body = {
            "supervisor": supervisor,
            "instance_id": self.instance,
            "seen_fence": 1,
            "seen_instance_fence": 1,
            "takeover": True,
            "takeover_instance": True,
            **fields,
        }
        return self.api.post(f"/api/sessions/{self.session}/take-up", json=body)

    def now(self) -> list[tuple[str, int]]:
        """Who supervises the two, and by which fences."""
        session = self.api.get_session(self.session)
        instance = ok(self.api.get(f"/api/instances/{self.instance}"))["instance"]
        return [(one["supervisor"], one["supervisor_fence"]) for one in (session, instance)]

    def events(self) -> list[Json]:
        streams = (f"session-{self.session}", f"instance-{self.instance}")
        return [ok(self.api.get(f"/api/streams/{one}/events"))["events"] for one in streams]


@pytest.fixture
def pair(api: Api) -> Pair:
    return Pair(api)


def test_both_have_the_same_supervisor(pair: Pair) -> None:
    taken = ok(pair.take_up("second"))
    fences = taken["supervisor_fence"], taken["instance_supervisor_fence"]
    assert pair.now() == [("second", fences[0]), ("second", fences[1])]
    again = ok(pair.take_up("second"))
    assert (again["supervisor_fence"], again["instance_supervisor_fence"]) == fences


def test_of_many_at_once_one_gets_both(pair: Pair) -> None:
    rivals = [f"rival-{number}" for number in range(8)]
    with ThreadPoolExecutor(len(rivals)) as pool:
        replies = [*pool.map(pair.take_up, rivals)]
    [winner] = [r for r, reply in zip(rivals, replies, strict=True) if reply.is_success]
    assert [supervisor for supervisor, _ in pair.now()] == [winner, winner]


@pytest.mark.parametrize("late", ["seen_fence", "seen_instance_fence"])
def test_whoever_comes_late_to_one_of_them_gets_neither(pair: Pair, late: str) -> None:
    """It looked at one before the other came, and at the other after."""
    taken = ok(pair.take_up("second"))
    seen = {
        "seen_fence": taken["supervisor_fence"],
        "seen_instance_fence": taken["instance_supervisor_fence"],
        late: 1,
    }
    before = pair.events()
    refused(pair.take_up("third", **seen), 409, "supervised")
    assert pair.events() == before


@pytest.mark.parametrize("alive", ["takeover", "takeover_instance"])
def test_if_one_of_them_is_looked_after_neither_is_taken(pair: Pair, alive: str) -> None:
    before = pair.events()
    refused(pair.take_up("second", **{alive: False}), 409, "supervised")
    assert pair.events() == before


def test_an_instance_that_is_over_or_unknown_is_not_taken_up(pair: Pair) -> None:
    ok(pair.api.post(f"/api/instances/{pair.instance}/close", json={}))
    refused(pair.take_up("second"), 409, "instance_closed")
    refused(pair.take_up("second", instance_id="odin-PS-000000"), 400, "unknown_instance")
    for field, other in (("takeover_instance", "seen_instance_fence"), ("instance_id", None)):
        given: dict[str, object] = {"supervisor": "second", "seen_instance_fence": 1, field: None}
        if other is not None:
            given = {"supervisor": "second", field: True}
        reply = pair.api.post(f"/api/sessions/{pair.session}/take-up", json=given)
        refused(reply, 400, "validation_error")
    assert pair.api.get_session(pair.session)["supervisor"] == "first"
