"""A queue that people tidy: chains, reopening, cancelling, removing, taking over (21, 23)."""

from __future__ import annotations

import random
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.conftest import Start
from tests.acceptance.past import Past
from tests.acceptance.queue import Queue, who
from tests.acceptance.serving import Api, Json, Server, cloned, gone, invalid, name, ok, refused

LONG_AGO = timedelta(seconds=400)


@pytest.fixture
def queue(api: Api) -> Queue:
    """The test's own queue."""
    return Queue(api)


def reopen(queue: Queue, item: str, reason: str = "It was not done well.") -> Json:
    return ok(queue.api.post(f"/api/work-items/{item}/reopen", json={"reason": reason}))


def cancel(queue: Queue, item: str, **body: object) -> Json:
    return ok(queue.api.post(f"/api/work-items/{item}/cancel", json=body))


def remove(queue: Queue, item: str) -> None:
    gone(queue.api.delete(f"/api/work-items/{item}"))


def done(queue: Queue, item: str, holder: Json) -> Json:
    queue.claim(item, holder)
    return ok(queue.complete(item, holder))


# Chains (21)


def chain(length: int) -> list[tuple[str, list[str]]]:
    """Items of which each waits for the one before it."""
    first: list[tuple[str, list[str]]] = [("link-0", [])]
    return first + [(f"link-{n}", [f"link-{n - 1}"]) for n in range(1, length)]


@pytest.mark.parametrize("order", ["forwards", "backwards", "mixed"])
def test_a_long_chain_is_taken_in_every_order_and_its_circle_is_refused(
    queue: Queue, order: str
) -> None:
    links = chain(150)
    if order == "backwards":
        links.reverse()
    if order == "mixed":
        random.Random(21).shuffle(links)
    for item, waits_for in links:
        queue.add(item, depends_on=waits_for)

    for last in ("link-149", "link-100", "link-1"):
        body = refused(queue.offer("link-0", depends_on=[last]), 400, "dependency_cycle")
        cycle = body["details"]["cycle"]
        assert (cycle[0], cycle[-1], cycle[1]) == ("link-0", "link-0", last)
    assert queue.item("link-0")["depends_on"] == []


def test_a_chain_that_is_done_so_far_goes_on_for_ever(queue: Queue) -> None:
    holder = queue.api.session()
    for item, waits_for in chain(80):
        queue.add(item, depends_on=waits_for)
        done(queue, item, holder)

    queue.add("next", depends_on=["link-79"])
    assert queue.item("next")["blocked_by"] == []


def test_only_what_is_still_to_do_counts_as_a_dependency(queue: Queue) -> None:
    holder = queue.api.session()
    ready = [f"done-{n}" for n in range(30)]
    for item in ready:
        done(queue, item, holder)
    to_do = [f"open-{n}" for n in range(100)]

    whole = queue.add("all", depends_on=[*ready, *to_do])
    assert whole["blocked_by"] == sorted(to_do)
    invalid(queue.offer("more", depends_on=[*ready, *to_do, "one more"]), "depends_on")


def test_a_chain_that_no_process_has_in_memory_is_read_at_once(
    cluster: EmbeddedPostgres, template: str, start: Start
) -> None:
    with cloned(cluster, template) as url:
        with start(url) as server, server.default() as api:
            for item, waits_for in reversed(chain(150)):
                Queue(api).add(item, depends_on=waits_for)
        with start(url) as server, server.default() as api:
            queue = Queue(api)
            refused(queue.offer("link-0", depends_on=["link-149"]), 400, "dependency_cycle")
            queue.add("after", depends_on=["link-149"])


# Reopening


@pytest.mark.parametrize("how", ["completed", "cancelled"])
def test_what_is_over_can_be_done_again(queue: Queue, how: str) -> None:
    holder = queue.api.session()
    queue.add("after", depends_on=["first"])
    if how == "completed":
        done(queue, "first", holder)
    else:
        queue.add("first")
        cancel(queue, "first")
    assert queue.item("after")["blocked_by"] == []

    opened = reopen(queue, "first", "The tests are red again.")

    assert opened == queue.item("first")
    assert (opened["status"], opened["completed_at"], opened["completed_by"]) == (
        "open",
        None,
        None,
    )
    assert (opened["cancelled_at"], opened["status_reason"]) == (None, "The tests are red again.")
    assert queue.item("after")["blocked_by"] == ["first"]
    refused(queue.ask("after", holder), 409, "blocked_by_dependencies")
    assert queue.next(holder) == "first"
    assert ok(queue.complete("first", holder))["status"] == "completed"


def test_what_is_not_over_cannot_be_reopened(queue: Queue) -> None:
    queue.add("open")
    queue.claim("held", queue.api.session())
    for item in ("open", "held"):
        reply = queue.api.post(f"/api/work-items/{item}/reopen", json={"reason": "why not"})
        refused(reply, 409, "invalid_transition")
    reply = queue.api.post("/api/work-items/unknown/reopen", json={"reason": "x"})
    refused(reply, 404, "work_item_not_found")
    invalid(queue.api.post("/api/work-items/open/reopen", json={}), "reason")
    invalid(queue.api.post("/api/work-items/open/reopen", json={"reason": " "}), "reason")


def test_reopening_makes_no_circle(queue: Queue) -> None:
    holder = queue.api.session()
    queue.add("a")
    done(queue, "a", holder)
    queue.add("b", depends_on=["a"])
    refused(queue.offer("a", depends_on=["b"]), 400, "dependency_cycle")
    queue.add("c")
    queue.add("d", depends_on=["c"])
    done(queue, "c", holder)
    done(queue, "d", holder)
    # d waits for nothing any more, so c may come after it; both are not to be done again.
    assert ok(queue.offer("c", depends_on=["d"]))["depends_on"] == ["d"]
    reopen(queue, "c")
    reply = queue.api.post("/api/work-items/d/reopen", json={"reason": "again"})
    refused(reply, 400, "dependency_cycle")


# Cancelling


def test_what_waits_for_a_cancelled_item_waits_no_longer(queue: Queue) -> None:
    """Given an item that waits for two, when both are settled, one cancelled, then it is ready."""
    holder = queue.api.session()
    queue.add("dropped", priority=9)
    queue.add("made", priority=8)
    queue.add("after", depends_on=["dropped", "made"], priority=10)

    item = cancel(queue, "dropped", reason="Nobody wants it.")

    assert item == queue.item("dropped")
    assert (item["status"], item["status_reason"]) == ("cancelled", "Nobody wants it.")
    assert item["cancelled_at"] is not None
    assert queue.item("after")["blocked_by"] == ["made"]
    done(queue, "made", holder)
    assert [queue.next(holder), queue.next(holder)] == ["after", None]
    refused(queue.ask("dropped", holder), 409, "item_cancelled")
    assert [i["item_id"] for i in queue.items(status="cancelled")] == ["dropped"]


def test_the_holder_of_a_cancelled_item_finds_out(queue: Queue) -> None:
    holder = queue.api.session()
    fence = queue.claim("SD-1", holder)["fence"]

    assert cancel(queue, "SD-1")["is_working_on"] is False

    refused(queue.verify("SD-1", fence), 409, "stale_fence")
    refused(queue.complete("SD-1", holder, fence=fence), 409, "item_cancelled")
    queue.assert_agrees(holder)
    [lost] = queue.api.beat(holder["session_id"])["lost_claims"]
    assert (lost["item_id"], lost["fence"], lost["taken_by"]) == ("SD-1", fence, None)
    assert lost["reason"] == "cancelled"
    assert "lost_claims" not in queue.api.beat(holder["session_id"])


def test_on_behalf_of_a_holder_only_its_own_item_is_cancelled(queue: Queue) -> None:
    holder, other = queue.api.session(), queue.api.session()
    fence = queue.claim("SD-1", holder)["fence"]
    path = "/api/work-items/SD-1/cancel"

    refused(queue.api.post(path, json=who(other)), 409, "not_holder")
    refused(queue.api.post(path, json={**who(holder), "fence": fence + 1}), 409, "stale_fence")
    assert cancel(queue, "SD-1", **who(holder), fence=fence)["status"] == "cancelled"
    assert "lost_claims" not in queue.api.beat(holder["session_id"])
    queue.assert_agrees(holder, other)


def test_cancelling_again_changes_nothing_and_what_is_done_stays_done(queue: Queue) -> None:
    queue.add("a")
    assert cancel(queue, "a") == cancel(queue, "a", reason="again")
    done(queue, "b", queue.api.session())
    refused(queue.api.post("/api/work-items/b/cancel", json={}), 409, "item_completed")
    refused(queue.api.post("/api/work-items/c/cancel", json={}), 404, "work_item_not_found")


# Removing


def test_a_removed_item_is_gone_and_can_be_listed_anew(queue: Queue) -> None:
    holder = queue.api.session()
    queue.add("after", depends_on=["SD-1"])
    queue.add("SD-1", title="wrong", priority=3)
    old = queue.claim("SD-1", holder)["fence"]
    ok(queue.release("SD-1", holder))

    remove(queue, "SD-1")

    for reply in (
        queue.api.get("/api/work-items/SD-1"),
        queue.api.delete("/api/work-items/SD-1"),
        queue.complete("SD-1", holder),
    ):
        refused(reply, 404, "work_item_not_found")
    refused(queue.api.get("/api/claims/SD-1"), 404, "claim_not_found")
    refused(queue.verify("SD-1", old), 404, "claim_not_found")
    assert [item["item_id"] for item in queue.items()] == ["after"]
    # Nothing is held up for ever by what nobody can do.
    assert queue.item("after")["blocked_by"] == []

    again = queue.add("SD-1")
    assert (again["title"], again["priority"], again["fence"]) == (None, 0, None)
    assert again == queue.item("SD-1")
    assert queue.item("after")["blocked_by"] == ["SD-1"]
    assert queue.claim("SD-1", holder)["fence"] > old


def test_a_held_item_is_not_removed(queue: Queue) -> None:
    holder = queue.api.session()
    queue.claim("SD-1", holder)

    details = refused(queue.api.delete("/api/work-items/SD-1"), 409, "claim_held")["details"]

    assert details["claimed_by"] == holder["session_id"]
    cancel(queue, "SD-1")
    remove(queue, "SD-1")
    assert queue.claim("SD-1", holder)["title"] is None


def test_a_recovered_session_does_not_get_back_what_was_removed_or_cancelled(queue: Queue) -> None:
    session = queue.api.session()
    for item in ("kept", "removed", "cancelled"):
        queue.claim(item, session)
    queue.api.fail(session["session_id"])
    remove(queue, "removed")
    cancel(queue, "cancelled")

    successor = ok(queue.api.recover(session["session_id"], name("machine")), 201)

    assert [claim["item_id"] for claim in queue.claims()] == ["kept"]
    lost = {item["item_id"]: item["status"] for item in successor["lost_items"]}
    assert lost == {"removed": "removed", "cancelled": "cancelled"}


def test_the_past_of_an_item_tells_all_of_it(queue: Queue) -> None:
    holder = queue.api.session()
    done(queue, "SD-1", holder)
    reopen(queue, "SD-1")
    cancel(queue, "SD-1")
    remove(queue, "SD-1")

    events = ok(queue.api.get("/api/streams/claim-SD-1/events"))["events"]
    assert [event["event_type"] for event in events if "work_item" in event["event_type"]] == [
        "work_item_listed",
        "work_item_completed",
        "work_item_reopened",
        "work_item_cancelled",
        "work_item_removed",
    ]


# The next one, from the silent too


def test_the_next_item_may_be_one_that_a_silent_holder_left(queue: Queue, past: Past) -> None:
    silent = past.session(LONG_AGO, items=["left", "blocked", "top"])
    busy = queue.api.session()
    queue.claim("busy", busy)
    queue.add("open", priority=1)
    ok(queue.offer("top", priority=5))
    ok(queue.offer("blocked", priority=9, depends_on=["open"]))
    me = queue.api.session()

    assert queue.next(me) == "open"
    ok(queue.release("open", me))
    taken = [queue.next(me, takeover=True) for _ in range(4)]
    assert taken == ["top", "open", "left", None]
    ok(queue.complete("open", me))
    assert queue.next(me) is None
    assert queue.next(me, takeover=True) == "blocked"
    lost = queue.api.beat(silent["session_id"])["lost_claims"]
    assert {claim["item_id"] for claim in lost} == {"left", "blocked", "top"}
    assert {claim["taken_by"] for claim in lost} == {me["session_id"]}


def test_two_never_get_the_same_of_what_was_left(queue: Queue, past: Past, server: Server) -> None:
    items = [f"left-{n}" for n in range(12)]
    past.session(LONG_AGO, items=items)
    holders = [queue.api.session() for _ in range(16)]

    def take(holder: Json) -> str | None:
        with Api(server.url, queue.api.key, queue.api.namespace) as client:
            return Queue(client).next(holder, takeover=True)

    with ThreadPoolExecutor(8) as pool:
        taken = list(pool.map(take, holders))
    assert sorted(item for item in taken if item) == sorted(items)
    assert taken.count(None) == 4


def test_a_track_bounds_what_is_taken_over(queue: Queue, past: Past) -> None:
    past.session(LONG_AGO, items=["a", "b"])
    ok(queue.offer("b", track="core"))
    me = queue.api.session()

    assert [queue.next(me, takeover=True, track="core") for _ in range(2)] == ["b", None]
    invalid(
        queue.api.post("/api/work-items/claim-next", json={**who(me), "takeover": "yes"}),
        "takeover",
    )


# What came to wait while it was held


def test_a_completion_names_what_it_should_have_waited_for(queue: Queue) -> None:
    holder = queue.api.session()
    queue.claim("SD-1", holder)
    queue.add("late")
    done(queue, "early", holder)
    ok(queue.offer("SD-1", depends_on=["late", "early", "not listed"]))

    reply = ok(queue.complete("SD-1", holder))

    assert reply["status"] == "completed"
    assert reply["open_dependencies"] == ["late", "not listed"]
    assert done(queue, "late", holder)["open_dependencies"] == []
