"""S3: the functional requirements of multi-session coordination, over HTTP."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import psycopg
import pytest

from tests.acceptance.fleet import Fleet
from tests.acceptance.past import Past
from tests.acceptance.queue import Holder, Queue, who
from tests.acceptance.serving import Api, Server, name, ok, refused

OWNER = {
    "claimed_by",
    "holder_kind",
    "heartbeat_age_seconds",
    "heartbeat_age_human",
    "hostname",
    "tty",
    "codebase",
    "claimed_at",
    "claim_duration_minutes",
    "fence",
    "stale",
    "seconds_until_takeover",
}


@pytest.fixture
def queue(api: Api) -> Queue:
    return Queue(api)


# FR-1: one active claim, enforced by the database


def test_a_second_claim_is_refused(api: Api, queue: Queue) -> None:
    """S3 FR-1 Given a claimed item, then nobody else gets it, session or instance."""
    first = api.session()
    queue.claim("SD-1", first)
    others: list[Holder] = [api.session(), Fleet(api, "").register()]
    for other in others:
        refused(queue.ask("SD-1", other), 409, "claim_held")
    assert queue.get_claim("SD-1")["holder"] == first["session_id"]
    queue.assert_agrees(first, *others)


@pytest.mark.parametrize("known", [True, False])
def test_of_fifty_who_claim_at_once_one_wins(
    server: Server, api: Api, queue: Queue, known: bool
) -> None:
    """S3 FR-1 Given fifty claims at once, then one is 201 and 49 name the winner."""
    if known:
        queue.add("SD-1")
    sessions = [api.session() for _ in range(50)]

    def ask(session: Holder) -> httpx.Response:
        with Api(server.url, api.key, api.namespace) as client:
            return Queue(client).ask("SD-1", session)

    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(ask, sessions))
    (winner,) = (reply.json() for reply in replies if reply.status_code == 201)
    for reply in replies:
        if reply.status_code != 201:
            body = refused(reply, 409, "claim_held")
            assert body["details"]["claimed_by"] == winner["holder"]
    queue.assert_agrees(*sessions)


def test_the_database_itself_refuses_a_second_grant(
    api: Api, queue: Queue, store: psycopg.Connection
) -> None:
    """S3 FR-1 Given a writer that believes the item free, then the claim's stream refuses it."""
    queue.claim("SD-1", api.session())
    copy = (
        "INSERT INTO event_store SELECT (e).* FROM (SELECT jsonb_populate_record(s,"
        " jsonb_build_object('position', s.position + 100, 'event_id', gen_random_uuid())) AS e"
        " FROM event_store s WHERE namespace = %s AND stream_id = 'claim-SD-1'"
        " AND event_type = 'claim_granted') AS copied"
    )
    with pytest.raises(psycopg.errors.UniqueViolation) as refusal:
        store.execute(copy, [api.namespace])
    assert refusal.value.diag.constraint_name == "event_store_pkey"


def test_a_released_item_can_be_claimed_again(api: Api, queue: Queue) -> None:
    """S3 FR-1 Given a release, then the next claimer gets the item, with a higher fence."""
    first, second = api.session(), api.session()
    before = queue.claim("SD-1", first)["fence"]
    ok(queue.release("SD-1", first))
    assert queue.claim("SD-1", second)["fence"] > before


# FR-2: owner details in the rejection


def test_a_rejection_tells_all_about_the_owner(api: Api, queue: Queue) -> None:
    """S3 FR-2 Given a claimed item, then the 409 says who has it, where, and how they are."""
    owner = api.session(hostname="dev-machine", tty="win-1234", codebase="/src/odin")
    granted = queue.claim("SD-LEO-001", owner)
    body = refused(queue.ask("SD-LEO-001", api.session()), 409, "claim_held")
    details = body["details"]
    assert set(details) >= OWNER
    told = {field: details[field] for field in ("hostname", "tty", "codebase", "holder_kind")}
    assert told == {
        "hostname": "dev-machine",
        "tty": "win-1234",
        "codebase": "/src/odin",
        "holder_kind": "session",
    }
    assert details["claimed_by"] == owner["session_id"]
    assert (details["claimed_at"], details["fence"]) == (granted["claimed_at"], granted["fence"])
    assert details["heartbeat_age_human"].endswith("s ago")
    assert 0 <= details["claim_duration_minutes"] < 1
    assert details["stale"] is False
    assert 0 < details["seconds_until_takeover"] <= 300
    assert owner["session_id"] in body["message"]
    assert "SD-LEO-001" in body["message"]


def test_a_claim_may_say_where_its_holder_is(api: Api, queue: Queue) -> None:
    """S3 FR-2 Given a claim with hostname, tty and codebase, then these are told, not the older."""
    owner = api.session(hostname="old", tty="tty-0", codebase="/old")
    said = {"hostname": "new", "codebase": "/new"}
    granted = queue.claim("SD-1", owner, **said)
    details = refused(queue.ask("SD-1", api.session()), 409, "claim_held")["details"]
    for told in (granted, details, queue.get_claim("SD-1"), queue.item("SD-1")):
        assert {key: told[key] for key in said} == said
        assert told["tty"] == "tty-0"


def test_an_owner_that_never_named_its_host_is_known_by_its_machine(api: Api, queue: Queue) -> None:
    """S3 FR-2 Given a session without a hostname, then whoever is refused learns its machine."""
    queue.claim("SD-1", api.session(machine_id="rack-7"))
    details = refused(queue.ask("SD-1", api.session()), 409, "claim_held")["details"]
    assert details["hostname"] == "rack-7"


def test_a_rejection_tells_of_an_owner_that_fell_silent(api: Api, queue: Queue, past: Past) -> None:
    """S3 FR-2 Given an owner that was not heard of for six minutes, then the 409 says so."""
    owner = past.session(timedelta(minutes=6), items=["SD-1"])
    details = refused(queue.ask("SD-1", api.session()), 409, "claim_held")["details"]
    assert details["claimed_by"] == owner["session_id"]
    assert details["heartbeat_age_human"] == "6m ago"
    assert details["heartbeat_age_seconds"] >= 360
    assert details["claim_duration_minutes"] >= 6
    assert (details["stale"], details["seconds_until_takeover"]) == (True, 0)


def test_an_instance_is_an_owner_too(server: Server, api: Api, queue: Queue) -> None:
    """S3 FR-2 Given an instance that holds an item, then its details are told in the same way."""
    owner = Fleet(api, server.database_url).register(hostname="rack-7", tty="pts/3", codebase="/r")
    queue.claim("SD-1", owner)
    details = refused(queue.ask("SD-1", api.session()), 409, "claim_held")["details"]
    assert set(details) >= OWNER
    assert (details["claimed_by"], details["holder_kind"]) == (owner["instance_id"], "instance")
    assert (details["hostname"], details["tty"], details["codebase"]) == ("rack-7", "pts/3", "/r")


# FR-3: is_working_on


def test_is_working_on_follows_the_claim(api: Api, queue: Queue) -> None:
    """S3 FR-3 On claim is_working_on is true and active_session_id set; on release neither."""
    session = api.session()
    item = queue.add("SD-1", title="One")
    assert (item["is_working_on"], item["active_session_id"]) == (False, None)
    queue.claim("SD-1", session)
    item = queue.item("SD-1")
    assert (item["is_working_on"], item["active_session_id"]) == (True, session["session_id"])
    assert item["active_instance_id"] is None
    ok(queue.release("SD-1", session))
    item = queue.item("SD-1")
    assert (item["is_working_on"], item["active_session_id"]) == (False, None)


def test_is_working_on_agrees_with_the_claims_whatever_happens(
    api: Api, queue: Queue, past: Past
) -> None:
    """S3 FR-3 After every step the queue, the claims and their holders tell the same."""
    silent = past.session(timedelta(minutes=6), items=["a", "b"])
    taker, failing, third = api.session(), api.session(), api.session()
    agent = Fleet(api, "").register()
    holders = [silent, taker, failing, third, agent]
    queue.assert_agrees(*holders)
    queue.claim("a", taker, takeover=True)
    queue.assert_agrees(*holders)
    queue.claim("c", failing)
    queue.claim("d", agent)
    queue.assert_agrees(*holders)
    api.fail(failing["session_id"])
    queue.assert_agrees(*holders)
    ok(queue.complete("a", taker))
    queue.assert_agrees(*holders)
    holders.append(ok(api.recover(failing["session_id"], name("machine")), 201))
    assert queue.item("c")["active_session_id"] == holders[-1]["session_id"]
    queue.assert_agrees(*holders)
    holders.append(ok(api.recover(silent["session_id"], name("machine")), 201))
    assert queue.item("b")["active_session_id"] == holders[-1]["session_id"]
    queue.assert_agrees(*holders)
    Fleet(api, "").close(agent["instance_id"])
    queue.assert_agrees(*holders)
    ok(queue.release("b", holders[-1]))
    queue.assert_agrees(*holders)


# FR-4: release


def test_a_release_clears_both_sides(api: Api, queue: Queue) -> None:
    """S3 FR-4 Given a release, then the claim has no holder and the session holds nothing."""
    session = api.session()
    queue.claim("SD-1", session)
    released = ok(queue.release("SD-1", session))
    assert (released["holder"], released["status"]) == (None, "open")
    assert queue.claims() == []
    (active,) = ok(api.get("/api/sessions/active"))["sessions"]
    assert (active["held_items"], active["claim_duration_minutes"]) == ([], None)
    queue.assert_agrees(session)


def test_only_the_holder_releases(api: Api, queue: Queue) -> None:
    """S3 FR-4 Given somebody else's claim, then a release is 409 with the owner, and it stays."""
    owner = api.session(hostname="rack-1")
    queue.claim("SD-1", owner)
    body = refused(queue.release("SD-1", api.session()), 409, "not_holder")
    assert body["details"]["claimed_by"] == owner["session_id"]
    assert body["details"]["hostname"] == "rack-1"
    assert queue.get_claim("SD-1")["holder"] == owner["session_id"]


# FR-5: heartbeats and stale sessions, as the service sees them


def test_the_enhanced_view_has_its_fields(api: Api, queue: Queue) -> None:
    """S3 FR-5 Given a session that holds an item, then the view has all computed fields."""
    session = api.session()
    queue.claim("SD-1", session)
    (row,) = ok(api.get("/api/sessions/active"))["sessions"]
    assert row["session_id"] == session["session_id"]
    assert row["held_items"] == ["SD-1"]
    assert row["computed_status"] == "active"
    assert row["heartbeat_age_minutes"] == row["heartbeat_age_seconds"] / 60
    assert row["heartbeat_age_human"].endswith("s ago")
    assert row["heartbeat_age_seconds"] + row["seconds_until_stale"] == pytest.approx(300)
    assert 0 <= row["claim_duration_minutes"] < 1


def test_the_age_of_claims_is_that_of_the_oldest_still_held(
    api: Api, queue: Queue, past: Past
) -> None:
    """S3 FR-5 Given an item released, then claim_duration_minutes tells of those still held."""
    session = past.session(timedelta(minutes=2), items=["old"])
    new = queue.claim("new", session)
    (row,) = ok(api.get("/api/sessions/active"))["sessions"]
    assert row["claim_duration_minutes"] >= 2
    ok(queue.release("old", session))
    (row,) = ok(api.get("/api/sessions/active"))["sessions"]
    assert (row["held_items"], row["claimed_at"]) == (["new"], new["claimed_at"])
    assert 0 <= row["claim_duration_minutes"] < 1


def test_the_computed_status_tells_how_a_session_is(api: Api, queue: Queue, past: Past) -> None:
    """S3 FR-5 active holds something, idle nothing, stale is past 300 s, released lost its place.

    Spec 17: seconds_until_stale counts to 300 and never below 0.
    """
    working, idle = api.session(), api.session()
    queue.claim("SD-1", working)
    stale = past.session(timedelta(minutes=6), items=["SD-2"])
    silent = past.session(timedelta(minutes=4), items=["SD-3"])
    superseded = past.session(timedelta(minutes=6), items=["SD-4"])
    place = {field: superseded[field] for field in ("project_id", "machine_id")}
    newcomer = api.session(**place)
    rows = {row["session_id"]: row for row in ok(api.get("/api/sessions/active"))["sessions"]}
    statuses = {session_id: row["computed_status"] for session_id, row in rows.items()}
    assert statuses == {
        working["session_id"]: "active",
        idle["session_id"]: "idle",
        stale["session_id"]: "stale",
        silent["session_id"]: "active",
        superseded["session_id"]: "released",
        newcomer["session_id"]: "idle",
    }
    assert rows[stale["session_id"]]["seconds_until_stale"] == 0
    assert rows[stale["session_id"]]["heartbeat_age_human"] == "6m ago"
    assert rows[stale["session_id"]]["claim_duration_minutes"] >= 6
    assert 0 < rows[silent["session_id"]]["seconds_until_stale"] <= 60
    assert rows[superseded["session_id"]]["held_items"] == []


def test_a_heartbeat_keeps_a_claim(api: Api, queue: Queue, past: Past) -> None:
    """S3 FR-5 Given a silent holder that beats again, then its claim cannot be taken over."""
    owner = past.session(timedelta(minutes=6), items=["SD-1"])
    api.beat(owner["session_id"])
    details = refused(queue.ask("SD-1", api.session(), takeover=True), 409, "claim_held")["details"]
    assert details["stale"] is False
    assert details["claim_duration_minutes"] >= 6
    assert queue.get_claim("SD-1")["holder"] == owner["session_id"]


# FR-6: the queue, as the display reads it


def test_the_queue_tells_who_works_on_what(api: Api, queue: Queue, past: Past) -> None:
    """S3 FR-6 Every claimed item has its owner, for how long, and the age of the heartbeat."""
    owner = past.session(timedelta(minutes=2), items=["SD-1"])
    queue.add("SD-2", title="Free", track="A", priority=5)
    free, claimed = queue.items()
    assert (free["item_id"], claimed["item_id"]) == ("SD-2", "SD-1")
    assert claimed["active_session_id"] == owner["session_id"]
    assert claimed["claim_duration_minutes"] >= 2
    assert claimed["heartbeat_age_human"] == "2m ago"
    assert claimed["heartbeat_age_seconds"] >= 120
    assert claimed["stale"] is False
    assert (free["active_session_id"], free["heartbeat_age_human"]) == (None, None)
    assert (free["title"], free["track"], free["priority"]) == ("Free", "A", 5)
    (claim,) = queue.claims(session_id=owner["session_id"])
    assert {**claim, **who(owner)} == claim
