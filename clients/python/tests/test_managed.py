"""Instances, claims and endings of what looks after itself."""

from __future__ import annotations

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client, Conflict, HoldfastError, Unreachable
from tests.acceptance.serving import Api, Json, ok
from tests.support.proxy import HttpWire
from tests.support.waiting import eventually


def events_of(api: Api, instance_id: str | None) -> list[Json]:
    """All that is recorded of an instance but its heartbeats."""
    found = ok(api.get(f"/api/instances/{instance_id}/events"))["events"]
    return [event for event in found if event["event_type"] != "instance_heartbeat"]


def test_an_instance_registers_beats_records_and_closes(client: Client, api: Api) -> None:
    with client.instance("odin", "MS", tags=["night"]) as agent:
        agent.emit("epic_started", epic_id="epic-003")
        agent.checkpoint("half way", {"file": "parser.py"})
        agent.say(context_percent=64)
        agent.heartbeats.force()
        with agent.session("laptop") as session:
            opened = api.get_session(str(session.id))
        during = client.instances.get(str(agent.id))

    assert agent.id is not None
    assert agent.id.startswith("odin-MS-")
    assert (opened["instance_id"], opened["project_id"]) == (agent.id, "odin")
    assert (during["status"], during["context_percent"]) == ("active", 64)
    assert (during["tags"], bool(during["hostname"])) == (["night"], True)
    assert [event["event_type"] for event in events_of(api, agent.id)] == [
        "instance_registered",
        "epic_started",
        "checkpoint_created",
        "session_joined",
        "session_left",
        "instance_closed",
    ]


def test_an_instance_that_fails_says_why_and_is_closed(client: Client, api: Api) -> None:
    with pytest.raises(ValueError, match="no idea"), client.instance("odin") as agent:
        raise ValueError("no idea")

    *_, why, closed = events_of(api, agent.id)
    assert why["event_data"]["error"] == "ValueError: no idea"
    assert closed["event_type"] == "instance_closed"


def test_a_session_claims_works_and_gives_back(client: Client) -> None:
    client.work_items.put("parser", priority=2)
    client.work_items.put("lexer", priority=1)
    with client.session("odin", "laptop") as one, client.session("odin", "desktop") as other:
        first = one.claim_next()
        with pytest.raises(Conflict) as held:
            other.claim("parser")
        one.complete_item("parser")
        second = other.claim("lexer")
        other.release("lexer")
        free = client.claims.get("lexer")

    assert first is not None
    assert (first["item_id"], first["session_id"]) == ("parser", one.id)
    assert held.value.code == "claim_held"
    assert held.value.details["claimed_by"] == one.id
    assert held.value.details["hostname"] == first["hostname"]
    assert client.work_items.get("parser")["status"] == "completed"
    assert second["fence"] >= 1
    assert free["holder"] is None


def test_what_a_session_held_is_free_when_it_ends(client: Client) -> None:
    with client.session("odin") as session:
        session.claim("parser")

    assert client.claims.get("parser")["holder"] is None
    assert client.claims.list()["claims"] == []


def test_without_work_to_do_nothing_is_claimed(client: Client) -> None:
    with client.session("odin") as session:
        assert session.claim_next() is None


def test_a_session_learns_that_it_was_superseded(client: Client, api: Api) -> None:
    told: list[str] = []
    with client.session(
        "odin", "laptop", interval=600, on_ended=lambda _, error: told.append(error.code)
    ) as session:
        eventually(lambda: session.heartbeats.stats().beats == 1)
        api.stall(str(session.id))
        api.session(project_id="odin", machine_id="laptop")
        session.heartbeats.force()
        assert session.ended is not None

    assert told == [session.ended.code] == ["superseded"]


def test_a_session_that_the_service_refuses_later_learns_that_it_is_not_recorded(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    """It began while the service was away, and its place was taken when that was back."""
    told: list[str] = []
    lenient = connect(wire.url, lenient=True)
    wire.down()
    with lenient.session(
        "odin", "laptop", interval=0.05, on_ended=lambda _, error: told.append(error.code)
    ) as session:
        api.session(project_id="odin", machine_id="laptop")
        wire.up()
        eventually(lambda: session.ended)
        assert not session.heartbeats.is_active()

    assert told == ["belongs_to_nothing_recorded"]


def test_a_strict_client_does_not_begin_what_cannot_be_recorded(
    connect: Connect, wire: HttpWire
) -> None:
    wire.down()
    begun = False
    with pytest.raises(Unreachable), connect(wire.url, retries=0).session("odin"):
        begun = True

    assert not begun


def test_even_a_strict_client_keeps_a_final_report(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    client = connect(wire.url)
    with client.session("odin") as session:
        wire.down()
    wire.up()
    assert client.flush()

    assert api.get_session(str(session.id))["status"] == "completed"


def test_a_final_report_that_is_refused_does_not_fail_the_work(
    client: Client, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    with client.session("odin") as session:
        api.fail(str(session.id))

    assert "session_ended" in caplog.text or "invalid_transition" in caplog.text


def test_work_goes_on_unrecorded_where_the_place_is_taken(connect: Connect, api: Api) -> None:
    """Lenient: nothing of it is recorded, and nothing claims to hold anything."""
    api.session(project_id="odin", machine_id="laptop")
    worked = []
    with connect(lenient=True).session("odin", "laptop") as session:
        with session.task("write the parser"):
            worked.append(session.id)
        with pytest.raises(HoldfastError, match="not recorded"):
            session.claim("parser")

    assert worked == [None]
    assert ok(api.get("/api/tasks"))["tasks"] == []
    assert ok(api.get("/api/sessions"))["total_count"] == 1
