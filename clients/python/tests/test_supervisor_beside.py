"""The SDK and ``holdfast run`` beside each other, and a former run with its item (spec 17)."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, desk

from holdfast import Client
from tests.acceptance.serving import Api, name, ok
from tests.support.waiting import eventually

WORK = """
import sys
from holdfast import Client
with Client() as client, getattr(client, sys.argv[1])(sys.argv[2]) as it:
    print(it.id, flush=True)
    sys.stdin.readline()
"""


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


@contextmanager
def at_work(here: Desk, kind: str, project: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A program that works in a session, or as an instance, by the SDK; and its id."""
    process = subprocess.Popen(
        [sys.executable, "-c", WORK, kind, project],
        env=here.environ(),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        yield process, process.stdout.readline().strip()
    finally:
        process.kill()
        process.communicate()


def status(api: Api, kind: str, an_id: str) -> str:
    found = ok(api.get(f"/api/{kind}s/{an_id}"))
    one = found if kind == "session" else found["instance"]
    return str(one["status"])


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_what_the_sdk_looks_after_is_nobody_else_s(here: Desk, kind: str) -> None:
    project = name("project")
    with at_work(here, kind, project) as (_, an_id):
        run = here.carry_on(project, f"--{kind}", an_id)

        assert run.end() == 3
        assert "supervised" in run.told
        assert status(here.api, kind, an_id) == "active"


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_what_was_taken_from_the_sdk_is_not_ended_by_it(here: Desk, kind: str) -> None:
    project = name("project")
    with at_work(here, kind, project) as (process, an_id):
        run = here.carry_on(project, f"--{kind}", an_id, "--takeover")
        run.up()
        process.communicate("over\n", timeout=60)
        assert process.returncode == 0
        assert status(here.api, kind, an_id) == "active"
        run.say("0")

        assert run.end() == 0
        assert status(here.api, kind, an_id) in ("completed", "closed")


@pytest.mark.parametrize("kind", ["session", "instance"])
def test_a_dead_program_of_the_sdk_is_followed_at_once(here: Desk, kind: str) -> None:
    project = name("project")
    with at_work(here, kind, project) as (process, an_id):
        process.kill()
        process.wait()
        run = here.carry_on(project, f"--{kind}", an_id)
        run.up()
        run.say("0")

        assert run.end() == 0


def test_a_session_that_fails_by_itself_is_not_taken_from_its_instance(
    client: Client, api: Api
) -> None:
    with client.instance(name("project")) as agent:
        with pytest.raises(ValueError, match="broken"), agent.session() as session:
            raise ValueError("broken")
        assert status(api, "session", str(session.id)) == "failed"
        agent.heartbeats.force()
        now = ok(api.get(f"/api/instances/{agent.id}"))["instance"]
        assert (now["health"], now["lost_work"]) == ("healthy", None)


def test_who_carries_an_instance_on_goes_on_counting_its_restarts(here: Desk) -> None:
    options = ("--restart", "on-failure", "--backoff", "0.01", "--interval", "0.1")
    first = here.run(*options)
    for _ in range(2):
        first.up()
        first.say("1")
    first.up()
    agent = first.instance()["instance_id"]
    eventually(lambda: first.instance()["restarts"] == 2, "the count")
    first.process.kill()
    first.process.wait()
    second = here.carry_on(first.project, "--instance", agent, *options)
    second.up()
    assert first.instance()["restarts"] == 2
    second.say("1")
    second.up()
    eventually(lambda: first.instance()["restarts"] == 3, "the count")
    second.say("0")

    assert second.end() == 0
    assert first.instance()["restarts"] == 3


def test_a_former_run_completes_nothing(here: Desk) -> None:
    """It has not been told yet that another took the session up, with its items."""
    item = name("item")
    first = here.run("--claim", item, "--complete", "--interval", "3600")
    first.up()
    session_id = first.ask("HOLDFAST_SESSION_ID")
    second = here.carry_on(first.project, "--session", session_id, "--takeover")
    second.up()
    first.say("0")

    assert first.end() == 0
    now = ok(here.api.get(f"/api/work-items/{item}"))
    assert (now["status"], now["active_session_id"]) == ("claimed", session_id)
    second.say("0")
    assert second.end() == 0
    assert status(here.api, "session", session_id) == "completed"
