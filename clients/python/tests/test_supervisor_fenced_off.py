"""A supervised command that goes on although its session is another's: told once, and shown."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, desk, recovered

from holdfast import Client
from holdfast.heartbeat import HeartbeatManager
from tests.acceptance.serving import Api, Json, ok
from tests.support.commands import Cli
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def test_it_is_told_once_and_whoever_looks_sees_it(here: Desk, cli: Cli) -> None:
    run = here.run("--interval", "0.1")
    run.up()
    session_id = run.ask("HOLDFAST_SESSION_ID")
    heir = recovered(here.api, session_id)["session_id"]
    run.warned("the command goes on")
    eventually(lambda: run.instance()["health"] == "degraded", "the mark")

    assert run.instance()["health_reasons"] == ["working_without_session"]
    assert "without session" in cli.ok("instances")
    overview = " ".join(cli.ok("status").split())
    assert f"works without a session: session {session_id} was recovered" in overview
    assert heir in overview
    run.say("0")
    assert run.end() == 0
    assert run.told.count("the command goes on") == 1


def test_whoever_beats_for_an_instance_alone_is_told_what_it_lost(api: Api, client: Client) -> None:
    """An agent whose session another process beats for."""
    body = {"project": "odin", "instance_type": "PS"}
    instance: str = ok(api.post("/api/instances", json=body), 201)["instance_id"]
    session = api.session(instance_id=instance)
    told: list[tuple[str, Json]] = []
    heartbeats = HeartbeatManager(
        client, interval=0.05, on_lost_work=lambda an_id, lost: told.append((an_id, lost))
    )
    with heartbeats:
        heartbeats.start(instance)
        heir = recovered(api, session["session_id"])["session_id"]
        eventually(lambda: told, "the word")
        beats = heartbeats.stats().beats
        eventually(lambda: heartbeats.stats().beats > beats + 2, "more beats")

    [(an_id, lost)] = told
    assert (an_id, lost["reason"], lost["by"]) == (instance, "recovered", heir)
