"""What was interrupted did not succeed, whatever its exit code (spec 17, "CLI")."""

from __future__ import annotations

import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import (
    ENOUGH_SECONDS,
    HOLDFAST,
    IN_TERMINAL,
    Desk,
    Run,
    desk,
    ended_in_time,
)

from tests.acceptance.serving import Api, name, ok

# As many agents do: whatever makes it end, it ends well.
POLITE = """
import os, signal, sys
for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    signal.signal(number, lambda *_: os._exit(0))
os.write(1, b"up %d\\n" % os.getpid())
try:
    sys.stdin.read()
except OSError:
    pass
os._exit(0)
"""
POLITELY = (sys.executable, "-c", POLITE)


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def status_of(here: Desk, item: str) -> str:
    return str(ok(here.api.get(f"/api/work-items/{item}"))["status"])


def has_failed_as_interrupted(here: Desk, run: Run, item: str, by: str) -> None:
    session = run.session()
    assert session["status"] == "failed"
    assert f"interrupted by {by}" in session["metadata"]["error_message"]
    assert session["metadata"]["interrupted_by"] == by
    assert ok(here.api.get(f"/api/claims/{item}"))["holder"] is None
    assert status_of(here, item) != "completed"


@pytest.fixture
def item(here: Desk) -> str:
    made = name("item")
    ok(here.api.post("/api/work-items", json={"item_id": made}), 201)
    return made


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_signal_to_the_supervisor_completes_nothing(
    here: Desk, item: str, number: signal.Signals
) -> None:
    run = here.run("--claim", item, "--complete", command=POLITELY)
    run.up()
    run.process.send_signal(number)

    assert run.end() == 0
    has_failed_as_interrupted(here, run, item, number.name)


def test_a_signal_to_the_whole_group_completes_nothing(here: Desk, item: str) -> None:
    """The command may have ended before its supervisor hears of it."""
    run = here.run("--claim", item, "--complete", command=POLITELY, start_new_session=True)
    run.up()
    os.killpg(run.pid, signal.SIGTERM)

    assert run.end() == 0
    has_failed_as_interrupted(here, run, item, "SIGTERM")


def test_a_run_that_is_stopped_between_two_attempts_completes_nothing(
    here: Desk, item: str
) -> None:
    options = ("--restart", "always", "--backoff", "60", "--complete", "--claim", item)
    run = here.run(*options, command=("true",))
    run.warned("it is started again in 60 seconds")
    run.process.terminate()

    assert run.end() == 0
    has_failed_as_interrupted(here, run, item, "SIGTERM")


# At a terminal


class AtTerminal:
    """A run at a terminal of its own."""

    def __init__(self, here: Desk, *options: str, command: tuple[str, ...] = POLITELY) -> None:
        self.ours, theirs = pty.openpty()
        self.project = name("project")
        run = [HOLDFAST, "run", "--project", self.project, *options, "--", *command]
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_TERMINAL, *run],
            cwd=here.folder,
            env=here.environ(),
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        self.run = Run(self.process, here.api, self.project)  # type: ignore[arg-type]

    def until(self, words: bytes) -> None:
        seen = b""
        while words not in seen:
            assert select.select([self.ours], [], [], ENOUGH_SECONDS)[0], seen
            seen += os.read(self.ours, 1024)


def test_ctrl_c_that_ends_a_command_completes_nothing(here: Desk, item: str) -> None:
    at = AtTerminal(here, "--claim", item, "--complete")
    with ended_in_time(at.process):
        at.until(b"up ")
        os.write(at.ours, b"\x03")
        assert at.process.wait(60) == 0
    has_failed_as_interrupted(here, at.run, item, "Ctrl-C")


RAW = "import tty; tty.setraw(0)" + POLITE


def test_what_cannot_have_been_typed_is_passed_on(here: Desk, item: str) -> None:
    """Under a full-screen program Ctrl-C is a key: a SIGINT is somebody else's."""
    raw = (sys.executable, "-c", RAW)
    at = AtTerminal(here, "--claim", item, "--complete", command=raw)
    with ended_in_time(at.process):
        at.until(b"up ")
        at.process.send_signal(signal.SIGINT)
        assert at.process.wait(60) == 0
    has_failed_as_interrupted(here, at.run, item, "SIGINT")


def test_a_closed_window_completes_nothing(here: Desk, item: str) -> None:
    at = AtTerminal(here, "--claim", item, "--complete")
    with ended_in_time(at.process):
        at.until(b"up ")
        os.close(at.ours)
        assert at.process.wait(60) == 0
    session = at.run.session()
    assert session["status"] == "failed"
    assert session["metadata"]["interrupted_by"] in ("SIGHUP", "a closed terminal")
    assert status_of(here, item) != "completed"


READS = "import os, sys; os.write(1, b'up\\n'); sys.stdin.read(); sys.exit(0)"


def test_a_window_whose_end_only_the_command_hears_completes_nothing(here: Desk, item: str) -> None:
    """It reads the end of its input and goes; nobody passes a SIGHUP on to the supervisor."""
    leader = "import subprocess, sys, signal; signal.signal(signal.SIGHUP, lambda *_: None);"
    leader += "sys.exit(subprocess.call(sys.argv[1:], preexec_fn=lambda: "
    leader += "signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])))"
    ours, theirs = pty.openpty()
    project = name("project")
    run = [HOLDFAST, "run", "--project", project, "--claim", item, "--complete", "--"]
    command = [sys.executable, "-c", leader, *run, sys.executable, "-c", READS]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *command],
        cwd=here.folder,
        env=here.environ(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with ended_in_time(process):
        seen = b""
        while b"up\r\n" not in seen:
            assert select.select([ours], [], [], ENOUGH_SECONDS)[0], seen
            seen += os.read(ours, 1024)
        os.close(ours)
        process.wait(60)
    [session] = ok(here.api.get("/api/sessions", params={"project_id": project}))["sessions"]
    assert session["status"] == "failed"
    assert session["metadata"]["interrupted_by"] == "a closed terminal"
    assert status_of(here, item) != "completed"


# What is handed on


HANDS_ON = """
import subprocess, sys
daemon = subprocess.Popen(
    [sys.executable, "-c", "import time; time.sleep(741)"], start_new_session=True
)
print("up", daemon.pid, flush=True)
"""


def test_who_hands_its_work_to_a_daemon_and_returns_at_once_has_not_done_it(
    here: Desk, item: str
) -> None:
    run = here.run("--claim", item, "--complete", command=(sys.executable, "-c", HANDS_ON))
    daemon = run.up()

    assert run.end() == 0
    assert f"({daemon})" in run.told
    assert "foreground" in run.told
    assert f"{item} is not completed" in run.told
    assert status_of(here, item) != "completed"
    assert run.session()["metadata"]["left_running"]


def test_who_leaves_its_work_to_nohup_has_not_done_it(here: Desk, item: str) -> None:
    work = "nohup sleep 741 >/dev/null 2>&1 & echo up $!"
    run = here.run("--claim", item, "--complete", command=("sh", "-c", work))
    worker = run.up()

    assert run.end() == 0
    assert f"({worker})" in run.told
    assert f"{item} is not completed" in run.told
    assert status_of(here, item) != "completed"


def test_a_helper_that_is_left_says_nothing_about_the_work(here: Desk, item: str) -> None:
    run = here.run("--claim", item, "--complete", command=("sh", "-c", "sleep 741 & echo up $!"))
    helper = run.up()

    assert run.end() == 0
    assert f"({helper})" in run.told
    assert status_of(here, item) == "completed"


# In time


def test_the_default_grace_leaves_time_for_the_report(here: Desk) -> None:
    shown = subprocess.run(
        [HOLDFAST, "run", "--help"],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "COLUMNS": "200"},
    )
    _, _, about_grace = " ".join(shown.stdout.split()).partition("--grace SECONDS")
    assert "[default: 8.0;" in about_grace.partition("--")[0]
