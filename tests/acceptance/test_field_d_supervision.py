"""One supervisor for a session and for an instance, by a fence of the service's (spec 17)."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Json, Server, cloned, name, ok, refused
from tests.support.waiting import eventually

KINDS = ("session", "instance")


@pytest.fixture(scope="module")
def hasty(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service for which silence begins soon."""
    settings = {"INSTANCE_STALE_SECONDS": "0.5", "STALL_THRESHOLD_MS": "500"}
    directory = tmp_path_factory.mktemp("hasty")
    with cloned(cluster, template) as url, Server(url, directory, **settings) as running:
        yield running


class Supervisable:
    """A session or an instance, and what a supervisor does with it."""

    def __init__(self, api: Api, kind: str, **fields: object) -> None:
        self.api, self.kind = api, kind
        if kind == "session":
            self.made = api.session(**fields)
        else:
            body = {"project": name("project"), "instance_type": "PS", **fields}
            self.made = ok(api.post("/api/instances", json=body), 201)
        self.id: str = self.made[f"{kind}_id"]
        self.path = f"/api/{kind}s/{self.id}"

    def take_up(self, supervisor: str, **fields: object) -> httpx.Response:
        return self.api.post(f"{self.path}/take-up", json={"supervisor": supervisor, **fields})

    def fence(self, supervisor: str, **fields: object) -> int:
        fence: int = ok(self.take_up(supervisor, **fields))["supervisor_fence"]
        return fence

    def beat(self, fence: int | None) -> httpx.Response:
        said = {} if fence is None else {"supervisor_fence": fence}
        return self.api.post(f"{self.path}/heartbeat", json=said)

    def read(self) -> Json:
        found = ok(self.api.get(self.path))
        read: Json = found if self.kind == "session" else found["instance"]
        return read

    def events(self) -> list[Json]:
        path = f"/api/streams/{self.kind}-{self.id}/events"
        events: list[Json] = ok(self.api.get(path))["events"]
        return events

    def commands(self, fence: int) -> list[httpx.Response]:
        """The replies to all that a supervisor says with its fence."""
        proof = {"supervisor_fence": fence}
        if self.kind == "instance":
            return [self.beat(fence), self.api.post(f"{self.path}/close", json=proof)]
        failed = {"error_message": "gone", **proof}
        return [
            self.beat(fence),
            *(
                self.api.patch(self.path, json={"status": status, **proof})
                for status in ("paused", "completed", "failed")
            ),
            self.api.post(f"{self.path}/mark-failed", json=failed),
            self.api.post(f"{self.path}/mark-stalled", json=proof),
            self.api.request("DELETE", self.path, json=proof),
        ]


@pytest.mark.parametrize("kind", KINDS)
def test_many_at_once_take_it_up_and_one_does(api: Api, kind: str) -> None:
    it = Supervisable(api, kind)
    rivals = [f"rival-{number}" for number in range(12)]
    with ThreadPoolExecutor(len(rivals)) as pool:
        replies = [*pool.map(it.take_up, rivals)]

    [(winner, won)] = [(r, ok(a)) for r, a in zip(rivals, replies, strict=True) if a.is_success]
    for reply in replies:
        if not reply.is_success:
            details = refused(reply, 409, "supervised")["details"]
            assert details["supervisor"] == winner
            assert details["supervisor_fence"] == won["supervisor_fence"]
            assert details["heartbeat_age_seconds"] >= 0
    read = it.read()
    assert (read["supervisor"], read["supervisor_fence"]) == (winner, won["supervisor_fence"])
    taken = [e for e in it.events() if e["event_type"] == f"{kind}_taken_up"]
    assert [e["sequence_num"] for e in taken] == [won["supervisor_fence"]]


@pytest.mark.parametrize("kind", KINDS)
def test_two_who_saw_the_same_and_know_better_are_one(api: Api, kind: str) -> None:
    """Both take over from the same crashed supervisor: the second to come is refused."""
    it = Supervisable(api, kind)
    seen = it.fence("crashed")
    with ThreadPoolExecutor(2) as pool:
        replies = [
            *pool.map(lambda who: it.take_up(who, seen_fence=seen, takeover=True), ("one", "two"))
        ]

    assert sorted(reply.status_code for reply in replies) == [200, 409]
    [loser] = [reply for reply in replies if reply.status_code == 409]
    refused(loser, 409, "supervised")


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_creates_it_may_supervise_it_from_the_first_event_on(api: Api, kind: str) -> None:
    it = Supervisable(api, kind, supervisor="me", hostname="desk")

    assert (it.made["supervisor"], it.made["supervisor_fence"]) == ("me", 1)
    assert it.read()["supervisor_fence"] == 1
    ok(it.beat(1))
    details = refused(it.take_up("another"), 409, "supervised")["details"]
    assert (details["supervisor"], details["supervisor_hostname"]) == ("me", "desk")


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_former_supervisor_says_is_refused_and_nothing_is_stored(
    api: Api, kind: str
) -> None:
    it = Supervisable(api, kind, supervisor="former")
    fence = it.fence("present", takeover=True, hostname="desk")
    before = it.events()

    for reply in it.commands(1):
        details = refused(reply, 409, "supervisor_replaced")["details"]
        assert details["supervisor"] == "present"
        assert details["supervisor_fence"] == fence
        assert details["supervisor_hostname"] == "desk"
    refused(
        api.post(f"{it.path}/put-down", json={"supervisor_fence": 1}), 409, "supervisor_replaced"
    )
    beats = [
        {f"{kind}_id": it.id, "supervisor_fence": 1},
        {f"{kind}_id": it.id, "supervisor_fence": fence},
    ]
    old, new = ok(api.post("/api/heartbeats", json={"heartbeats": beats}))["results"]
    assert (old["ok"], old["error"]["code"], new["ok"]) == (False, "supervisor_replaced", True)
    assert len(it.events()) == len(before) + 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_fence_that_nobody_was_given_is_refused(api: Api, kind: str) -> None:
    it = Supervisable(api, kind)

    refused(it.beat(7), 409, "supervisor_replaced")
    for wrong in (0, -1, True, "1", 1.5):
        reply = api.post(f"{it.path}/heartbeat", json={"supervisor_fence": wrong})
        refused(reply, 400, "validation_error")


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_has_no_supervisor_goes_on_as_ever(api: Api, kind: str) -> None:
    it = Supervisable(api, kind, supervisor="me")
    ok(it.beat(None))
    it.fence("another", takeover=True)
    ok(it.beat(None))
    end = f"{it.path}/mark-failed" if kind == "session" else f"{it.path}/close"
    ok(api.post(end, json={"error_message": "gone"} if kind == "session" else {}))


@pytest.mark.parametrize("kind", KINDS)
def test_asked_again_it_gives_the_same_fence(api: Api, kind: str) -> None:
    it = Supervisable(api, kind)
    fence = it.fence("me", seen_fence=0)
    before = it.events()

    assert it.fence("me", seen_fence=0) == fence
    assert it.fence("me") == fence
    assert it.events() == before


@pytest.mark.parametrize("kind", KINDS)
def test_silence_passes_it_on_and_a_beat_does_not(hasty: Server, kind: str) -> None:
    with hasty.world() as api:
        it = Supervisable(api, kind, supervisor="first")

        def taken() -> int:
            reply = it.take_up("second", seen_fence=1)
            return reply.json()["supervisor_fence"] if reply.is_success else 0

        ok(it.beat(1))
        fence = eventually(taken, "the silence")
        assert fence > 1
        refused(it.beat(1), 409, "supervisor_replaced")
        ok(it.beat(fence))
        [event] = [e for e in it.events() if e["event_type"] == f"{kind}_taken_up"]
        assert event["event_data"]["taken_from"] == "first"


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_given_up_is_anyone_s(api: Api, kind: str) -> None:
    it = Supervisable(api, kind)
    fence = it.fence("first")
    for _ in range(2):
        read = ok(api.post(f"{it.path}/put-down", json={"supervisor_fence": fence}))
        assert (read["supervisor"], read["supervisor_fence"]) == (None, None)
    assert it.read()["supervisor"] is None
    refused(it.beat(fence), 409, "supervisor_replaced")

    assert it.fence("second", seen_fence=fence) > fence


def test_the_instance_that_works_in_it_changes_with_its_supervisor(api: Api) -> None:
    first, second = Supervisable(api, "instance"), Supervisable(api, "instance")
    it = Supervisable(api, "session", instance_id=first.id)
    fence = it.fence("me", instance_id=second.id, metadata={"command": "agent"})

    read = it.read()
    assert (read["instance_id"], read["metadata"]) == (second.id, {"command": "agent"})
    put_down = ok(api.post(f"{it.path}/put-down", json={"supervisor_fence": fence}))
    assert put_down["instance_id"] == it.read()["instance_id"] == first.id


def test_what_is_over_is_not_taken_up(api: Api) -> None:
    ended, moved = Supervisable(api, "session"), Supervisable(api, "session")
    closed = Supervisable(api, "instance")
    api.fail(ended.id)
    api.stall(moved.id)
    heir = ok(api.recover(moved.id, name("machine")), 201)["session_id"]
    ok(api.post(f"{closed.path}/close", json={}))

    refused(ended.take_up("me", takeover=True), 409, "session_ended")
    body = refused(moved.take_up("me", takeover=True), 409, "session_ended")
    assert body["details"]["recovered_to"] == heir
    refused(closed.take_up("me", takeover=True), 409, "instance_closed")
    refused(api.post(f"/api/sessions/{name('none')}/take-up", json={"supervisor": "me"}), 404,
            "session_not_found")  # fmt: skip


def test_a_recovered_session_tells_its_former_supervisor_where_the_work_is(api: Api) -> None:
    it = Supervisable(api, "session", supervisor="me")
    api.stall(it.id)
    heir = ok(api.recover(it.id, name("machine")), 201)
    assert heir["supervisor"] is None

    body = refused(it.beat(1), 409, "session_ended")
    assert body["details"]["recovered_to"] == heir["session_id"]
