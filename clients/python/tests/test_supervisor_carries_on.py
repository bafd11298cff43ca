"""``holdfast run --session`` and ``--instance``: what is there is carried on (decision 10)."""

from __future__ import annotations

import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import pytest
from clients.python.tests.supervised import HOLDFAST, Desk, desk, gone, recovered

from tests.acceptance.serving import Api, Json, name, ok
from tests.support.commands import Cli
from tests.support.proxy import http_wire
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def claim(api: Api, item: str) -> Json:
    """The claim as it is."""
    return ok(api.get(f"/api/claims/{item}"))


def held(api: Api, item: str) -> Json:
    """A session that holds an item."""
    session = api.session()
    body = {"item_id": item, "session_id": session["session_id"]}
    ok(api.post("/api/claims", json=body), 201)
    return session


def closed(api: Api) -> str:
    """An instance that has ended."""
    body = {"project": "odin", "instance_type": "PS"}
    instance: str = ok(api.post("/api/instances", json=body), 201)["instance_id"]
    ok(api.post(f"/api/instances/{instance}/close", json={}))
    return instance


def test_what_recover_says_carries_the_work_on(here: Desk, cli: Cli) -> None:
    """From a killed supervisor to the end of the work by the commands alone."""
    item = name("item")
    first = here.run("--claim", item)
    pid = first.up()
    original = first.session()["session_id"]
    first.process.kill()
    gone(pid)
    here.api.stall(original)
    told = cli.ok("recover", original, "--onto", "desk")
    advice = next(line for line in told.splitlines() if "Go on with: " in line)
    _, _, *options = shlex.split(advice.partition("Go on with: ")[2].removesuffix("-- CMD…"))

    second = here.carry_on(first.project, *options, "--interval", "0.1")
    second.up()

    heir = here.api.get_session(original)["recovered_to"]
    assert second.ask("HOLDFAST_SESSION_ID") == heir
    assert second.ask("HOLDFAST_ITEM") == item
    assert second.ask("HOLDFAST_FENCE") == str(claim(here.api, item)["fence"])
    assert second.ask("HOLDFAST_INSTANCE_ID") != first.instances()[0]["instance_id"]
    beaten = here.api.get_session(heir)["last_heartbeat"]
    eventually(lambda: here.api.get_session(heir)["last_heartbeat"] > beaten, "a heartbeat")
    assert claim(here.api, item)["holder"] == heir
    second.say("0")
    assert second.end() == 0
    ended = here.api.get_session(heir)
    assert (ended["status"], ended["metadata"]["exit_code"]) == ("completed", 0)
    assert claim(here.api, item)["holder"] is None


def test_its_claims_are_completed_with_complete(here: Desk) -> None:
    item = name("item")
    session = held(here.api, item)
    run = here.carry_on(session["project_id"], "--session", session["session_id"], "--complete")
    run.up()
    run.say("0")

    assert run.end() == 0
    assert ok(here.api.get(f"/api/work-items/{item}"))["status"] == "completed"


def test_an_item_that_it_holds_already_may_be_claimed_and_a_failure_fails_it(here: Desk) -> None:
    item = name("item")
    session = held(here.api, item)
    options = ("--session", session["session_id"], "--claim", item)
    run = here.carry_on(session["project_id"], *options)
    run.up()

    assert claim(here.api, item)["holder"] == session["session_id"]
    run.say("3")
    assert run.end() == 3
    assert here.api.get_session(session["session_id"])["status"] == "failed"


def test_an_item_of_another_s_is_refused_and_the_session_stays_as_it_was(here: Desk) -> None:
    item, own = name("item"), name("item")
    held(here.api, item)
    session = held(here.api, own)
    options = ("--session", session["session_id"], "--claim", item)
    run = here.carry_on(session["project_id"], *options)

    assert run.end() == 3
    assert run.printed == ""
    assert here.api.get_session(session["session_id"])["status"] == "active"
    assert claim(here.api, own)["holder"] == session["session_id"]


def test_stop_if_fenced_knows_what_the_session_held_before(here: Desk) -> None:
    item = name("item")
    session = held(here.api, item)
    session_id = session["session_id"]
    options = ("--session", session_id, "--stop-if-fenced", "--interval", "0.1")
    run = here.carry_on(session["project_id"], *options)
    pid = run.up()
    heir = recovered(here.api, session_id)

    assert run.end() == 128 + signal.SIGTERM
    gone(pid)
    assert heir["session_id"] in run.told
    assert claim(here.api, item)["holder"] == heir["session_id"]


def test_a_killed_supervisor_s_session_and_instance_are_carried_on(here: Desk) -> None:
    item = name("item")
    first = here.run("--claim", item)
    pid = first.up()
    session, instance = first.session(), first.instance()
    first.process.kill()
    gone(pid)
    carry_on = ("--session", session["session_id"][:8])
    refused = here.carry_on(first.project, *carry_on)
    assert refused.end() == 3
    assert instance["instance_id"] in refused.told

    second = here.carry_on(first.project, *carry_on, "--instance", instance["instance_id"])
    second.up()

    assert second.ask("HOLDFAST_SESSION_ID") == session["session_id"]
    assert second.ask("HOLDFAST_INSTANCE_ID") == instance["instance_id"]
    assert second.ask("HOLDFAST_ITEM") == item
    second.say("0")
    assert second.end() == 0
    assert second.session()["status"] == "completed"
    assert second.instance()["status"] == "closed"


def test_what_resume_says_carries_the_instance_on_in_a_session_of_its_own(
    here: Desk, cli: Cli
) -> None:
    agent = closed(here.api)
    told = cli.ok("resume", agent, "--start")
    advice = next(line for line in told.splitlines() if "Go on with: " in line)
    _, _, *options = shlex.split(advice.partition("Go on with: ")[2].removesuffix("-- CMD…"))

    run = here.carry_on("odin", *options)
    run.up()

    [_, successor] = options
    assert run.ask("HOLDFAST_INSTANCE_ID") == successor
    assert run.session()["instance_id"] == successor
    run.say("0")
    assert run.end() == 0
    assert run.session()["status"] == "completed"
    instance = ok(here.api.get(f"/api/instances/{successor}"))["instance"]
    assert instance["status"] == "closed"


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_what_is_not_there_starts_nothing(here: Desk, kind: str) -> None:
    whole = str(uuid4()) if kind == "session" else "odin-PS-000000"
    for reference in (whole, "00000000"):
        run = here.carry_on("odin", f"--{kind}", reference)

        assert run.end() == 4
        assert run.printed == ""
        [line] = run.told.splitlines()
        assert line.startswith("holdfast: ")
    assert ok(here.api.get("/api/instances"))["instances"] == []


def test_what_has_ended_starts_nothing(here: Desk) -> None:
    moved, failed = held(here.api, name("item")), held(here.api, name("item"))
    heir = recovered(here.api, moved["session_id"])["session_id"]
    here.api.fail(failed["session_id"])
    instance = closed(here.api)
    advice = {
        ("--session", moved["session_id"]): f"holdfast run --session {heir}",
        ("--session", failed["session_id"]): f"holdfast recover {failed['session_id']}",
        ("--instance", instance): "closed",
    }
    for options, words in advice.items():
        run = here.carry_on("odin", *options)

        assert run.end() == 3
        assert run.printed == ""
        [line] = run.told.splitlines()
        assert words in line
    assert len(ok(here.api.get("/api/instances"))["instances"]) == 1


def test_a_run_within_a_run_is_one_of_its_own(here: Desk) -> None:
    """The environment names the outer one; only the options make a run carry something on."""
    ask = "import os; print(os.environ['HOLDFAST_SESSION_ID'], os.environ['HOLDFAST_INSTANCE_ID'])"
    inner = [HOLDFAST, "run", "--project", "inner", "--", sys.executable, "-c", ask]
    code = f"import os, subprocess; subprocess.run({inner!r}, check=True); {ask}"
    outer = here.run(command=(sys.executable, "-c", code))

    assert outer.end() == 0
    (session, instance), (outer_session, outer_instance) = map(
        str.split, outer.printed.splitlines()
    )
    assert (outer_session, outer_instance) == (
        outer.session()["session_id"],
        outer.instance()["instance_id"],
    )
    assert session != outer_session
    assert instance != outer_instance


def test_without_the_service_nothing_is_carried_on(api: Api, tmp_path: Path) -> None:
    session = held(api, name("item"))
    with http_wire(str(api.base_url)) as wire:
        wire.down()
        with desk(api, tmp_path / "work", wire.url) as here:
            run = here.carry_on("odin", "--session", session["session_id"])
            assert run.end() == 6
            assert run.printed == ""
            assert "goes on" not in run.told
            assert "kept" not in run.told


@pytest.mark.parametrize(
    "options",
    [("--session", str(uuid4()), "--project", "odin"), ("--session", str(uuid4()), "--replace"),
     ("--instance", "odin-PS-000000", "--name", "parser")],
)  # fmt: skip
def test_what_is_there_already_is_not_told_again(here: Desk, options: tuple[str, ...]) -> None:
    run = here.carry_on("odin", *options)

    assert run.end() == 2
    assert options[2] in run.told
