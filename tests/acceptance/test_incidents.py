"""What went wrong elsewhere and must not go wrong here, each incident by its name.

The final report that is lost while the service is away (multica 4578, 8529) is the client's to
keep: clients/python/tests/test_outage.py. Projections that skip events are tested below the API
as well, in tests/integration/test_event_store.py (test_positions_have_no_gaps_and_appear_in_order)
and tests/integration/test_projector.py.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.past import Past
from tests.acceptance.queue import Holder, Queue, who
from tests.acceptance.serving import Api, Json, Server, gone, name, ok, position, refused

LONG_AGO = timedelta(hours=6)


@pytest.fixture
def queue(api: Api) -> Queue:
    return Queue(api)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


def test_one_item_is_won_once_by_many_callers_of_two_processes(database: str, start: Start) -> None:
    """Beads 4657: several callers win at once. Given two processes of the service, one wins."""
    with start(database) as one, start(database) as two, one.default() as api:
        sessions = [api.session() for _ in range(16)]

        def ask(number: int) -> httpx.Response:
            with (one, two)[number % 2].default() as client:
                return Queue(client).ask("the one", sessions[number])

        with ThreadPoolExecutor(16) as pool:
            replies = list(pool.map(ask, range(16)))
        (won,) = (reply.json() for reply in replies if reply.status_code == 201)
        for reply in replies:
            if reply.status_code != 201:
                details = refused(reply, 409, "claim_held")["details"]
                assert (details["claimed_by"], details["fence"]) == (won["holder"], won["fence"])
        with two.default() as client:
            Queue(client).assert_agrees(*sessions)


def test_a_claim_has_no_timer_of_its_own(api: Api, queue: Queue, past: Past) -> None:
    """Beads 5681, hermes 21147: a lease detached from liveness, whose timer nobody renews.

    Given a claim of six hours whose holder beats and does nothing else, then it stays; once the
    holder falls silent it can be taken over, and nothing else had to run out first.
    """
    alive = past.session(LONG_AGO, items=["a"])
    silent = past.session(LONG_AGO, items=["b"])
    api.beat(alive["session_id"])
    claim = queue.get_claim("a")
    assert not [field for field in claim if "expire" in field or "lease" in field]
    other = api.session()
    refused(queue.ask("a", other, takeover=True), 409, "claim_held")
    assert queue.claim("b", other, takeover=True)["taken_from"] == silent["session_id"]
    assert queue.get_claim("a")["holder"] == alive["session_id"]


def test_a_long_tool_call_keeps_its_claim_while_its_worker_beats(
    api: Api, queue: Queue, past: Past, fleet: Fleet
) -> None:
    """Hermes 25517: a long tool call is reclaimed while its worker lives.

    Given workers that have only beaten for six hours, then neither a sweep nor a takeover nor
    claim-next takes their items, and their fences are good.
    """
    session = past.session(LONG_AGO, items=["a"])
    agent = {"instance_id": fleet.silent(LONG_AGO, "00beef", items=["b"])}
    fences = {item: queue.get_claim(item)["fence"] for item in ("a", "b")}
    api.beat(session["session_id"])
    fleet.beat(agent["instance_id"], activity="working")
    ok(api.post("/api/sessions/detect-failures"))
    other = api.session()
    for item, fence in fences.items():
        refused(queue.ask(item, other, takeover=True), 409, "claim_held")
        ok(queue.verify(item, fence))
    assert queue.next(other) is None
    ok(queue.complete("a", session, fence=fences["a"]))
    ok(queue.complete("b", agent, fence=fences["b"]))


@pytest.mark.parametrize("how", ["free", "released", "taken over"])
def test_a_fresh_claim_does_not_inherit_an_old_heartbeat(
    api: Api, queue: Queue, past: Past, how: str
) -> None:
    """Hermes 119155: a fresh claim inherits an old heartbeat, and a live worker is killed.

    Given a claimer whose own last beat is six hours old, then right after its claim nobody can
    take it over, whatever was with the item before.
    """
    claimer = past.session(LONG_AGO)
    if how != "free":
        before = past.session(LONG_AGO, items=["a"])
        if how == "released":
            ok(queue.release("a", before))
    queue.claim("a", claimer, takeover=True)
    details = refused(queue.ask("a", api.session(), takeover=True), 409, "claim_held")["details"]
    assert details["heartbeat_age_seconds"] >= LONG_AGO.total_seconds()
    assert (details["stale"], queue.item("a")["stale"]) == (False, False)
    assert details["seconds_until_takeover"] > 290
    assert "lost_claims" not in api.beat(claimer["session_id"])


def test_an_old_done_does_not_end_the_new_holder_s_work(api: Api, queue: Queue, past: Past) -> None:
    """Gastown 909: an old "done" ends the new session. After a takeover it is refused."""
    old, new = past.session(LONG_AGO, items=["a"]), api.session()
    fence = queue.get_claim("a")["fence"]
    queue.claim("a", new, takeover=True)
    before = api.get_session(new["session_id"]), queue.get_claim("a")["fence"]
    refused(queue.complete("a", old), 409, "not_holder")
    refused(queue.complete("a", old, fence=fence), 409, "not_holder")
    refused(queue.complete("a", new, fence=fence), 409, "stale_fence")
    refused(queue.release("a", old), 409, "not_holder")
    done: Json = {"status": "completed", "claim": {"item_id": "a", "fence": fence}}
    refused(api.patch(f"/api/sessions/{old['session_id']}", json=done), 409, "stale_fence")
    api.patch_session(old["session_id"], status="completed")
    assert (api.get_session(new["session_id"]), queue.get_claim("a")["fence"]) == before
    assert queue.item("a")["active_session_id"] == new["session_id"]


@pytest.mark.parametrize("how", ["recovered", "superseded"])
def test_an_old_done_does_not_end_the_session_that_came_after(
    api: Api, queue: Queue, past: Past, how: str
) -> None:
    """Gastown 909: given a session that another carries on, then its "done" changes nothing."""
    old = past.session(LONG_AGO, items=["a"])
    place = {field: old[field] for field in ("project_id", "machine_id")}
    if how == "recovered":
        new = ok(api.recover(old["session_id"], name("machine")), 201)
    else:
        new = api.session(**place)
        queue.claim("a", new)
    before = api.get_session(new["session_id"])
    code = "session_ended" if how == "recovered" else "superseded"
    path = f"/api/sessions/{old['session_id']}"
    refused(api.patch(path, json={"status": "completed"}), 409, code)
    refused(api.post(f"{path}/heartbeat"), 409, code)
    refused(queue.complete("a", old), 409, code)
    assert api.get_session(new["session_id"]) == before
    assert queue.item("a")["active_session_id"] == new["session_id"]


def test_what_the_dead_have_locked_is_free_without_anyone_s_sql(
    api: Api, queue: Queue, past: Past, fleet: Fleet
) -> None:
    """Paperclip 2912: locks left by the dead, 69 of them removed by hand in SQL.

    Given holders that died in every way, then each item can be had over the API: at once from
    those that ended, by a takeover from those that only fell silent.
    """
    dead = {way: api.session() for way in ("completed", "failed", "deleted")}
    for way, session in dead.items():
        queue.claim(way, session)
    agent = fleet.register()
    queue.claim("closed", agent)
    past.session(LONG_AGO, items=["vanished"])
    fleet.silent(LONG_AGO, "00dead", items=["gone silent"])
    api.patch_session(dead["completed"]["session_id"], status="completed")
    api.fail(dead["failed"]["session_id"])
    gone(api.delete(f"/api/sessions/{dead['deleted']['session_id']}"))
    fleet.close(agent["instance_id"])
    living = api.session()
    for item in (*dead, "closed"):
        queue.claim(item, living)
    for item in ("vanished", "gone silent"):
        refused(queue.ask(item, living), 409, "claim_held")
        queue.claim(item, living, takeover=True)
    assert {claim["holder"] for claim in queue.claims()} == {living["session_id"]}
    assert len(queue.claims()) == 6


def test_no_read_skips_what_was_acknowledged(server: Server, api: Api, queue: Queue) -> None:
    """Marten 4952, 4977: asynchronous projections skip events at gaps in the sequence.

    Given writers at once, half of whose commands are refused and leave nothing, then positions
    have no gaps, and every read has what was acknowledged before it.
    """
    sessions = [api.session() for _ in range(8)]

    def work(session: Holder) -> list[int]:
        positions = []
        with Api(server.url, api.key, api.namespace) as client:
            mine = Queue(client)
            for number in range(8):
                reply = mine.ask(f"item-{number}", session)
                if reply.status_code == 201:
                    positions.append(position(reply))
                    assert mine.get_claim(f"item-{number}")["holder"] == reply.json()["holder"]
                else:
                    refused(reply, 409, "claim_held")
        return positions

    with ThreadPoolExecutor(8) as pool:
        acknowledged = [p for positions in pool.map(work, sessions) for p in positions]
    events = ok(api.get("/api/events", params={"limit": 1000}))["events"]
    assert [event["position"] for event in events] == list(range(1, len(events) + 1))
    assert len(acknowledged) == 8
    assert set(acknowledged) <= {event["position"] for event in events}
    queue.assert_agrees(*sessions)


def test_a_worker_that_carries_on_knows_what_was_going_on(api: Api, queue: Queue) -> None:
    """Hermes 75830: a resumed worker with amnesia.

    Given a session that broke off, then recovery-state tells what it did, had and failed at, and
    its successor has the goal, the open tasks and the items.
    """
    session = api.session(metadata={"goal": "moon", "checkpoint": {"step": 7}})
    tasks = {
        status: api.task(session, status, task_name=f"the {status} one")
        for status in ("completed", "failed", "in_progress", "pending")
    }
    queue.claim("engine", session)
    api.fail(session["session_id"], "out of memory")
    state = ok(api.get(f"/api/sessions/{session['session_id']}/recovery-state"))
    assert state["checkpoint"] == {"step": 7}
    assert state["last_successful_task"]["task_id"] == tasks["completed"]["task_id"]
    for word in ("out of memory", "the completed one", "the in_progress one", "engine"):
        assert word in state["brief"]
    successor = ok(api.recover(session["session_id"], name("machine")), 201)
    assert successor["metadata"]["goal"] == "moon"
    assert successor["metadata"]["checkpoint"] == {"step": 7}
    assert {task["carried_from"] for task in api.tasks_of(successor)} == {
        tasks[status]["task_id"] for status in ("failed", "in_progress", "pending")
    }
    assert [claim["item_id"] for claim in queue.claims(**who(successor))] == ["engine"]


def test_an_agent_that_carries_on_knows_what_was_going_on(queue: Queue, fleet: Fleet) -> None:
    """Hermes 75830: given a silent agent, then who resumes it has its checkpoint, epic and items.

    What else the brief tells: test_spec_7_resume.py.
    """
    agent = fleet.silent(LONG_AGO, "00feed", items=["engine"])
    fleet.emit(agent, "epic_started", {"epic_id": "epic-003"})
    checkpoint = {"label": "half-way", "state": {"step": 7}}
    ok(queue.api.post(f"/api/instances/{agent}/checkpoints", json=checkpoint), 201)
    resumed = ok(queue.api.post(f"/api/instances/{agent}/resume"), 201)
    assert resumed["stale_warning"]
    assert resumed["last_epic"] == "epic-003"
    assert resumed["checkpoint"]["state"] == {"step": 7}
    assert [claim["item_id"] for claim in resumed["held_claims"]] == ["engine"]
    state = fleet.replay(resumed["successor"])["final_state"]
    assert state["checkpoint_state"] == {"step": 7}
    assert queue.get_claim("engine")["holder"] == resumed["successor"]
