"""Whoever supervises a session or an instance is alone with it, however many come at once."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, Run, desk, gone

from holdfast.process import living
from tests.acceptance.serving import Api, Json, name, ok
from tests.support.proxy import http_wire
from tests.support.waiting import eventually

LATENCY = 0.15


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def instance(api: Api) -> Json:
    """An instance that nobody supervises."""
    body = {"project": name("project"), "instance_type": "PS"}
    return ok(api.post("/api/instances", json=body), 201)


def left_behind(here: Desk) -> Run:
    """A run whose supervisor was killed, and whose command has ended with it."""
    run = here.run("--interval", "0.1")
    pid = run.up()
    run.process.kill()
    gone(pid)
    return run


@pytest.mark.parametrize("kind", ["session", "instance", "both"])
def test_of_several_that_come_at_once_one_runs(api: Api, tmp_path: Path, kind: str) -> None:
    with (
        http_wire(str(api.base_url), LATENCY) as wire,
        desk(api, tmp_path / "work", wire.url) as here,
    ):
        agent, session = instance(api), api.session()
        options = {
            "session": ("--session", session["session_id"]),
            "instance": ("--instance", agent["instance_id"]),
            "both": ("--session", session["session_id"], "--instance", agent["instance_id"]),
        }[kind]
        project = session["project_id"] if kind != "instance" else agent["project"]
        runs = [here.carry_on(project, *options) for _ in range(3)]
        eventually(
            lambda: sum(run.process.poll() is not None for run in runs) == len(runs) - 1,
            "the end of all but one",
        )
        [winner] = [run for run in runs if run.process.poll() is None]
        for loser in runs:
            if loser is not winner:
                assert loser.end() == 3
                assert loser.printed == ""
                assert "is supervised on" in loser.told
        winner.up()
        winner.say("0")

        assert winner.end() == 0
        if kind != "instance":
            assert api.get_session(session["session_id"])["status"] == "completed"


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_while_one_is_at_work_another_is_told_who_and_starts_nothing(here: Desk, kind: str) -> None:
    first = here.run("--interval", "0.1")
    first.up()
    session, agent = first.session(), first.instance()
    named = ("--session", session["session_id"], "--instance", agent["instance_id"])
    options = named if kind == "session" else named[2:]
    second = here.carry_on(first.project, *options)

    assert second.end() == 3
    assert second.printed == ""
    assert f"is supervised on {agent['hostname']}" in second.told
    assert "--takeover" in second.told
    first.say("0")
    assert first.end() == 0
    assert first.session()["status"] == "completed"
    assert first.instance()["status"] == "closed"


@pytest.mark.parametrize("stops", [True, False])
def test_who_knows_better_takes_it_over_and_the_former_is_fenced(here: Desk, stops: bool) -> None:
    first = here.run("--interval", "0.1", *(["--stop-if-fenced"] if stops else []))
    first.up()
    session, agent = first.session(), first.instance()
    second = here.carry_on(first.project, "--session", session["session_id"], "--takeover")
    second.up()
    assert second.ask("HOLDFAST_INSTANCE_ID") == agent["instance_id"]

    if not stops:
        first.warned("was taken up by another holdfast run")
        first.say("0")
    assert first.end() == (128 + signal.SIGTERM if stops else 0)
    assert first.told.count("was taken up by another holdfast run") == 1
    # What the former one's command came to says nothing of the session any more.
    assert first.session()["status"] == "active"
    assert first.instance()["status"] == "active"
    second.say("0")
    assert second.end() == 0
    assert first.session()["status"] == "completed"


def test_a_command_is_not_started_again_beside_another_s(here: Desk) -> None:
    options = ("--restart", "always", "--backoff", "0.01", "--interval", "3600")
    first = here.run(*options)
    first.up()
    second = here.carry_on(first.project, "--session", first.session()["session_id"], "--takeover")
    second.up()
    first.say("0")

    assert first.end() == 0
    assert "not started again" in first.told
    assert first.printed == ""
    second.say("0")
    assert second.end() == 0


def test_one_that_is_known_to_be_dead_on_this_machine_is_followed(here: Desk) -> None:
    """Its heartbeat is a moment old, but its process is gone: nobody has to wait or to insist."""
    first = left_behind(here)
    session, agent = first.session(), first.instance()
    options = ("--session", session["session_id"], "--instance", agent["instance_id"])
    second = here.carry_on(first.project, *options)
    second.up()
    second.say("0")

    assert second.end() == 0
    assert first.session()["status"] == "completed"


def test_who_is_refused_later_on_gives_up_what_it_took_up(here: Desk) -> None:
    """The item goes to another between the look and the claim: here it is blocked."""
    item, first = name("item"), name("item")
    ok(here.api.post("/api/work-items", json={"item_id": first, "title": "first"}), 201)
    body = {"item_id": item, "title": "second", "depends_on": [first]}
    ok(here.api.post("/api/work-items", json=body), 201)
    session = here.api.session(instance_id=instance(here.api)["instance_id"])
    agent = instance(here.api)["instance_id"]
    options = ("--session", session["session_id"], "--instance", agent, "--takeover")
    refused = here.carry_on(session["project_id"], *options, "--claim", item)

    assert refused.end() == 3
    now = here.api.get_session(session["session_id"])
    assert (now["supervisor"], now["instance_id"]) == (None, session["instance_id"])
    assert ok(here.api.get(f"/api/instances/{agent}"))["instance"]["supervisor"] is None
    second = here.carry_on(session["project_id"], *options)
    second.up()
    second.say("0")
    assert second.end() == 0


def test_what_was_kept_while_the_service_was_away_has_the_fence_too(
    here: Desk, api: Api, tmp_path: Path
) -> None:
    with http_wire(str(api.base_url)) as wire, desk(api, tmp_path / "off", wire.url) as away:
        first = away.run("--interval", "0.1")
        first.up()
        session = first.session()
        wire.down()
        second = here.carry_on(first.project, "--session", session["session_id"], "--takeover")
        second.up()
        first.say("7")
        assert first.end() == 7
        wire.up()
        # Whoever comes next with this key sends what was kept.
        third = away.run()
        third.up()
        third.say("0")
        assert third.end() == 0
        eventually(lambda: "refused" in third.told or "supervisor_replaced" in third.told, "word")

    assert api.get_session(session["session_id"])["status"] == "active"
    second.say("0")
    assert second.end() == 0
    assert api.get_session(session["session_id"])["status"] == "completed"


def test_a_run_of_an_outage_is_supervised_once_it_is_recorded(api: Api, tmp_path: Path) -> None:
    with http_wire(str(api.base_url)) as wire, desk(api, tmp_path / "work", wire.url) as here:
        wire.down()
        run = here.run("--interval", "0.1")
        run.up()
        wire.up()
        session = eventually(
            lambda: ok(api.get("/api/sessions", params={"project_id": run.project}))["sessions"],
            "the session",
        )[0]
        assert session["supervisor_fence"] == 1
        beaten = session["last_heartbeat"]
        eventually(lambda: run.session()["last_heartbeat"] > beaten, "a heartbeat")
        run.say("0")

        assert run.end() == 0
        assert run.session()["status"] == "completed"
        assert run.instance()["status"] == "closed"


def test_a_lost_reply_to_the_taking_up_is_no_rival(api: Api, tmp_path: Path) -> None:
    session = api.session()
    with http_wire(str(api.base_url)) as wire, desk(api, tmp_path / "work", wire.url) as here:
        wire.lose("reply", "/take-up")
        run = here.carry_on(session["project_id"], "--session", session["session_id"])
        run.up()
        assert wire.broken.is_set()
        run.say("0")

        assert run.end() == 0
    assert api.get_session(session["session_id"])["status"] == "completed"


def test_what_a_dead_supervisor_left_behind_ends_first(here: Desk) -> None:
    """Its guardian asks the command to end; until it has, nobody works beside it."""
    code = (
        "import os, signal, sys, time\n"
        "def end(*_):\n"
        "    time.sleep(3); sys.exit(0)\n"
        "signal.signal(signal.SIGTERM, end)\n"
        "print('up', os.getpid(), flush=True)\n"
        "while True: time.sleep(0.05)\n"
    )
    first = here.run("--interval", "0.1", command=(sys.executable, "-c", code))
    pid = first.up()
    session, agent = first.session(), first.instance()
    first.process.kill()
    options = ("--session", session["session_id"], "--instance", agent["instance_id"])
    second = here.carry_on(first.project, *options)
    second.up()
    assert pid not in living()
    second.say("0")

    assert second.end() == 0


def test_what_both_a_dead_supervisor_and_its_guardian_left_behind_is_ended(here: Desk) -> None:
    """Also for whoever says that nothing runs there any more."""
    first = here.run("--interval", "0.1")
    pid = first.up()
    session = first.session()
    guardians = [it.pid for it in living().values() if it.parent == first.process.pid]
    first.process.kill()
    for guardian in guardians:
        os.kill(guardian, signal.SIGKILL)
    second = here.carry_on(first.project, "--session", session["session_id"], "--takeover")
    second.up()
    assert pid not in living()
    second.say("0")

    assert second.end() == 0
