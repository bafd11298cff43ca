"""A process of the SDK that is told to end, or just ends, leaves nothing open (S4 4.3)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from holdfast.endings import endings
from tests.acceptance.serving import Api, Json, ok
from tests.support.waiting import eventually

BEGIN = """
import os, signal, sys, threading, time
from holdfast import Client
client = Client(lenient=True)
def say(word): os.write(1, (str(word) + "\\n").encode())
"""
WAITS = (
    BEGIN
    + """
with client.instance("odin") as agent, agent.session() as session, session.task("parse"):
    say("up")
    signal.pause()
"""
)


@contextmanager
def program(api: Api, script: str) -> Iterator[subprocess.Popen[str]]:
    environ = {
        **os.environ,
        "HOLDFAST_URL": str(api.base_url).rstrip("/"),
        "HOLDFAST_API_KEY": str(api.key),
    }
    with subprocess.Popen(
        [sys.executable, "-c", script],
        env=environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def heard(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def session_of(api: Api) -> Json:
    [session] = ok(api.get("/api/sessions"))["sessions"]
    found: Json = session
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_what_is_open_and_says_so(api: Api, number: signal.Signals) -> None:
    with program(api, WAITS) as process:
        assert heard(process) == "up"
        process.send_signal(number)
        assert process.wait(60) == 128 + number

    session = session_of(api)
    assert session["status"] == "failed"
    assert session["metadata"]["error_message"] == f"ended by {number.name}"
    [instance] = ok(api.get("/api/instances"))["instances"]
    assert instance["status"] == "closed"
    [task] = ok(api.get("/api/tasks", params={"session_id": session["session_id"]}))["tasks"]
    assert task["status"] == "failed"


def test_it_is_noted_in_the_midst_of_an_event_loop(api: Api) -> None:
    script = (
        BEGIN
        + """
import asyncio
async def work():
    with client.session("odin"):
        say("up")
        await asyncio.sleep(600)
asyncio.run(work())
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert session_of(api)["status"] == "failed"


def test_whoever_has_a_handler_of_his_own_keeps_it(api: Api) -> None:
    script = (
        BEGIN
        + """
signal.signal(signal.SIGTERM, lambda *_: say("mine"))
with client.session("odin"):
    say("up")
    sys.stdin.readline()
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert heard(process) == "mine"
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(60) == 0
    assert session_of(api)["status"] == "completed"


def test_who_has_nothing_open_dies_of_the_signal_as_ever(api: Api) -> None:
    script = (
        BEGIN
        + """
with client.session("odin"):
    pass
say("up")
signal.pause()
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    assert session_of(api)["status"] == "completed"


@pytest.mark.parametrize("is_daemon", [False, True])
def test_what_another_thread_has_begun_ends_with_the_process(api: Api, is_daemon: bool) -> None:
    script = (
        BEGIN.replace("import os", "import holdfast.endings, os")
        + f"""
holdfast.endings.GRACE_SECONDS = 0.2
def work():
    with client.session("odin"):
        say("up")
        threading.Event().wait()
thread = threading.Thread(target=work, daemon={is_daemon})
thread.start()
thread.join()
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert process.wait(60) != 0
    assert session_of(api)["status"] == "failed"


def test_tasks_of_an_event_loop_say_what_ended_them(api: Api) -> None:
    script = (
        BEGIN
        + """
import asyncio
async def work():
    with client.session("odin"):
        asyncio.get_running_loop().call_soon(say, "up")
        await asyncio.Event().wait()
asyncio.run(work())
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert process.wait(60) == 128 + signal.SIGTERM
    assert "SIGTERM" in session_of(api)["metadata"]["error_message"]


def test_a_forked_child_ends_nothing_of_its_parent_s(api: Api) -> None:
    script = (
        BEGIN
        + """
with client.session("odin") as session:
    child = os.fork()
    if child == 0:
        say("child")
        sys.stdin.readline()
        sys.exit(0)
    other = os.fork()
    if other == 0:
        say("child")
        signal.pause()
    say(other)
    assert os.waitpid(child, 0)[1] == 0
    assert os.waitpid(other, 0)[1] == signal.SIGTERM
    say(client.sessions.get(session.id)["status"])
"""
    )
    with program(api, script) as process:
        words = [heard(process) for _ in range(3)]
        [other] = [int(word) for word in words if word != "child"]
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
        os.kill(other, signal.SIGTERM)
        assert heard(process) == "active"
        assert process.wait(60) == 0
    assert session_of(api)["status"] == "completed"


def test_what_was_never_left_ends_with_the_process(api: Api) -> None:
    script = (
        BEGIN
        + """
session = client.session("odin").__enter__()
"""
    )
    with program(api, script) as process:
        assert process.wait(60) == 0
    session = session_of(api)
    assert session["status"] == "failed"
    assert "process ended" in session["metadata"]["error_message"]


def test_a_program_that_swallows_the_end_is_ended_all_the_same(api: Api) -> None:
    script = (
        BEGIN.replace("import os", "import holdfast.endings, os")
        + """
holdfast.endings.GRACE_SECONDS = 0.2
def work():
    with client.session("odin"):
        say("up")
        threading.Event().wait()
with client.instance("odin"):
    threading.Thread(target=work).start()
    while True:
        try:
            signal.pause()
        except BaseException:
            pass
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM
    assert session_of(api)["status"] == "failed"


def test_a_second_signal_ends_it_at_once(api: Api) -> None:
    script = (
        BEGIN
        + """
with client.session("odin"):
    try:
        say("up")
        signal.pause()
    finally:
        say("tidying")
        signal.pause()
"""
    )
    with program(api, script) as process:
        assert heard(process) == "up"
        process.terminate()
        assert heard(process) == "tidying"
        process.terminate()
        assert process.wait(60) == -signal.SIGTERM


def test_nothing_of_it_stays_in_this_process() -> None:
    eventually(lambda: not endings._mine(), "the end of what other tests had open")
