"""What is left when supervisor and guardian were both killed does not work beside the next one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import Desk, Run, desk, gone
from clients.python.tests.test_supervisor_leftovers import DEAF, leaving, needs_linux

from holdfast.process import living
from tests.acceptance.serving import Api

HOWS = ["child", "session", "orphan", "clean", "daemon"]


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def abandoned(here: Desk, how: str) -> tuple[Run, int]:
    """A run of which only what its command started is left."""
    run = here.run("--interval", "0.1", command=leaving(how, DEAF))
    pid = run.up()
    all_of_them = living().values()
    guardians = [it.pid for it in all_of_them if it.parent == run.process.pid]
    commands = [it.pid for it in all_of_them if it.parent in guardians and it.pid != pid]
    run.process.kill()
    for one in [*guardians, *commands]:
        os.kill(one, signal.SIGKILL)
        gone(one)
    assert pid in living()
    return run, pid


@needs_linux
@pytest.mark.parametrize("how", HOWS)
def test_who_carries_the_session_on_is_alone_with_it(here: Desk, how: str) -> None:
    first, pid = abandoned(here, how)
    session = first.session()["session_id"]
    second = here.carry_on(first.project, "--session", session, "--takeover")
    second.up()
    assert pid not in living()
    second.say("0")

    assert second.end() == 0


@needs_linux
@pytest.mark.parametrize("how", HOWS)
def test_whoever_runs_next_on_the_machine_ends_what_is_left(here: Desk, how: str) -> None:
    _, pid = abandoned(here, how)
    second = here.run()
    second.up()
    assert pid not in living()
    second.say("0")

    assert second.end() == 0
    assert "whose supervisor was killed" in second.told
    assert f"({pid})" in second.told


@needs_linux
def test_what_runs_of_the_living_have_started_is_left_alone(here: Desk) -> None:
    first = here.run()
    pid = first.up()
    second = here.run()
    second.up()
    assert pid in living()
    second.say("0")
    assert second.end() == 0
    assert "whose supervisor was killed" not in second.told
    first.say("0")

    assert first.end() == 0
    assert [*Path(os.environ["HOLDFAST_SPOOL_DIR"]).glob("runs/*")] == []


@needs_linux
@pytest.mark.parametrize("how", HOWS)
def test_without_its_guardian_a_run_ends_what_its_command_left_all_the_same(
    here: Desk, how: str
) -> None:
    run = here.run("--grace", "0.1", command=leaving(how, DEAF))
    pid = run.up()
    for guardian in [it.pid for it in living().values() if it.parent == run.process.pid]:
        os.kill(guardian, signal.SIGKILL)
        gone(guardian)
    run.say("")

    assert run.end() == 0
    assert pid not in living()
    assert f"({pid})" in run.told
