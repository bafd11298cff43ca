"""The supervisor is killed: nothing works on unseen, it ends as a stall, and is recovered."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST, Desk, desk, gone

from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Server, cloned, name, ok
from tests.support.waiting import eventually

TIDY = """
import os, signal, sys
signal.signal(signal.SIGTERM, lambda *_: (open("tidied", "w").close(), os._exit(0)))
print("up", os.getpid(), flush=True)
while True: signal.pause()
"""
DEAF = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
print("up", os.getpid(), flush=True)
print(helper.pid, flush=True)
while True: signal.pause()
"""


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def test_the_command_is_asked_to_end_and_may_tidy_up(here: Desk) -> None:
    run = here.run(command=(sys.executable, "-c", TIDY))
    pid = run.up()
    run.process.kill()

    gone(pid)
    assert (here.folder / "tidied").exists()


def test_a_command_that_does_not_listen_is_killed_with_what_it_started(here: Desk) -> None:
    run = here.run("--grace", "0.3", command=(sys.executable, "-c", DEAF))
    pid, helper = run.up(), int(run.line())
    run.process.kill()

    gone(pid)
    gone(helper)


FOREVER = "import os, signal; print('up', os.getpid(), flush=True); signal.pause()"


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux")
def test_who_left_the_command_s_family_is_found_too(here: Desk) -> None:
    """A daemon: its parent has ended, its process group and session are its own."""
    script = f'(setsid {sys.executable} -c "{FOREVER}" &); cat'
    run = here.run(command=("sh", "-c", script))
    daemon = run.up()
    run.process.kill()

    gone(daemon)


def test_a_later_start_of_the_command_is_not_left_alone_either(here: Desk) -> None:
    run = here.run("--restart", "on-failure", "--backoff", "0")
    first = run.up()
    os.kill(first, signal.SIGKILL)
    second = run.up()
    run.process.kill()

    gone(second)


def test_the_guardian_itself_goes_when_the_run_is_over(here: Desk) -> None:
    run = here.run()
    run.up()
    guardian = eventually(lambda: guardians(run.pid), "the guardian")
    run.say("0")
    assert run.end() == 0

    for pid in guardian:
        gone(pid)


def guardians(supervisor: int) -> list[int]:
    """The children of a supervisor that are guardians."""
    ps = ["ps", "-A", "-ww", "-o", "pid=,ppid=,args="]
    listed = subprocess.run(ps, capture_output=True, text=True, check=True)
    lines = [line.split(maxsplit=2) for line in listed.stdout.splitlines()]
    return [int(line[0]) for line in lines if int(line[1]) == supervisor and "guardian" in line[2]]


def test_a_killed_run_stalls_and_its_work_and_claim_go_on_elsewhere(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """S4 3.2, 3.3: the sweep finds it, ``holdfast recover`` carries on."""
    settings = {"STALL_THRESHOLD_MS": "1000", "SWEEP_SECONDS": "0.2"}
    with (
        cloned(cluster, template) as url,
        Server(url, tmp_path, **settings) as server,
        server.world() as api,
        desk(api, tmp_path / "work") as here,
    ):
        item = name("item")
        run = here.run("--claim", item, "--interval", "0.1")
        pid = run.up()
        session_id = run.session()["session_id"]
        fence = ok(api.get(f"/api/claims/{item}"))["fence"]
        run.process.kill()
        gone(pid)
        stalled = eventually(
            lambda: ok(api.get("/api/sessions/stalled"))["stalled_sessions"], "the stall"
        )
        assert [session["session_id"] for session in stalled] == [session_id]

        recover = [HOLDFAST, "recover", session_id, "--onto", "desktop"]
        subprocess.run(recover, env=here.environ(), check=True, capture_output=True)
        recovered = api.get_session(session_id)
        assert recovered["outcome"] == "recovered"
        claim = ok(api.get(f"/api/claims/{item}"))
        assert claim["holder"] == recovered["recovered_to"]
        assert claim["fence"] > fence
        assert api.get_session(recovered["recovered_to"])["machine_id"] == "desktop"
