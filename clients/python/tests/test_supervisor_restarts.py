"""``holdfast run --restart``: how often, after which pause, and when not (spec 4)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, desk

from holdfast.outcome import NOT_EXECUTABLE
from holdfast.restarts import LONGEST_PAUSE_SECONDS, STEADY_SECONDS, RestartPolicy, Restarts
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Server, cloned, ok
from tests.support.proxy import http_wire
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def pauses(rule: str, *runs: tuple[int, float], backoff: float = 5.0) -> list[float | None]:
    """The pause after each of these runs, given by exit code and seconds."""
    restarts = Restarts(RestartPolicy.parse(rule, backoff))
    return [restarts.pause(code, seconds) for code, seconds in runs]


def test_pauses_double_up_to_a_minute() -> None:
    waited = pauses("on-failure:7", *[(1, 0.1)] * 8)
    assert waited == [5, 10, 20, 40, LONGEST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS, 60, None]


def test_ten_minutes_of_running_start_the_count_afresh() -> None:
    assert pauses("on-failure:2", (1, 1), (1, 1), (1, STEADY_SECONDS), (1, 1), (1, 1)) == [
        *(5, 10),
        *(5, 10),
        None,
    ]


def test_what_ends_well_is_started_again_by_always_only() -> None:
    assert pauses("never", (1, 1)) == [None]
    assert pauses("on-failure", (0, 1)) == [None]
    assert pauses("always", *[(0, 1)] * 5) == [5] * 5
    assert pauses("always", (1, 1), (1, 1), (0, 1), (1, 1), (1, 1), (1, 1), (1, 1)) == [
        *(5, 10),
        5,
        *(5, 10, 20),
        None,
    ]
    assert pauses("always:2", *[(0, 1)] * 3) == [5, 10, None]


@pytest.mark.parametrize("text", ["", "sometimes", "on-failure:", "never:3", "always:-1", "ALWAYS"])
def test_what_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="never, on-failure"):
        RestartPolicy.parse(text)


def test_a_crash_loop_ends_after_so_many_restarts_and_says_so(here: Desk) -> None:
    run = here.run("--restart", "on-failure:2", "--backoff", "0.01", command=("false",))

    assert run.end() == 1
    assert "after 2 restarts" in run.told
    session = run.session()
    assert session["status"] == "failed"
    assert "after 2 restarts" in session["metadata"]["error_message"]
    assert session["metadata"]["restarts"] == 2
    assert [e["event_data"]["exit_code"] for e in run.events("command_logged")] == [1, 1, 1]
    assert run.instance()["restarts"] == 2
    assert run.instance()["restart_policy"] == {
        "policy": "on_failure",
        "max_restarts": 2,
        "backoff_seconds": 0.01,
    }


def test_a_command_that_recovers_is_a_success(here: Desk) -> None:
    run = here.run("--restart", "on-failure", "--backoff", "0.01")
    first = run.up()
    run.say("SIGKILL")
    second = run.up()
    assert first != second
    run.say("0")

    assert run.end() == 0
    assert run.session()["status"] == "completed"
    assert run.session()["metadata"]["restarts"] == 1
    assert run.instance()["restarts"] == 1
    signals = [e["event_data"].get("signal") for e in run.events("command_logged")]
    assert signals == ["SIGKILL", None]


def test_always_starts_again_what_ended_well(here: Desk) -> None:
    run = here.run("--restart", "always", "--backoff", "0.01")
    for _ in range(5):
        run.up()
        run.say("0")
    run.up()
    run.process.terminate()

    assert run.end() == 128 + signal.SIGTERM


def test_without_a_rule_nothing_is_started_again(here: Desk) -> None:
    run = here.run(command=("false",))

    assert run.end() == 1
    assert len(run.events("command_logged")) == 1
    assert run.instance()["restart_policy"] is None


def test_a_run_that_was_told_to_stop_is_not_started_again(here: Desk) -> None:
    run = here.run("--restart", "always", "--backoff", "0")
    run.up()
    run.process.terminate()

    assert run.end() == 128 + signal.SIGTERM
    assert len(run.events("command_logged")) == 1


def test_a_signal_ends_the_wait_for_the_next_start(here: Desk) -> None:
    run = here.run("--restart", "always", "--backoff", "3600", command=("false",))
    run.warned("started again in 3600 seconds")
    run.process.terminate()

    assert run.end() == 1
    assert run.session()["status"] == "failed"
    # It was planned, and did not happen.
    assert run.session()["metadata"]["restarts"] == 0
    assert "restarts" not in run.session()["metadata"]["error_message"]
    assert run.instance()["restarts"] == 0


def test_a_restart_is_one_only_if_the_command_runs_again(here: Desk) -> None:
    """Its program is gone by the time that it would be started again."""
    program = here.folder / "agent"
    program.write_text('#!/bin/sh\nrm -- "$0"\nexit 3\n')
    program.chmod(0o700)
    options = ("--restart", "on-failure:1", "--backoff", "0.01")
    run = here.run(*options, command=(str(program),))

    assert run.end() == NOT_EXECUTABLE
    session = run.session()
    assert session["metadata"]["restarts"] == 0
    assert run.instance()["restarts"] == 0


@pytest.fixture(scope="module")
def watchful(
    cluster: EmbeddedPostgres, template: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A service that soon finds an instance stale, and asks for its restart."""
    settings = {"INSTANCE_STALE_SECONDS": "1.5", "SWEEP_SECONDS": "0.1"}
    directory = tmp_path_factory.mktemp("watchful")
    with cloned(cluster, template) as url, Server(url, directory, **settings) as running:
        yield running


def test_a_restart_that_was_asked_for_because_the_service_was_out_of_reach_does_not_happen(
    watchful: Server, tmp_path: Path
) -> None:
    """The command was supervised all the time, and the work goes on."""
    with (
        watchful.world() as api,
        http_wire(watchful.url) as wire,
        desk(api, tmp_path / "work", wire.url) as here,
    ):
        run = here.run("--restart", "on-failure", "--interval", "0.3")
        run.up()
        wire.down()
        eventually(lambda: run.events("restart_requested"), "the request")
        wire.up()
        for _ in range(3):
            beaten = run.instance()["last_heartbeat"]
            eventually(lambda: run.instance()["last_heartbeat"] > beaten, "a heartbeat")  # noqa: B023
        run.say("0")

        assert run.end() == 0
        assert len(run.events("command_logged")) == 1
        assert ok(api.get("/api/sessions"))["sessions"][0]["status"] == "completed"
