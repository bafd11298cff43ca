"""Spec 6, 17: work items: what there is to do, in which order, and who gets what."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import psycopg
import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.past import Past
from tests.acceptance.queue import Queue, who
from tests.acceptance.serving import Api, Json, Server, gone, name, ok, position, refused

# What depends on the moment of the read.
AGES = {"heartbeat_age_seconds", "heartbeat_age_human", "claim_duration_minutes"}


@pytest.fixture
def queue(api: Api) -> Queue:
    return Queue(api)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


def still(item: Json) -> Json:
    """What an item says whenever it is read."""
    return {field: value for field, value in item.items() if field not in AGES}


# Listing


def test_an_item_is_listed_and_described_anew(queue: Queue) -> None:
    """Given an item, then 201; given again, then 200, and what is left out stays."""
    item = queue.add("SD-1", title="One", track="A", priority=3, depends_on=["SD-0"])
    assert (item["title"], item["track"], item["priority"]) == ("One", "A", 3)
    assert (item["status"], item["depends_on"], item["blocked_by"]) == ("open", ["SD-0"], ["SD-0"])
    assert queue.item("SD-1") == item
    changed = ok(queue.offer("SD-1", priority=-(2**31)))
    assert (changed["title"], changed["track"], changed["priority"]) == ("One", "A", -(2**31))
    assert changed["depends_on"] == ["SD-0"]
    assert changed["updated_at"] > item["updated_at"]
    assert queue.item("SD-1") == changed
    cleared = ok(queue.offer("SD-1", title=None, track=None, priority=None, depends_on=None))
    assert (cleared["title"], cleared["track"], cleared["priority"]) == (None, None, 0)
    assert cleared["depends_on"] == cleared["blocked_by"] == []
    assert queue.item("SD-1") == cleared


def test_the_same_description_again_changes_nothing(
    queue: Queue, stored: Callable[[], int]
) -> None:
    """Given a description that is known, then 200 and no event."""
    said = {"title": "One", "priority": 1, "depends_on": ["a", "b"]}
    item = queue.add("SD-1", **said)
    before = stored()
    assert ok(queue.offer("SD-1", **said)) == item
    assert ok(queue.offer("SD-1")) == item
    assert ok(queue.offer("SD-1", depends_on=["a", "b", "a"])) == item
    assert stored() == before


def test_claiming_an_unknown_item_lists_it(api: Api, queue: Queue) -> None:
    """Given a claim on what nobody listed, then the item is there, and may be described later."""
    session = api.session()
    queue.claim("SD-1", session)
    assert queue.item("SD-1")["title"] is None
    described = ok(queue.offer("SD-1", title="One"))
    assert (described["title"], described["status"]) == ("One", "claimed")
    assert described["active_session_id"] == session["session_id"]


def test_every_reply_about_an_item_says_what_a_read_says(
    api: Api, queue: Queue, past: Past
) -> None:
    """Given an item through all of its life, then replies to commands and reads are the same."""
    session = api.session(hostname="rack-1")

    def agrees(reply: Json) -> None:
        assert still(queue.item("SD-1")) == still(reply)

    agrees(queue.add("SD-1", title="One", depends_on=["é", "Z", "a"]))
    agrees(ok(queue.offer("SD-1", depends_on=[])))
    queue.claim("SD-1", session)
    agrees(ok(queue.offer("SD-1")))
    agrees(ok(queue.offer("SD-1", priority=2)))
    ok(queue.release("SD-1", session))
    agrees(ok(queue.offer("SD-1")))
    queue.claim("SD-1", session)
    agrees(ok(queue.complete("SD-1", session)))
    agrees(ok(queue.offer("SD-1")))
    silent = past.session(timedelta(minutes=6), items=["SD-2"])
    assert queue.item("SD-2")["stale"] is ok(queue.offer("SD-2"))["stale"] is True
    assert queue.item("SD-2")["holder"] == silent["session_id"]


def test_the_queue_is_by_priority_then_in_the_order_of_listing(queue: Queue) -> None:
    """Given several items, then the highest priority is first; filters and pages work."""
    for item, priority, track in (("a", 0, "X"), ("b", 5, "Y"), ("c", 5, "X"), ("d", -1, "X")):
        queue.add(item, priority=priority, track=track)
    ok(queue.offer("b", title="changed later"))
    assert [item["item_id"] for item in queue.items()] == ["b", "c", "a", "d"]
    assert [item["item_id"] for item in queue.items(track="X")] == ["c", "a", "d"]
    page = ok(queue.api.get("/api/work-items", params={"limit": 2, "offset": 1, "track": "X"}))
    assert [item["item_id"] for item in page["work_items"]] == ["a", "d"]
    assert (page["total_count"], page["has_more"]) == (3, False)


def test_items_are_listed_by_status(api: Api, queue: Queue) -> None:
    """Given open, claimed and completed items, then each status lists its own."""
    session = api.session()
    queue.add("a")
    queue.claim("b", session)
    queue.claim("c", session)
    ok(queue.complete("c", session))
    for status, items in (("open", ["a"]), ("claimed", ["b"]), ("completed", ["c"])):
        assert [item["item_id"] for item in queue.items(status=status)] == items


# Dependencies


def test_an_item_waits_for_what_it_depends_on(api: Api, queue: Queue) -> None:
    """Given open dependencies, then 409 with the list until the last of them is completed."""
    session = api.session()
    queue.add("house", depends_on=["walls", "roof"])
    queue.add("roof", depends_on=["walls"])
    body = refused(queue.ask("house", session), 409, "blocked_by_dependencies")
    assert body["details"]["blocked_by"] == ["walls", "roof"]
    assert queue.item("house")["blocked_by"] == ["roof", "walls"]
    queue.claim("walls", session)
    # Claimed is not completed.
    refused(queue.ask("roof", session), 409, "blocked_by_dependencies")
    ok(queue.complete("walls", session))
    assert queue.item("house")["blocked_by"] == ["roof"]
    queue.claim("roof", session)
    ok(queue.complete("roof", session))
    assert queue.item("house")["blocked_by"] == []
    queue.claim("house", session)


def test_a_dependency_need_not_be_listed_yet(api: Api, queue: Queue) -> None:
    """Given a dependency that nobody listed, then the item waits for it all the same."""
    queue.add("late", depends_on=["not yet there"])
    refused(queue.ask("late", api.session()), 409, "blocked_by_dependencies")
    refused(api.get("/api/work-items/not yet there"), 404, "work_item_not_found")
    assert queue.next(api.session()) is None


def test_the_owner_is_told_before_dependencies_are(api: Api, queue: Queue) -> None:
    """Given a held item that came to wait for another, then who is refused hears of its owner."""
    owner = api.session()
    queue.claim("SD-1", owner)
    ok(queue.offer("SD-1", depends_on=["SD-0"]))
    details = refused(queue.ask("SD-1", api.session()), 409, "claim_held")["details"]
    assert details["claimed_by"] == owner["session_id"]
    assert ok(queue.ask("SD-1", owner))["status"] == "claimed"
    ok(queue.release("SD-1", owner))
    refused(queue.ask("SD-1", owner), 409, "blocked_by_dependencies")


def test_a_long_chain_can_still_be_described(api: Api, queue: Queue) -> None:
    """Given a chain of 80 items, then each may be given a title, and no end meets a beginning."""
    for number in range(80):
        queue.add(f"item-{number}", depends_on=[f"item-{number + 1}"])
    assert ok(queue.offer("item-0", title="The first"))["title"] == "The first"
    for start in (0, 30, 79):
        reply = queue.offer("item-80", depends_on=[f"item-{start}"])
        body = refused(reply, 400, "dependency_cycle")
        assert [error["field"] for error in body["errors"]] == ["depends_on"]


def test_of_two_that_come_to_wait_for_each_other_at_once_one_is_refused(
    server: Server, api: Api, queue: Queue
) -> None:
    """Given a to wait for b and b for a at the same moment, then one of the two is refused."""
    for number in range(10):
        pair = (f"a{number}", f"b{number}")
        for item in pair:
            queue.add(item)

        def offer(wanted: tuple[str, str]) -> int:
            with Api(server.url, api.key, api.namespace) as client:
                return Queue(client).offer(wanted[0], depends_on=[wanted[1]]).status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = list(pool.map(offer, (pair, (pair[1], pair[0]))))
        assert sorted(statuses) == [200, 400]


# Claim next


def test_the_next_item_is_that_of_highest_priority(api: Api, queue: Queue) -> None:
    """Given items, then claim-next gives them by priority, then in order; after the last 204."""
    session = api.session()
    for item, priority in (("a", 0), ("b", 5), ("c", 5), ("d", -1)):
        queue.add(item, priority=priority)
    queue.claim("c", api.session())
    assert [queue.next(session) for _ in range(4)] == ["b", "a", "d", None]
    assert set(queue.held_by(session)) >= {"a", "b", "d"}


def test_the_next_item_is_one_that_waits_for_nothing(api: Api, queue: Queue) -> None:
    """Given an item that waits, then it is left out until what it waits for is completed."""
    session = api.session()
    queue.add("after", priority=9, depends_on=["before"])
    queue.add("before")
    assert [queue.next(session), queue.next(session)] == ["before", None]
    ok(queue.complete("before", session))
    assert queue.next(session) == "after"


def test_the_next_item_of_a_track(api: Api, queue: Queue) -> None:
    """Given a track, then only its items are given."""
    queue.add("a", track="X", priority=9)
    queue.add("b", track="Y")
    session = api.session()
    assert [queue.next(session, track="Y"), queue.next(session, track="Y")] == ["b", None]


def test_nothing_to_claim_is_204_and_stores_nothing(
    api: Api, queue: Queue, stored: Callable[[], int]
) -> None:
    """Given an empty queue, then 204 without a body, and no event."""
    session = api.session()
    before = stored()
    reply = api.post("/api/work-items/claim-next", json=who(session))
    gone(reply)
    assert (stored(), position(reply)) == (before, before)


def test_while_the_queue_is_not_known_nobody_says_that_it_is_empty(
    api: Api, queue: Queue, store: psycopg.Connection
) -> None:
    """Given read models that lag behind, then 503 to ask again, and never 204."""
    session = api.session()
    ok(api.get("/api/work-items"))
    with store.transaction():
        store.execute(
            "SELECT FROM projections.positions WHERE namespace = %s FOR UPDATE",
            [api.namespace],
        )
        queue.add("new")
        reply = api.post("/api/work-items/claim-next", json=who(session))
        refused(reply, 503, "database_unavailable")
    assert queue.next(session) == "new"


def test_fifty_callers_at_once_never_get_the_same_item(
    server: Server, api: Api, queue: Queue
) -> None:
    """Given 40 items and 50 callers, then 40 get one each and 10 get 204."""
    for number in range(40):
        queue.add(f"item-{number:02}", priority=number % 3)
    sessions = [api.session() for _ in range(50)]

    def take(session: Json) -> str | None:
        with Api(server.url, api.key, api.namespace) as client:
            return Queue(client).next(session)

    with ThreadPoolExecutor(50) as pool:
        given = Counter(pool.map(take, sessions))
    assert given.pop(None) == 10
    assert given == Counter(f"item-{number:02}" for number in range(40))
    queue.assert_agrees(*sessions)


def test_a_machine_goes_on_with_what_it_worked_on(api: Api, queue: Queue, fleet: Fleet) -> None:
    """Among equal priorities, that which was last worked on by the caller's machine is first."""
    here = name("machine")
    before = api.session(machine_id=here)
    for item in ("first", "ours", "urgent", "last"):
        queue.add(item, priority=int(item == "urgent"))
    queue.claim("ours", before)
    ok(queue.release("ours", before))
    assert queue.item("ours")["last_machine_id"] == here
    session = api.session(machine_id=here)
    assert [queue.next(session) for _ in range(3)] == ["urgent", "ours", "first"]
    ok(queue.release("ours", session))
    stranger = api.session()
    assert [queue.next(stranger), queue.next(stranger)] == ["ours", "last"]


def test_what_a_machine_worked_on_comes_after_what_is_more_urgent_and_can_begin(
    api: Api, queue: Queue
) -> None:
    """Given items of several priorities, some of which wait, then those that can begin, in order.

    Within the highest priority of which any can begin, those of the caller's machine are first.
    """
    here = name("machine")
    before = api.session(machine_id=here)
    queue.add("base", priority=1)
    queue.add("waits", priority=9, depends_on=["base"])
    for item in ("other", "ours"):
        queue.add(item, priority=5)
    queue.add("low and ours")
    for item in ("ours", "low and ours"):
        queue.claim(item, before)
        ok(queue.release(item, before))
    session = api.session(machine_id=here)
    assert [queue.next(session) for _ in range(3)] == ["ours", "other", "base"]
    ok(queue.complete("base", session))
    assert [queue.next(session) for _ in range(3)] == ["waits", "low and ours", None]


@pytest.mark.parametrize("told", ["at registration", "with the claim"])
def test_an_instance_s_machine_is_where_it_says_to_be(
    queue: Queue, fleet: Fleet, told: str
) -> None:
    """Given an instance that names its host, then it too goes on with what was done there."""
    host = name("host")
    known = {"hostname": host} if told == "at registration" else {}
    said = {} if known else {"hostname": host}
    for item in ("first", "ours"):
        queue.add(item)
    agent = fleet.register(**known)
    queue.claim("ours", agent, **said)
    ok(queue.release("ours", agent))
    assert queue.next(fleet.register(**known), **said) == "ours"


def test_who_names_no_machine_gets_what_was_listed_first(queue: Queue, fleet: Fleet) -> None:
    """Given an instance on nobody knows which machine, then no item is preferred for it."""
    host = fleet.register(hostname="rack-1")
    for item in ("worked on", "never touched"):
        queue.add(item)
    queue.claim("worked on", host)
    ok(queue.release("worked on", host))
    assert queue.next(fleet.register()) == "worked on"


def test_claim_next_with_one_key_gives_one_item(api: Api, queue: Queue) -> None:
    """Given a repeated request with its key, then the same item, and the next stays free."""
    session = api.session()
    queue.add("a")
    queue.add("b")
    key = {"Idempotency-Key": "k"}
    replies = [
        api.post("/api/work-items/claim-next", json=who(session), headers=key) for _ in range(3)
    ]
    assert [reply.json()["item_id"] for reply in replies] == ["a"] * 3
    assert queue.next(session) == "b"


# Completing


def test_the_holder_completes_its_item(api: Api, queue: Queue) -> None:
    """Given "done" by the holder, then the item is completed, and nobody holds it any more."""
    session = api.session()
    queue.claim("SD-1", session)
    done = ok(queue.complete("SD-1", session))
    assert (done["status"], done["completed_by"]) == ("completed", session["session_id"])
    assert (done["is_working_on"], done["active_session_id"]) == (False, None)
    assert done["completed_at"] is not None
    queue.assert_agrees(session)
    types = [e["event_type"] for e in ok(api.get("/api/streams/claim-SD-1/events"))["events"]]
    assert types == ["work_item_listed", "claim_granted", "work_item_completed", "claim_released"]


def test_a_completed_item_is_nobody_s_any_more(
    api: Api, queue: Queue, stored: Callable[[], int]
) -> None:
    """Given a completed item, then claims and completions are 409 item_completed, telling by whom.

    The end of its last holder changes nothing of it.
    """
    session, other = api.session(), api.session()
    queue.claim("SD-1", session)
    ok(queue.complete("SD-1", session))
    before = stored()
    for holder in (session, other):
        for reply in (queue.ask("SD-1", holder), queue.complete("SD-1", holder)):
            details = refused(reply, 409, "item_completed")["details"]
            assert details["completed_by"] == session["session_id"]
        refused(queue.release("SD-1", holder), 409, "not_holder")
    assert queue.next(other) is None
    assert stored() == before
    api.fail(session["session_id"])
    assert queue.item("SD-1")["status"] == "completed"
    successor = ok(api.recover(session["session_id"], name("machine")), 201)
    assert "lost_items" not in successor


def test_completing_under_a_fence(api: Api, queue: Queue, past: Past) -> None:
    """Given "done" with a fence, then only the present one will do."""
    session = api.session()
    fence = queue.claim("SD-1", session)["fence"]
    refused(queue.complete("SD-1", session, fence=fence + 1), 409, "stale_fence")
    assert queue.item("SD-1")["status"] == "claimed"
    ok(queue.complete("SD-1", session, fence=fence))


def test_an_instance_completes_what_it_holds(queue: Queue, fleet: Fleet) -> None:
    """Given an instance as holder, then it shows as active_instance_id until it is done."""
    agent = fleet.register()
    queue.claim("SD-1", agent)
    item = queue.item("SD-1")
    assert (item["active_instance_id"], item["active_session_id"]) == (agent["instance_id"], None)
    assert item["is_working_on"] is True
    assert ok(queue.complete("SD-1", agent))["completed_by"] == agent["instance_id"]
    queue.assert_agrees(agent)
