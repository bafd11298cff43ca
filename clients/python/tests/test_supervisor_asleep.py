"""A machine that slept: whoever has the command at hand, and sees it alive, keeps it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import WORKER, Desk, Run, desk

from holdfast.process import living
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Server, cloned, name, ok
from tests.support.waiting import eventually

# Not stopped with the supervisor, and deaf to SIGTERM: what ends it is seen to have ended it.
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n" + WORKER


@pytest.fixture(scope="module")
def watchful(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service that soon finds everything silent, and lets others take over."""
    settings = {
        # Fifteen heartbeats long: whoever lives is not found silent on a busy machine either.
        "INSTANCE_STALE_SECONDS": "1.5",
        "STALL_THRESHOLD_MS": "1700",
        "CLAIM_STALE_SECONDS": "1.9",
        "SWEEP_SECONDS": "0.1",
    }
    directory = tmp_path_factory.mktemp("watchful")
    with cloned(cluster, template) as url, Server(url, directory, **settings) as running:
        yield running


@pytest.fixture
def api(watchful: Server) -> Iterator[Api]:
    with watchful.world() as client:
        yield client


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def sleep(run: Run, number: int = signal.SIGSTOP) -> None:
    """Stop (or wake) the supervisor with all that it has started, as a machine that sleeps."""
    os.killpg(run.pid, number)


def requests(run: Run, count: int) -> None:
    eventually(lambda: len(run.events("restart_requested")) >= count, f"{count} requests")


@pytest.mark.parametrize("code", [WORKER, STUBBORN])
def test_a_command_that_lives_goes_on_although_its_restart_was_asked_for(
    here: Desk, code: str
) -> None:
    run = here.run(
        *("--restart", "on-failure:2", "--interval", "0.1"),
        command=(sys.executable, "-c", code),
        start_new_session=True,
    )
    pid = run.up()
    for nap in (1, 2):
        sleep(run)
        requests(run, nap)
        sleep(run, signal.SIGCONT)
        assert "goes on" in run.warned("a restart was asked for")
        assert run.ask("HOLDFAST_INSTANCE_ID") == run.instance()["instance_id"]
        assert pid in living()
        eventually(lambda: run.instance()["restarts"] == 0, "the answer to the request")
    run.say("0")

    assert run.end() == 0
    assert len(run.events("command_logged")) == 1
    assert run.session()["metadata"]["restarts"] == 0
    instance = run.instance()
    assert (instance["restarts"], instance["crash_looping"]) == (0, False)


def test_the_supervisor_alone_may_have_slept_too(here: Desk) -> None:
    run = here.run("--restart", "always", "--backoff", "0.01", "--interval", "0.1")
    pid = run.up()
    run.process.send_signal(signal.SIGSTOP)
    requests(run, 1)
    run.process.send_signal(signal.SIGCONT)
    run.warned("a restart was asked for")
    run.say("0")
    second = run.up()
    assert second != pid
    run.process.terminate()

    run.end()
    assert len(run.events("command_logged")) == 2


def test_a_command_that_died_meanwhile_is_started_again_once(here: Desk) -> None:
    run = here.run("--restart", "on-failure", "--backoff", "0.01", "--interval", "0.1")
    pid = run.up()
    run.process.send_signal(signal.SIGSTOP)
    requests(run, 1)
    os.kill(pid, signal.SIGKILL)
    run.process.send_signal(signal.SIGCONT)
    assert run.up() != pid
    run.say("0")

    assert run.end() == 0
    assert run.session()["metadata"]["restarts"] == 1
    assert run.instance()["restarts"] == 1


def test_a_claim_that_was_lost_meanwhile_is_told_and_stops_it_if_told_to(here: Desk) -> None:
    item = name("item")
    run = here.run(
        *("--claim", item, "--restart", "always", "--interval", "0.1", "--stop-if-fenced"),
        start_new_session=True,
    )
    run.up()
    rival = here.api.session()
    sleep(run)

    def taken() -> bool:
        ok(here.api.post(f"/api/sessions/{rival['session_id']}/heartbeat", json={}))
        body = {"item_id": item, "session_id": rival["session_id"], "takeover": True}
        return here.api.post("/api/claims", json=body).status_code == 201

    eventually(taken, "the takeover")
    sleep(run, signal.SIGCONT)

    assert run.end() == 128 + signal.SIGTERM
    assert rival["session_id"] in run.told
    assert len(run.events("command_logged")) == 1


def test_a_lost_claim_is_told_although_its_instance_was_resumed_too(here: Desk) -> None:
    item = name("item")
    run = here.run("--claim", item, "--interval", "0.1", start_new_session=True)
    run.up()
    instance = run.instance()["instance_id"]
    rival = here.api.session()["session_id"]
    sleep(run)

    def went() -> bool:
        ok(here.api.post(f"/api/sessions/{rival}/heartbeat", json={}))
        body = {"item_id": item, "session_id": rival, "takeover": True}
        return here.api.post("/api/claims", json=body).is_success

    eventually(went, "the takeover")
    ok(here.api.post(f"/api/instances/{instance}/resume", json={}), 201)
    sleep(run, signal.SIGCONT)
    run.warned("goes on")
    run.warned("goes on")
    run.say("0")

    assert run.end() == 0
    assert f"{item} was taken over by {rival}" in run.told
    assert f"instance {instance} is over" in run.told
