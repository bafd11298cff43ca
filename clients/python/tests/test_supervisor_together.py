"""Several who take over at once: whoever wins looks after the session and its instance, both."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from clients.python.tests.conftest import Connect
from clients.python.tests.supervised import Desk, Run, desk

from holdfast import Client, Conflict
from holdfast.run_record import Run as Plan
from holdfast.run_record import RunRecord
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Json, Server, cloned, name, ok
from tests.support.proxy import http_wire
from tests.support.waiting import eventually

LATENCY = 0.05


@pytest.fixture(scope="module")
def watchful(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service that soon finds everything silent."""
    settings = {
        "INSTANCE_STALE_SECONDS": "1",
        "STALL_THRESHOLD_MS": "60000",
        "CLAIM_STALE_SECONDS": "61",
        "SWEEP_SECONDS": "0.1",
    }
    directory = tmp_path_factory.mktemp("watchful")
    with cloned(cluster, template) as url, Server(url, directory, **settings) as running:
        yield running


def supervisors(api: Api, session_id: str) -> tuple[str | None, str | None]:
    """Who looks after the session, and after the instance that works in it."""
    session = api.get_session(session_id)
    found: Json = ok(api.get(f"/api/instances/{session['instance_id']}"))["instance"]
    return session["supervisor"], found["supervisor"]


def pair(api: Api) -> Json:
    """A session and its instance, which someone else supervises."""
    body = {"project": name("project"), "instance_type": "PS", "supervisor": "former"}
    instance = ok(api.post("/api/instances", json=body), 201)["instance_id"]
    return api.session(instance_id=instance, supervisor="former")


@pytest.mark.parametrize("when", ["after the session", "after the instance", "before it is taken"])
def test_whoever_comes_in_between_gets_both(api: Api, connect: Connect, when: str) -> None:
    """One looks, or asks, for the two one after the other, and another comes in the midst of it."""
    session_id = pair(api)["session_id"]

    def record(client: Client) -> RunRecord:
        plan = Plan(["true"], session_id=session_id, takeover=True)
        return RunRecord(client, plan, lambda why, again: None, uuid4().hex)

    slow, quick = connect(), record(connect())
    area: Any = slow.sessions if when != "after the instance" else slow.instances
    verb = "take_up" if when == "before it is taken" else "get"
    comes_before(area, verb, quick.open, after=when != "before it is taken")
    with pytest.raises(Conflict):
        record(slow).open()

    session, instance = supervisors(api, session_id)
    assert session == instance
    assert session not in (None, "former")
    assert quick.heartbeats.force()
    quick.withdraw()
    assert supervisors(api, session_id) == (None, None)


def comes_before(area: Any, verb: str, comes: Callable[[], None], *, after: bool) -> None:
    """Once, ``comes`` is called right before, or after, the call."""
    asked = getattr(area, verb)

    def interrupted(*args: Any, **fields: Any) -> Any:
        setattr(area, verb, asked)
        answer = asked(*args, **fields) if after else None
        comes()
        return answer if after else asked(*args, **fields)

    setattr(area, verb, interrupted)


def test_of_several_takeovers_at_once_the_last_has_both_and_beats_for_both(
    api: Api, tmp_path: Path
) -> None:
    session = pair(api)
    session_id = session["session_id"]
    with (
        http_wire(str(api.base_url), LATENCY) as wire,
        desk(api, tmp_path / "work", wire.url) as here,
    ):
        options = ("--session", session_id, "--takeover", "--stop-if-fenced", "--interval", "0.1")
        runs = [here.carry_on(session["project_id"], *options) for _ in range(4)]
        eventually(
            lambda: sum(run.process.poll() is not None for run in runs) == len(runs) - 1,
            "the end of all but one",
        )
        [winner] = [run for run in runs if run.process.poll() is None]
        winner.up()
        kept, instance = supervisors(api, session_id)
        assert kept is not None
        assert kept == instance
        path = f"/api/instances/{session['instance_id']}"
        before = ok(api.get(path))["instance"]["last_heartbeat"]
        eventually(lambda: ok(api.get(path))["instance"]["last_heartbeat"] > before, "a heartbeat")
        winner.say("0")
        assert winner.end() == 0


@pytest.fixture
def here(watchful: Server, tmp_path: Path) -> Iterator[Desk]:
    with watchful.world() as api, desk(api, tmp_path / "work") as it:
        yield it


def slept(here: Desk, run: Run, happened: Callable[[], object]) -> None:
    """What happens while a run sleeps with all that it has started."""
    os.killpg(run.pid, signal.SIGSTOP)
    try:
        happened()
    finally:
        os.killpg(run.pid, signal.SIGCONT)


@pytest.mark.parametrize("stops", [False, True])
def test_on_waking_it_is_told_that_its_instance_was_resumed_elsewhere(
    here: Desk, stops: bool
) -> None:
    """Its session, and the claim, were kept."""
    item = name("item")
    options = ("--claim", item, "--interval", "0.1", *(["--stop-if-fenced"] if stops else []))
    run = here.run(*options, start_new_session=True)
    run.up()
    instance = run.instance()["instance_id"]
    heirs: list[str] = []

    def resumed() -> None:
        reply = eventually(
            lambda: (
                (r := here.api.post(f"/api/instances/{instance}/resume", json={})).is_success and r
            ),
            "the resume",
        )
        assert reply
        heirs.append(reply.json()["instance"]["instance_id"])

    slept(here, run, resumed)
    told = run.warned(f"instance {instance} is over")
    assert heirs[0] in told
    if not stops:
        assert "goes on" in told
        run.say("0")
    assert run.end() == (128 + signal.SIGTERM if stops else 0)


def test_on_waking_it_is_told_that_its_instance_was_closed(here: Desk) -> None:
    run = here.run("--interval", "0.1", start_new_session=True)
    run.up()
    instance = run.instance()["instance_id"]
    slept(here, run, lambda: ok(here.api.post(f"/api/instances/{instance}/close", json={})))
    run.warned(f"instance {instance} is over")
    run.say("0")
    assert run.end() == 0
    assert run.session()["status"] == "completed"


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_whoever_cannot_have_the_item_takes_nothing_over(
    api: Api, tmp_path: Path, kind: str
) -> None:
    """An item that another holds, who beats: --takeover does not get it, and disturbs nobody."""
    with desk(api, tmp_path / "work") as here:
        item = name("item")
        holder = api.session()["session_id"] if kind == "session" else None
        first = here.run("--interval", "0.1", *([] if holder else ["--claim", item]))
        first.up()
        session, instance = first.session()["session_id"], first.instance()["instance_id"]
        if holder:
            ok(api.post("/api/claims", json={"item_id": item, "session_id": holder}), 201)
        before = supervisors(api, session)
        named = ("--session", session) if kind == "session" else ("--instance", instance)
        second = here.carry_on(first.project, *named, "--takeover", "--claim", item)

        assert second.end() == 3
        assert "already claimed" in second.told or "Claimed by" in second.told
        assert supervisors(api, session) == before
        first.say("0")
        assert first.end() == 0
        assert "taken up by another" not in first.told
