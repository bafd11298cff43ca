"""Putting things right on the command line: reopen, cancel, remove, machines, end (23)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from holdfast import Client, Conflict
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Server, name
from tests.support.commands import Cli

NOBODY = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
def session(client: Client) -> str:
    """A session's id."""
    return client.sessions.create(name("project"), name("machine"))["session_id"]


def test_an_item_is_cancelled_reopened_and_removed(client: Client, cli: Cli, session: str) -> None:
    client.work_items.put("SD-1", title="Feature")
    assert "SD-1 is cancelled" in cli.ok("cancel", "SD-1", "--reason", "Nobody wants it.")
    assert client.work_items.get("SD-1")["status_reason"] == "Nobody wants it."
    assert "DROPPED" in cli.ok("next", "--all")
    assert "SD-1" not in cli.ok("next")
    refusal = cli("claim", "SD-1", "--session", session)
    assert (refusal.code, "cancelled" in refusal.err) == (3, True)
    assert "SD-1 is open again" in cli.ok("reopen", "SD-1", "--reason", "They do.")
    assert cli("reopen", "SD-1", "--reason", "again").code == 3
    assert cli("reopen", "SD-1").code == 2
    assert cli.json("cancel", "SD-1")["status"] == "cancelled"
    assert cli.json("remove", "SD-1") == {"item_id": "SD-1", "removed": True}
    for verb in (["remove", "SD-1"], ["cancel", "SD-1"], ["reopen", "SD-1", "--reason", "x"]):
        assert cli(*verb).code == 4


def test_a_held_item_is_not_removed(client: Client, cli: Cli, session: str) -> None:
    client.claims.take("SD-1", session_id=session)

    refusal = cli("remove", "SD-1")

    assert refusal.code == 3
    assert session in refusal.err
    assert client.claims.get("SD-1")["holder"] == session


def test_next_takes_over_what_a_silent_holder_left(
    server: Server, api: Api, client: Client, cli: Cli, session: str
) -> None:
    assert server.database_url is not None
    Past(server.database_url, api.namespace).session(timedelta(seconds=400), items=["left"])
    assert cli("claim", "--next", "--session", session).code == 4

    claimed = cli.json("claim", "--next", "--takeover", "--session", session)

    assert claimed["item_id"] == "left"
    assert client.claims.get("left")["holder"] == session
    assert cli("claim", "--next", "--takeover", "--session", session).code == 4


def test_a_completion_tells_what_it_should_have_waited_for(
    client: Client, cli: Cli, session: str
) -> None:
    client.claims.take("SD-1", session_id=session)
    client.work_items.put("SD-1", depends_on=["SD-0"])

    ended = cli("complete", "SD-1", "--session", session)

    assert ended.code == 0
    assert "SD-1 is completed" in ended.out
    assert "SD-0" in ended.err


def test_machines_are_listed_and_removed(client: Client, cli: Cli) -> None:
    assert "No machine" in cli.ok("machines")
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.machines.register("desk.example.org", [1, 2], machine_id="desktop")

    told = cli.ok("machines")
    assert "laptop" in told
    assert "desk.example.org" in told
    assert "2 machines" in told
    assert cli("machines", "remove", "laptop").code == 3
    assert "desktop is offline" in cli.ok("machines", "offline", "desktop")
    assert cli("run", "--machine", "desktop", "--", "true").code == 3
    assert cli.json("machines", "online", "desktop")["status"] == "online"
    assert "desktop is removed" in cli.ok("machines", "remove", "desktop")
    assert cli("machines", "remove", "desktop").code == 4
    client.sessions.complete(session)
    assert cli.json("machines", "remove", "laptop")["removed"] is True
    assert cli.json("machines")["total_count"] == 0
    for wrong in (["remove"], ["drop", "laptop"], ["laptop"]):
        assert cli("machines", *wrong).code == 2


def test_a_session_and_an_instance_are_ended(client: Client, cli: Cli, session: str) -> None:
    agent = client.instances.register("odin")["instance_id"]
    client.claims.take("SD-1", session_id=session)

    assert "is over" in cli.ok("end", session[:13], "--reason", "Its host was sold.")
    assert client.sessions.get(session)["status"] == "failed"
    assert client.sessions.get(session)["metadata"]["error_message"] == "Its host was sold."
    assert client.claims.get("SD-1")["holder"] is None
    assert cli("end", session).code == 3
    assert cli.json("end", agent)["status"] == "closed"
    assert cli("end", agent).code == 3
    assert cli("end", NOBODY).code == 4
    client.work_items.put("SD-2")
    assert cli("end", "SD-2").code == 2


def test_a_session_whose_place_another_has_is_ended(client: Client, cli: Cli) -> None:
    old = client.sessions.create("odin", "laptop")["session_id"]
    client.sessions.mark_stalled(old)
    client.sessions.create("odin", "laptop")
    assert cli.json("end", old)["outcome"] == "superseded"
    assert f"{old[:8]}" not in cli.ok("status")


def test_the_holder_of_a_cancelled_item_hears_of_it(client: Client) -> None:
    with client.session("odin", interval=0.1) as session:
        session.claim("SD-1")
        assert session.id is not None
        client.work_items.cancel("SD-1")
        beat = client.sessions.beat(session.id)
        told = beat.get("lost_claims") or session.lost_claims
        assert [(lost["item_id"], lost["taken_by"]) for lost in told] == [("SD-1", None)]
        with pytest.raises(Conflict) as refused:
            session.complete_item("SD-1")
        assert refused.value.code == "item_cancelled"


def test_no_session_opens_on_a_machine_that_is_away(client: Client) -> None:
    client.machines.register("h", machine_id="laptop")
    client.machines.update("laptop", status="offline")
    with pytest.raises(Conflict) as refused:
        client.sessions.create("odin", "laptop")
    assert refused.value.code == "machine_unavailable"
    client.machines.beat("laptop")
    assert client.sessions.create("odin", "laptop")["status"] == "active"
