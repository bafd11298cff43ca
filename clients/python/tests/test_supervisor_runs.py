"""``holdfast run``: a command's life from start to end, and what is on record of it (spec 11)."""

from __future__ import annotations

import os
import select
import signal
import socket
import stat
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
    desk,
    ended_in_time,
    gone,
)

from tests.acceptance.serving import Api, Json, name, ok
from tests.support.commands import Cli
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    """A desk in a folder without git."""
    with desk(api, tmp_path / "work") as it:
        yield it


def test_a_command_runs_as_an_instance_with_a_session(here: Desk) -> None:
    run = here.run("--machine", "laptop", "--instance-type", "MS", "--name", "parser")
    run.up()
    session, instance = run.session(), run.instance()

    assert session["status"] == "active"
    assert session["machine_id"] == "laptop"
    assert session["instance_id"] == instance["instance_id"]
    assert session["hostname"] == instance["hostname"] == socket.gethostname()
    assert session["codebase"] == instance["codebase"] == str(here.folder)
    assert (instance["type"], instance["name"]) == ("MS", "parser")
    assert run.ask("HOLDFAST_SESSION_ID") == session["session_id"]
    assert run.ask("HOLDFAST_INSTANCE_ID") == instance["instance_id"]
    assert run.ask("HOLDFAST_URL") == here.url
    assert run.ask("HOLDFAST_API_KEY") == here.api.key

    run.say("0")
    assert run.end() == 0
    assert run.session()["status"] == "completed"
    assert run.session()["metadata"]["exit_code"] == 0
    assert run.instance()["status"] == "closed"


def test_a_failure_is_recorded_with_its_exit_code_which_is_passed_through(here: Desk) -> None:
    run = here.run()
    run.up()
    run.say("7")

    assert run.end() == 7
    session = run.session()
    assert session["status"] == "failed"
    assert session["metadata"]["exit_code"] == 7
    assert "signal" not in session["metadata"]
    assert "exited with 7" in session["metadata"]["error_message"]
    [logged] = run.events("command_logged")
    assert logged["event_data"]["exit_code"] == 7
    assert logged["event_data"]["command"].startswith(sys.executable)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
def test_a_command_ended_by_a_signal_is_recorded_as_such(here: Desk, number: int) -> None:
    run = here.run()
    run.up()
    run.say(signal.Signals(number).name)

    assert run.end() == 128 + number
    session = run.session()
    assert session["status"] == "failed"
    assert session["metadata"]["exit_code"] == 128 + number
    assert session["metadata"]["signal"] == signal.Signals(number).name


def test_stdin_and_stdout_are_the_command_s_own(here: Desk) -> None:
    content = os.urandom(300_000)
    done = subprocess.run(
        [HOLDFAST, "run", "cat"],
        input=content,
        cwd=here.folder,
        env=here.environ(),
        stdout=subprocess.PIPE,
        check=True,
        timeout=60,
    )

    assert done.stdout == content


def test_files_that_the_supervisor_inherited_reach_the_command(here: Desk) -> None:
    read_end, write_end = os.pipe()
    code = f"import os; os.write({write_end}, b'inherited')"
    run = here.run(command=(sys.executable, "-c", code), pass_fds=[write_end])
    os.close(write_end)

    assert run.end() == 0
    with os.fdopen(read_end) as inherited:
        assert inherited.read() == "inherited"


def test_options_after_the_command_are_the_command_s(here: Desk) -> None:
    """As with ``env`` and ``timeout``, ``--`` may be left out."""
    arguments = [HOLDFAST, "run", sys.executable, "-c", "import sys; print(sys.argv[1:])", "--help"]
    done = subprocess.run(
        arguments,
        cwd=here.folder,
        env=here.environ(),
        capture_output=True,
        text=True,
        check=True,
    )

    assert done.stdout == "['--help']\n"
    [session] = ok(here.api.get("/api/sessions"))["sessions"]
    assert session["project_id"] == here.folder.name


def test_heartbeats_tell_how_the_working_copy_stands(here: Desk) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=a", "-c", "user.email=a@b")
        command = ["git", *identity, *arguments]
        return subprocess.run(
            command, cwd=here.folder, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-b", "trunk")
    git("commit", "--allow-empty", "-m", "one")
    head = git("rev-parse", "HEAD")
    run = here.run("--interval", "0.1")
    run.up()
    told = {"branch": "trunk", "head": head, "dirty_files": 0, "unpushed_commits": 1}
    eventually(lambda: run.instance()["git"] == told, "the git state")
    (here.folder / "new").touch()
    eventually(lambda: run.instance()["git"] == {**told, "dirty_files": 1}, "the dirty file")
    run.say("0")
    assert run.end() == 0


def test_both_the_instance_and_the_session_are_kept_alive(here: Desk) -> None:
    run = here.run("--interval", "0.1")
    run.up()
    seen = run.session()["last_heartbeat"], run.instance()["last_heartbeat"]
    eventually(lambda: run.session()["last_heartbeat"] > seen[0], "a heartbeat of the session")
    eventually(lambda: run.instance()["last_heartbeat"] > seen[1], "a heartbeat of the instance")
    run.say("0")
    run.end()


# Signals


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_reaches_the_command_which_ends_as_it_likes(here: Desk, number: int) -> None:
    tidy = (
        "import signal, sys\n"
        f"signal.signal({int(number)}, lambda *_: (print('tidied', flush=True), sys.exit(5)))\n"
        "print('up 0', flush=True)\n"
        "while True: signal.pause()"
    )
    run = here.run(command=(sys.executable, "-c", tidy))
    run.up()
    run.process.send_signal(number)

    assert run.line() == "tidied"
    assert run.end() == 5
    assert run.session()["status"] == "failed"


def test_a_signal_that_asks_for_something_else_is_passed_on_too(here: Desk) -> None:
    code = (
        "import signal, sys\n"
        "signal.signal(signal.SIGUSR1, lambda *_: (print('usr1', flush=True), sys.exit(0)))\n"
        "print('up 0', flush=True)\n"
        "while True: signal.pause()"
    )
    run = here.run(command=(sys.executable, "-c", code))
    run.up()
    run.process.send_signal(signal.SIGUSR1)

    assert run.line() == "usr1"
    assert run.end() == 0


STUBBORN = """
import os, signal, subprocess, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c",
    "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); "
    "signal.pause()"], stdout=subprocess.PIPE)
helper.stdout.readline()
print("up", os.getpid(), flush=True)
print(helper.pid, flush=True)
while True: signal.pause()
"""


def test_a_command_that_does_not_end_is_killed_with_all_that_it_started(here: Desk) -> None:
    run = here.run("--grace", "0.3", command=(sys.executable, "-c", STUBBORN))
    pid, helper = run.up(), int(run.line())
    run.process.terminate()

    assert run.end() == 128 + signal.SIGKILL
    gone(pid)
    gone(helper)
    assert run.session()["metadata"]["signal"] == "SIGKILL"
    assert "did not end within 0.3 seconds" in run.told


def test_what_a_shell_leaves_behind_when_it_is_stopped_ends_too(here: Desk) -> None:
    """A shell dies of SIGTERM at once, and what it waits for does not even hear of it."""
    forever = "import os, signal; print('up', os.getpid(), flush=True); signal.pause()"
    run = here.run(command=("sh", "-c", f'{sys.executable} -c "{forever}"; true'))
    worker = run.up()
    run.process.terminate()

    assert run.end() == 128 + signal.SIGTERM
    gone(worker)


# Whole lines: what two threads print goes out in pieces, one between the other's.
COUNTING = """
import os, signal, sys, threading
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
def count():
    for number in range(1, 10):
        signal.sigwait([signal.SIGINT])
        say("interrupts", number)
threading.Thread(target=count, daemon=True).start()
say("up", sys.stdin.isatty(), os.getpgrp() == os.tcgetpgrp(0))
for line in iter(sys.stdin.readline, "quit\\n"):
    say("read", line.strip())
"""


def test_at_a_terminal_the_command_has_it_and_gets_what_is_typed_once(here: Desk) -> None:
    """Ctrl-C interrupts what an agent does; the agent itself goes on, and so does the run."""
    ours, theirs = os.openpty()
    options = ["--grace", "0", "--interval", "0.1"]
    command = [HOLDFAST, "run", *options, sys.executable, "-c", COUNTING]
    process = subprocess.Popen(
        [sys.executable, "-c", IN_TERMINAL, *command],
        cwd=here.folder,
        env=here.environ(),
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
    )
    os.close(theirs)
    with os.fdopen(ours, "rb+", buffering=0) as terminal, ended_in_time(process):
        seen = b""

        def until(words: bytes) -> None:
            nonlocal seen
            while words not in seen:
                assert select.select([terminal], [], [], ENOUGH_SECONDS)[0], seen
                seen += terminal.read(1024)

        # Ctrl-C throws away what the terminal has not shown yet: not before the line is there.
        until(b"up True True\r\n")
        for count in (1, 2):
            terminal.write(b"\x03")
            until(b"interrupts %d\r\n" % count)
        for _ in range(3):
            [session] = ok(here.api.get("/api/sessions"))["sessions"]
            eventually(lambda: has_beaten_since(here.api, session), "a heartbeat")  # noqa: B023
        terminal.write(b"still there\n")
        until(b"read still there\r\n")
        assert b"interrupts 3" not in seen
        terminal.write(b"quit\n")
        assert process.wait(60) == 0
        [session] = ok(here.api.get("/api/sessions"))["sessions"]
        assert session["tty"].startswith("/dev/")
        assert session["status"] == "completed"


def has_beaten_since(api: Api, session: Json) -> bool:
    """Whether the session was alive after it was looked at."""
    now = api.get_session(session["session_id"])["last_heartbeat"]
    return bool(now > session["last_heartbeat"])


# What is not started


def test_a_command_that_is_not_there_is_not_recorded(here: Desk) -> None:
    run = here.run(command=("no-such-command",))

    assert run.end() == 127
    assert "no-such-command: no such command" in run.told
    assert ok(here.api.get("/api/instances"))["instances"] == []


def test_a_file_that_may_not_be_executed_is_not_said_to_be_missing(here: Desk) -> None:
    (here.folder / "nx").write_text("#!/bin/sh\n")
    run = here.run(command=("./nx",))

    assert run.end() == 126
    assert run.told == "holdfast: ./nx: not executable\n"
    assert here.run(command=("./not-there",)).end() == 127
    assert ok(here.api.get("/api/instances"))["instances"] == []


def test_a_command_that_cannot_be_started_is_recorded_as_failed(here: Desk) -> None:
    broken = here.folder / "broken"
    broken.write_bytes(b"\x7fELF but no more")
    broken.chmod(stat.S_IRWXU)
    run = here.run(command=(str(broken),))

    assert run.end() == 126
    assert run.session()["status"] == "failed"
    assert "could not be started" in run.session()["metadata"]["error_message"]


def test_where_a_session_is_at_work_a_second_one_takes_a_free_slot(here: Desk) -> None:
    runs = [here.run("--machine", "laptop")]
    runs[0].up()
    project = runs[0].project
    for slot in (1, 2):
        runs.append(here.run("--machine", "laptop", project=project))
        runs[-1].up()
        assert here.api.get_session(runs[-1].ask("HOLDFAST_SESSION_ID"))["docker_slot"] == slot
    for run in runs:
        run.say("0")
        assert run.end() == 0
    assert "docker slot" not in runs[0].told
    assert [f"docker slot {slot}" in runs[slot].told for slot in (1, 2)] == [True, True]


def test_several_that_start_at_once_all_run(here: Desk) -> None:
    project = name("project")
    runs = [here.run("--machine", "laptop", project=project) for _ in range(5)]
    for run in runs:
        run.up()
    sessions = ok(here.api.get("/api/sessions", params={"project_id": project}))["sessions"]
    assert {s["docker_slot"] for s in sessions} == {None, 1, 2, 3, 4}
    for run in runs:
        run.say("0")
        assert run.end() == 0


def test_a_slot_that_was_named_is_that_slot_or_none(here: Desk) -> None:
    first = here.run("--machine", "laptop", "--slot", "1")
    first.up()
    second = here.run("--machine", "laptop", "--slot", "1", project=first.project)

    assert second.end() == 3
    assert first.session()["session_id"] in second.told
    assert "--slot" in second.told
    first.say("0")
    assert first.end() == 0
    instances = ok(here.api.get("/api/instances"))["instances"]
    assert [i["status"] for i in instances] == ["closed"] * 2


def test_a_machine_whose_slots_are_all_taken_starts_nothing_more(here: Desk) -> None:
    here.api.machine(machine_id="laptop", docker_slots=[7])
    runs = [here.run("--machine", "laptop")]
    runs[0].up()
    runs.append(here.run("--machine", "laptop", project=runs[0].project))
    runs[1].up()
    refused = here.run("--machine", "laptop", project=runs[0].project)

    assert refused.end() == 3
    assert refused.printed == ""
    for run in runs:
        run.say("0")
        assert run.end() == 0


def test_what_broke_off_beside_others_is_recovered_onto_the_same_machine(
    here: Desk, cli: Cli
) -> None:
    runs = [here.run("--machine", "laptop")]
    runs[0].up()
    project = runs[0].project
    for _ in range(2):
        runs.append(here.run("--machine", "laptop", project=project))
        runs[-1].up()
    lost = runs[1].ask("HOLDFAST_SESSION_ID")
    runs[1].say("1")
    assert runs[1].end() == 1
    took_its_slot = here.run("--machine", "laptop", project=project)
    took_its_slot.up()
    cli.ok("recover", lost, "--onto", "laptop")

    heir = here.api.get_session(here.api.get_session(lost)["recovered_to"])
    assert (heir["machine_id"], heir["docker_slot"]) == ("laptop", 3)
    run = here.carry_on(project, "--session", heir["session_id"])
    run.up()
    for each in (runs[0], runs[2], took_its_slot, run):
        each.say("0")
        assert each.end() == 0


def test_replace_takes_the_place_of_a_session_that_is_there(here: Desk) -> None:
    first = here.run("--machine", "laptop")
    first.up()
    replaced = first.session()["session_id"]
    second = here.run("--machine", "laptop", "--replace", project=first.project)
    second.up()

    assert ok(here.api.get(f"/api/sessions/{replaced}"))["status"] == "failed"
    for run in (first, second):
        run.say("0")
        assert run.end() == 0
    assert ok(here.api.get(f"/api/sessions/{replaced}"))["status"] == "failed"


def test_what_is_wrong_with_the_call_is_said_before_anything_happens(here: Desk) -> None:
    wrong_rule = here.run("--restart", "sometimes")
    assert wrong_rule.end() == 2
    assert "never, on-failure[:N], always[:N]" in wrong_rule.told
    wrong_type = here.run("--instance-type", "XX")
    assert wrong_type.end() == 2
    assert "instance_type" in wrong_type.told
    assert ok(here.api.get("/api/instances"))["instances"] == []
