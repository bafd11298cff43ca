"""Spec 6, 17: takeover, fences, and what becomes of claims when their holder ends."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from application.engine.fields import Command
from interfaces.operations import OPERATIONS, Operation
from tests.acceptance.fleet import Fleet
from tests.acceptance.past import Past
from tests.acceptance.queue import Holder, Queue, who
from tests.acceptance.serving import Api, Json, Server, gone, lasting, name, ok, refused

SILENT = timedelta(minutes=6)


@pytest.fixture
def queue(api: Api) -> Queue:
    return Queue(api)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


def feed(api: Api, after: int) -> list[Json]:
    """What was stored after a position, in the order of the log."""
    query = {"after": after, "limit": 1000}
    events: list[Json] = ok(api.get("/api/events", params=query))["events"]
    return events


# Claiming


def test_a_claim_tells_its_fence(api: Api, queue: Queue) -> None:
    """Given a claim, then item_id, holder, fence and claimed_at are told, and every read agrees."""
    session = api.session()
    granted = queue.claim("SD-1", session)
    assert (granted["item_id"], granted["holder"]) == ("SD-1", session["session_id"])
    read = queue.get_claim("SD-1")
    assert lasting(read) == lasting(granted)
    assert [claim["fence"] for claim in queue.claims()] == [granted["fence"]]
    stream = ok(api.get("/api/streams/claim-SD-1/events"))["events"]
    grants = [e["sequence_num"] for e in stream if e["event_type"] == "claim_granted"]
    assert grants == [granted["fence"]]


def test_claim_and_holder_record_it_in_one_append(api: Api, queue: Queue) -> None:
    """Given a claim, then both streams have it, by one request, at adjacent positions."""
    session = api.session()
    before = len(feed(api, 0))
    reply = queue.ask("SD-1", session)
    fence = ok(reply, 201)["fence"]
    events = feed(api, before)
    assert [(e["stream_id"], e["event_type"]) for e in events] == [
        ("claim-SD-1", "work_item_listed"),
        ("claim-SD-1", "claim_granted"),
        (f"session-{session['session_id']}", "claim_acquired"),
    ]
    assert events[-1]["event_data"] == {"resource": "SD-1", "fence": fence}
    assert {e["metadata"]["request_id"] for e in events} == {reply.headers["x-request-id"]}


def test_claiming_what_one_holds_changes_nothing(
    api: Api, queue: Queue, stored: Callable[[], int]
) -> None:
    """Given one's own claim, then claiming again is 200 with the same fence; nothing is stored."""
    session = api.session()
    first = queue.claim("SD-1", session)
    before = stored()
    assert lasting(ok(queue.ask("SD-1", session))) == lasting(first)
    again = ok(queue.ask("SD-1", session, takeover=True, hostname="elsewhere"))
    assert lasting(again) == lasting(first)
    assert stored() == before


def test_a_holder_may_hold_several_items(api: Api, queue: Queue) -> None:
    """Given several claims of one session, then it holds all of them, each with its fence."""
    session = api.session()
    fences = {item: queue.claim(item, session)["fence"] for item in ("a", "b", "c")}
    assert {c["item_id"]: c["fence"] for c in queue.claims(**who(session))} == fences
    (row,) = ok(api.get("/api/sessions/active"))["sessions"]
    assert row["held_items"] == ["a", "b", "c"]
    state = ok(api.get(f"/api/sessions/{session['session_id']}/recovery-state"))
    assert {c["item_id"]: c["fence"] for c in state["held_claims"]} == fences


def test_sd_id_is_another_name_for_item_id(api: Api, queue: Queue) -> None:
    """S3 calls it sd_id: accepted for claims, items and fences, and answered as item_id."""
    session = api.session()
    body = {"sd_id": "SD-1", **who(session)}
    granted = ok(api.post("/api/claims", json=body), 201)
    assert granted["item_id"] == "SD-1"
    assert ok(api.post("/api/work-items", json={"sd_id": "SD-2"}), 201)["item_id"] == "SD-2"
    api.beat(session["session_id"], claim={"sd_id": "SD-1", "fence": granted["fence"]})


@pytest.mark.parametrize(
    "item_id",
    [
        "a/b",
        "a/release",
        "a/verify",
        "claim-next",
        "a b",
        "ä%2Fö",
        "日本",
        "?x=1#y",
        "a/",
        "x" * 200,
    ],
)
def test_an_item_may_have_any_name(api: Api, queue: Queue, item_id: str) -> None:
    """Given a name with slashes, spaces or what paths end in, then everything works with it."""
    session = api.session()
    granted = queue.claim(item_id, session)
    assert queue.get_claim(item_id)["holder"] == session["session_id"]
    assert queue.item(item_id)["active_session_id"] == session["session_id"]
    assert ok(queue.verify(item_id, granted["fence"]))["item_id"] == item_id
    ok(queue.release(item_id, session))
    queue.claim(item_id, session)
    assert ok(queue.complete(item_id, session))["item_id"] == item_id
    assert queue.item(item_id)["status"] == "completed"


def test_claims_are_listed_by_holder(api: Api, queue: Queue, fleet: Fleet) -> None:
    """Given several holders, then GET /api/claims tells all, or one holder's, the latest first."""
    session, agent = api.session(), fleet.register()
    for item, holder in (("a", session), ("b", agent), ("c", session)):
        queue.claim(item, holder)
    assert [claim["item_id"] for claim in queue.claims()] == ["c", "b", "a"]
    assert [claim["item_id"] for claim in queue.claims(**who(session))] == ["c", "a"]
    (claim,) = queue.claims(**who(agent))
    assert (claim["instance_id"], claim["session_id"]) == (agent["instance_id"], None)
    page = ok(api.get("/api/claims", params={"limit": 1, "offset": 1}))
    assert [claim["item_id"] for claim in page["claims"]] == ["b"]
    assert (page["total_count"], page["has_more"]) == (3, True)
    assert queue.claims(session_id="nobody") == []


def test_claims_of_two_namespaces_never_meet(api: Api, other: Api, queue: Queue) -> None:
    """Given the same item in two namespaces, then each has its own holder and its own queue."""
    ours, theirs = api.session(), other.session()
    queue.claim("SD-1", ours)
    Queue(other).claim("SD-1", theirs)
    assert queue.get_claim("SD-1")["holder"] == ours["session_id"]
    assert Queue(other).get_claim("SD-1")["holder"] == theirs["session_id"]
    queue.add("SD-2")
    refused(other.get("/api/work-items/SD-2"), 404, "work_item_not_found")
    refused(other.get("/api/claims/SD-2"), 404, "claim_not_found")
    refused(Queue(other).ask("SD-3", ours), 400, "unknown_session")


# Releasing and reading


def test_a_released_claim_is_read_without_a_holder(api: Api, queue: Queue) -> None:
    """Given a release, then holder is null and the fence the last; never claimed 404."""
    session = api.session(hostname="rack-1")
    granted = queue.claim("SD-1", session)
    released = ok(queue.release("SD-1", session))
    read = queue.get_claim("SD-1")
    for told in (released, read):
        assert (told["holder"], told["fence"]) == (None, granted["fence"])
        assert told["claimed_at"] is told["hostname"] is told["session_id"] is None
    queue.add("SD-2")
    for item in ("SD-2", "SD-3"):
        refused(api.get(f"/api/claims/{item}"), 404, "claim_not_found")
        refused(queue.release(item, session), 404, "claim_not_found")
        refused(queue.verify(item, 1), 404, "claim_not_found")


def test_a_release_under_a_fence(api: Api, queue: Queue) -> None:
    """Given a release with a fence, then only the present one will do."""
    session = api.session()
    fence = queue.claim("SD-1", session)["fence"]
    body = refused(queue.release("SD-1", session, fence=fence + 1), 409, "stale_fence")
    assert body["details"]["fence"] == fence
    ok(queue.release("SD-1", session, fence=fence))
    refused(queue.release("SD-1", session, fence=fence), 409, "not_holder")


def test_nobody_lets_go_of_a_place_by_its_name(
    api: Api, queue: Queue, fleet: Fleet, stored: Callable[[], int]
) -> None:
    """Places, slots and the Global are no work: as claims they are 404, even to their holders."""
    session = api.session(docker_slot=1)
    only = fleet.register(scope="global")
    before = stored()
    held = {**queue.held_by(session), **queue.held_by(only)}
    assert len(held) == 3
    for resource, fence in held.items():
        holder = only if resource == "@global" else session
        refused(queue.release(resource, holder), 404, "claim_not_found")
        refused(queue.verify(resource, fence), 404, "claim_not_found")
        refused(queue.complete(resource, holder), 404, "work_item_not_found")
        refused(queue.api.get(f"/api/claims/{resource}"), 404, "claim_not_found")
    assert stored() == before
    assert queue.claims() == []


# Takeover


def test_a_silent_holder_s_claim_is_taken_over(api: Api, queue: Queue, past: Past) -> None:
    """Given a holder past the threshold, then takeover moves the claim with the next fence."""
    old = past.session(SILENT, items=["SD-1"])
    before = queue.get_claim("SD-1")
    new = api.session()
    refused(queue.ask("SD-1", new), 409, "claim_held")
    taken = queue.claim("SD-1", new, takeover=True)
    assert taken["taken_from"] == old["session_id"]
    assert taken["fence"] == before["fence"] + 1
    assert taken["claimed_at"] > before["claimed_at"]
    queue.assert_agrees(old, new)


def test_a_takeover_is_recorded_by_claim_and_both_holders_in_one_append(
    api: Api, queue: Queue, past: Past
) -> None:
    """Given a takeover, then three streams have it, by one request."""
    old = past.session(SILENT, items=["SD-1"])
    new = api.session()
    before = len(feed(api, 0))
    reply = queue.ask("SD-1", new, takeover=True)
    events = feed(api, before)
    assert {(e["stream_id"], e["event_type"]) for e in events} == {
        ("claim-SD-1", "claim_taken_over"),
        (f"session-{old['session_id']}", "claim_lost"),
        (f"session-{new['session_id']}", "claim_acquired"),
    }
    assert {e["metadata"]["request_id"] for e in events} == {reply.headers["x-request-id"]}


def test_a_holder_that_beats_is_not_taken_over(api: Api, queue: Queue) -> None:
    """Given a holder that is alive, then takeover is 409 and tells how long it would take."""
    owner = api.session()
    queue.claim("SD-1", owner)
    details = refused(queue.ask("SD-1", api.session(), takeover=True), 409, "claim_held")["details"]
    assert details["seconds_until_takeover"] > 290
    assert queue.get_claim("SD-1")["holder"] == owner["session_id"]


def test_the_old_holder_finds_out_with_its_next_heartbeat_once(
    api: Api, queue: Queue, past: Past
) -> None:
    """Given a takeover, then the old holder's next beat has lost_claims, the one after has not."""
    old = past.session(SILENT, items=["SD-1", "SD-2", "SD-3"])
    fences = queue.held_by(old)
    new = api.session()
    for item in ("SD-1", "SD-2"):
        queue.claim(item, new, takeover=True)
    beaten = api.beat(old["session_id"])
    assert [{k: v for k, v in lost.items() if k != "at"} for lost in beaten["lost_claims"]] == [
        {"item_id": item, "fence": fences[item], "taken_by": new["session_id"]}
        for item in ("SD-1", "SD-2")
    ]
    assert all(lost["at"].endswith("Z") for lost in beaten["lost_claims"])
    assert "lost_claims" not in api.beat(old["session_id"])


def test_an_instance_finds_out_too(queue: Queue, fleet: Fleet) -> None:
    """Given an instance whose claim was taken over, then its next heartbeat says so, once."""
    old = fleet.silent(SILENT, "0000aa", items=["SD-1"])
    new = fleet.register()
    assert queue.claim("SD-1", new, takeover=True)["taken_from"] == old
    (lost,) = fleet.beat(old)["lost_claims"]
    assert (lost["item_id"], lost["taken_by"]) == ("SD-1", new["instance_id"])
    assert "lost_claims" not in fleet.beat(old)


def test_a_beat_among_many_tells_lost_claims_too(
    api: Api, queue: Queue, past: Past, fleet: Fleet
) -> None:
    """Given bulk heartbeats, then lost claims are told in each one's result, and not again."""
    old = past.session(SILENT, items=["SD-1"])["session_id"]
    agent = fleet.silent(SILENT, "0000ab", items=["SD-2"])
    new = api.session()
    for item in ("SD-1", "SD-2"):
        queue.claim(item, new, takeover=True)
    beats = {"heartbeats": [{"session_id": old}, {"instance_id": agent}, {"session_id": old}]}
    results = ok(api.post("/api/heartbeats", json=beats))["results"]
    assert [result["ok"] for result in results] == [True] * 3
    lost = [[one["item_id"] for one in result.get("lost_claims", [])] for result in results]
    assert lost == [["SD-1"], ["SD-2"], []]


def test_of_many_who_take_over_at_once_one_wins(
    server: Server, api: Api, queue: Queue, past: Past
) -> None:
    """Given a stale claim and many who want it, then one gets it and the others hear of it."""
    old = past.session(SILENT, items=["SD-1"])
    takers = [api.session() for _ in range(20)]

    def take(session: Holder) -> httpx.Response:
        with Api(server.url, api.key, api.namespace) as client:
            return Queue(client).ask("SD-1", session, takeover=True)

    with ThreadPoolExecutor(20) as pool:
        replies = list(pool.map(take, takers))
    (won,) = (reply.json() for reply in replies if reply.status_code == 201)
    for reply in replies:
        if reply.status_code != 201:
            details = refused(reply, 409, "claim_held")["details"]
            assert (details["claimed_by"], details["stale"]) == (won["holder"], False)
    queue.assert_agrees(old, *takers)


def test_a_second_takeover_has_to_wait_again(api: Api, queue: Queue, past: Past) -> None:
    """A new claim never inherits old times: right after a takeover the next one is refused."""
    past.session(SILENT, items=["SD-1"])
    silent = past.session(SILENT)
    queue.claim("SD-1", silent, takeover=True)
    details = refused(queue.ask("SD-1", api.session(), takeover=True), 409, "claim_held")["details"]
    assert details["heartbeat_age_seconds"] >= 360
    assert details["stale"] is False
    assert details["seconds_until_takeover"] > 290


# Fences


def test_a_guard_may_verify_a_fence(
    api: Api, queue: Queue, past: Past, stored: Callable[[], int]
) -> None:
    """Verify is 200 valid under the holder's fence, else 409 with the present holder."""
    old = past.session(SILENT, items=["SD-1"])
    fence = queue.get_claim("SD-1")["fence"]
    before = stored()
    valid = ok(queue.verify("SD-1", fence))
    assert (valid["valid"], valid["holder"]) == (True, old["session_id"])
    refused(queue.verify("SD-1", fence + 1), 409, "stale_fence")
    assert stored() == before
    new = api.session()
    queue.claim("SD-1", new, takeover=True)
    details = refused(queue.verify("SD-1", fence), 409, "stale_fence")["details"]
    assert details["holder"] == new["session_id"]
    assert (details["given_fence"], details["fence"]) == (fence, fence + 1)
    ok(queue.release("SD-1", new))
    refused(queue.verify("SD-1", fence + 1), 409, "stale_fence")


FENCED = [o for o in OPERATIONS if o.command and issubclass(o.model, Command)]


class Stage:
    """A namespace with something of everything, and a fence that has gone stale."""

    def __init__(self, api: Api, fleet: Fleet) -> None:
        self.queue = Queue(api)
        self.session = api.session()
        self.failed = api.session()
        self.queue.claim("lost", self.failed)
        self.stale = {"item_id": "lost", "fence": self.queue.get_claim("lost")["fence"]}
        api.fail(self.failed["session_id"])
        self.task = api.task(self.session)
        self.machine = api.machine()
        self.agent, self.parent = fleet.register(), fleet.register(scope="global")
        self.closed = fleet.register()
        fleet.close(self.closed["instance_id"])
        self.queue.claim("held", self.session)
        self.good = {"item_id": "held", "fence": self.queue.get_claim("held")["fence"]}
        self.queue.add("open")
        self.queue.claim("done", self.session)
        ok(self.queue.complete("done", self.session))

    def path(self, operation: Operation) -> str:
        session = self.session
        if operation.name in (
            "session_archive",
            "session_recover",
            "session_prepare_recovery",
        ):
            session = self.failed
        agent = self.closed if operation.name == "instance_resume" else self.agent
        names = {
            "session_id": session["session_id"],
            "task_id": self.task["task_id"],
            "machine_id": self.machine["machine_id"],
            "instance_id": agent["instance_id"],
            "item_id": {"work_item_reopen": "done", "work_item_remove": "open"}.get(
                operation.name, "held"
            ),
        }
        return operation.path.replace(":path", "").format(**names)

    def body(self, operation: Operation) -> Json:
        session = who(self.session)
        bodies: dict[str, Json] = {
            "session_create": {"project_id": "p", "machine_id": name("machine")},
            "session_update": {"metadata": {"a": 1}},
            "session_mark_failed": {"error_message": "x"},
            "session_take_up": {"supervisor": "me"},
            "session_put_down": {"supervisor_fence": 1},
            "instance_take_up": {"supervisor": "me"},
            "instance_put_down": {"supervisor_fence": 1},
            "session_recover": {"new_machine_id": name("machine")},
            "task_create": {**session, "project_id": self.session["project_id"], "task_name": "t"},
            "task_update": {"status": "in_progress"},
            "machine_register": {"hostname": "h", "docker_slots": []},
            "machine_update": {"status": "offline"},
            "event_emit": {"event_type": "epic_started", "event_data": {"epic_id": "e"}},
            "instance_register": {"project": "odin", "instance_type": "PS"},
            "instance_set_parent": {"parent_id": self.parent["instance_id"]},
            "checkpoint_create": {"label": "l", "state": {}},
            "claim_item": {"item_id": "another", **session},
            "claim_release": session,
            "claim_verify": {"fence": self.good["fence"]},
            "work_item_list": {"item_id": "new"},
            "work_item_claim_next": session,
            "work_item_complete": session,
            "work_item_reopen": {"reason": "x"},
        }
        return bodies.get(operation.name, {})


@pytest.mark.parametrize("operation", FENCED, ids=lambda operation: str(operation.name))
def test_a_stale_fence_stops_every_write(
    api: Api, fleet: Fleet, stored: Callable[[], int], operation: Operation
) -> None:
    """Given any command with a stale fence, then 409 stale_fence and nothing is stored.

    With the present one the same command is carried out.
    """
    stage = Stage(api, fleet)
    path, body = stage.path(operation), stage.body(operation)
    before = stored()
    for fence in (stage.stale, {**stage.good, "fence": stage.good["fence"] + 1}):
        reply = api.request(operation.verb, path, json={**body, "claim": fence})
        details = refused(reply, 409, "stale_fence")["details"]
        assert details["item_id"] == fence["item_id"]
        assert details["given_fence"] == fence["fence"]
    unheard_of = {"item_id": "never", "fence": 1}
    refused(
        api.request(operation.verb, path, json={**body, "claim": unheard_of}), 409, "stale_fence"
    )
    assert stored() == before
    reply = api.request(operation.verb, path, json={**body, "claim": stage.good})
    assert reply.is_success, reply.text


def test_a_fence_goes_with_each_of_many_beats(
    api: Api, fleet: Fleet, stored: Callable[[], int]
) -> None:
    """Given bulk heartbeats with fences, then those with a stale one are refused, each alone."""
    stage = Stage(api, fleet)
    before = stored()
    one, agent = who(stage.session), who(stage.agent)
    beats: list[Json] = [
        {**one, "claim": stage.stale},
        {**one, "claim": stage.good},
        {**agent, "claim": stage.stale},
        {**agent, "claim": {"item_id": "held", "fence": "1"}},
        agent,
    ]
    answer = ok(api.post("/api/heartbeats", json={"heartbeats": beats}))
    assert [result["ok"] for result in answer["results"]] == [False, True, False, False, True]
    errors = [result["error"] for result in answer["results"] if not result["ok"]]
    assert [e["code"] for e in errors] == ["stale_fence", "stale_fence", "validation_error"]
    assert errors[0]["details"]["given_fence"] == stage.stale["fence"]
    assert stored() == before + 2


ACTIONS = [operation for operation in OPERATIONS if operation.action is not None]


@pytest.mark.parametrize("operation", ACTIONS, ids=lambda operation: str(operation.name))
def test_a_stale_fence_stops_what_takes_many_commands(
    api: Api, fleet: Fleet, past: Past, stored: Callable[[], int], operation: Operation
) -> None:
    """Given an action with a stale fence, then 409 stale_fence and it does nothing at all."""
    stage = Stage(api, fleet)
    past.session(timedelta(days=90), ended=timedelta(days=89))
    past.session(SILENT)
    bodies = {"heartbeat_bulk": {"heartbeats": [who(stage.session)]}}
    body = bodies.get(operation.name, {})
    before = stored()
    reply = api.request(operation.verb, operation.path, json={**body, "claim": stage.stale})
    assert refused(reply, 409, "stale_fence")["details"]["item_id"] == "lost"
    assert stored() == before
    ok(api.request(operation.verb, operation.path, json={**body, "claim": stage.good}))
    assert stored() > before


# The end of a holder


End = Callable[[Api, Json], None]


def completed(api: Api, session: Json) -> None:
    api.patch_session(session["session_id"], status="completed")


def set_failed(api: Api, session: Json) -> None:
    api.patch_session(session["session_id"], status="failed")


def marked_failed(api: Api, session: Json) -> None:
    api.fail(session["session_id"])


def deleted(api: Api, session: Json) -> None:
    gone(api.delete(f"/api/sessions/{session['session_id']}"))


def replaced(api: Api, session: Json) -> None:
    place = {field: session[field] for field in ("project_id", "machine_id", "docker_slot")}
    api.session(**place, replace=True)


def superseded(api: Api, session: Json) -> None:
    api.stall(session["session_id"])
    place = {field: session[field] for field in ("project_id", "machine_id", "docker_slot")}
    api.session(**place)


@pytest.mark.parametrize(
    "end",
    [completed, set_failed, marked_failed, deleted, replaced, superseded],
    ids=lambda end: str(end.__name__),
)
def test_the_end_of_a_session_releases_all_it_holds(api: Api, queue: Queue, end: End) -> None:
    """However a session ends, its items are free, on both sides, in the append that ends it."""
    session, other = api.session(docker_slot=3), api.session()
    for item in ("a", "b"):
        queue.claim(item, session)
    assert len(queue.held_by(session)) == 4
    before = len(feed(api, 0))
    end(api, session)
    assert queue.claims() == []
    assert queue.held_by(session) == {}
    append = _append_that_released(feed(api, before))
    assert {"a", "b"} <= set(_resources(append, "claim_released"))
    stream = f"session-{session['session_id']}"
    own = [e["event_data"]["resource"] for e in append if e["event_type"] == "claim_given_up"]
    assert {"a", "b"} <= set(own)
    assert {e["stream_id"] for e in append if e["event_type"] == "claim_given_up"} == {stream}
    ended = {"session_completed", "session_failed", "session_deleted", "claim_lost"}
    assert [e for e in append if e["stream_id"] == stream and e["event_type"] in ended]
    code: dict[End, tuple[int, str]] = {
        deleted: (400, "unknown_session"),
        superseded: (409, "superseded"),
    }
    refused(queue.ask("a", session), *code.get(end, (409, "session_ended")))
    for item in ("a", "b"):
        queue.claim(item, other)
    queue.assert_agrees(session, other)


def test_clean_up_leaves_nothing_held(api: Api, queue: Queue, past: Past) -> None:
    """Given a session that ended holding something and is cleaned up, then its items are free."""
    session = api.session()
    queue.claim("a", session)
    completed(api, session)
    ok(api.post("/api/sessions/cleanup", params={"older_than_days": 0}))
    refused(api.get(f"/api/sessions/{session['session_id']}"), 404, "session_not_found")
    assert queue.claims() == []
    queue.claim("a", api.session())


@pytest.mark.parametrize("cascade", [False, True])
def test_closing_an_instance_releases_all_it_holds(
    api: Api, queue: Queue, fleet: Fleet, cascade: bool
) -> None:
    """Given a close, by itself or from above, then items and the Global are free, in one append."""
    top = fleet.register(scope="global")
    agent = fleet.register(parent_id=top["instance_id"]) if cascade else top
    for item in ("a", "b"):
        queue.claim(item, agent)
    before = len(feed(api, 0))
    fleet.close(top["instance_id"], cascade=cascade)
    append = _append_that_released(feed(api, before))
    assert set(_resources(append, "claim_released")) == {"a", "b", "@global"}
    types = [event["event_type"] for event in append]
    assert types.count("claim_given_up") == 3
    assert types.count("instance_closed") == 1 + cascade
    assert queue.held_by(agent) == queue.held_by(top) == {}
    refused(queue.ask("a", agent), 409, "instance_closed")
    refused(queue.release("a", agent), 409, "instance_closed")
    refused(queue.complete("a", agent), 409, "instance_closed")
    session = api.session()
    queue.claim("a", session)
    queue.assert_agrees(agent, session)


# Recovery


def test_recovering_a_stalled_session_moves_its_claims(api: Api, queue: Queue, past: Past) -> None:
    """Given a stalled session with items, then its successor has them, each with fence + 1."""
    old = past.session(SILENT, items=["a", "b"])
    fences = {claim["item_id"]: claim["fence"] for claim in queue.claims()}
    before = len(feed(api, 0))
    machine_id = name("machine")
    successor = ok(api.recover(old["session_id"], machine_id), 201)
    assert "lost_items" not in successor
    held = {claim["item_id"]: claim for claim in queue.claims(**who(successor))}
    assert {i: claim["fence"] for i, claim in held.items()} == {i: f + 1 for i, f in fences.items()}
    assert queue.item("a")["last_machine_id"] == machine_id
    events = feed(api, before)
    assert {e["metadata"]["command"] for e in events} == {"session_recover"}
    assert len({e["metadata"]["request_id"] for e in events}) == 1
    assert _resources(events, "claim_taken_over") == ["a", "b"]
    queue.assert_agrees(old, successor)
    for item, fence in fences.items():
        refused(queue.verify(item, fence), 409, "stale_fence")
    again = ok(api.recover(old["session_id"], machine_id), 200)
    assert again["session_id"] == successor["session_id"]
    queue.assert_agrees(old, successor)


def test_recovering_a_failed_session_claims_again_what_is_free(api: Api, queue: Queue) -> None:
    """Given a failed session, then its successor has the items still free; the others are told.

    A second call gives the same answer.
    """
    old, other = api.session(), api.session()
    for item in ("free", "taken", "done", "given back"):
        queue.claim(item, old)
    ok(queue.release("given back", old))
    api.fail(old["session_id"])
    queue.claim("taken", other)
    queue.claim("done", other)
    ok(queue.complete("done", other))
    state = ok(api.get(f"/api/sessions/{old['session_id']}/recovery-state"))
    assert (state["held_claims"], state["released_items"]) == ([], ["free", "taken", "done"])
    assert "It had claimed free, taken, done." in state["brief"]
    machine_id = name("machine")
    successor = ok(api.recover(old["session_id"], machine_id), 201)
    lost = {item["item_id"]: item for item in successor["lost_items"]}
    assert set(lost) == {"taken", "done"}
    assert (lost["taken"]["status"], lost["taken"]["holder"]) == ("claimed", other["session_id"])
    assert (lost["done"]["status"], lost["done"]["holder"]) == ("completed", None)
    assert [claim["item_id"] for claim in queue.claims(**who(successor))] == ["free"]
    queue.assert_agrees(old, other, successor)
    ok(queue.release("taken", other))
    again = ok(api.recover(old["session_id"], machine_id), 200)
    assert again["lost_items"] == successor["lost_items"]
    assert queue.get_claim("taken")["holder"] is None


def test_a_superseded_session_s_items_come_back_with_its_recovery(api: Api, queue: Queue) -> None:
    """Given a stalled session whose place was taken, then recovery elsewhere has its items back."""
    old = api.session()
    queue.claim("a", old)
    superseded(api, old)
    assert queue.claims() == []
    successor = ok(api.recover(old["session_id"], name("machine")), 201)
    assert [claim["item_id"] for claim in queue.claims(**who(successor))] == ["a"]
    assert successor["lost_items"] == []


def _append_that_released(events: list[Json]) -> list[Json]:
    """The events of the one request that released something; they are adjacent in the log."""
    (request_id,) = {
        e["metadata"]["request_id"] for e in events if e["event_type"] == "claim_released"
    }
    append = [event for event in events if event["metadata"]["request_id"] == request_id]
    _assert_adjacent(append)
    return append


def _assert_adjacent(events: list[Json]) -> None:
    positions = [event["position"] for event in events]
    assert positions == list(range(positions[0], positions[0] + len(positions)))


def _resources(events: list[Json], event_type: str) -> list[str]:
    of_type = [event for event in events if event["event_type"] == event_type]
    return [event["stream_id"].removeprefix("claim-") for event in of_type]
