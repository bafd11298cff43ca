"""Commands whose outputs are closed, full, gone, or of an encoding that knows few characters."""

from __future__ import annotations

import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST

from holdfast import Client
from tests.acceptance.serving import Api, Server
from tests.support.commands import Cli

Shell = Callable[..., "subprocess.CompletedProcess[bytes]"]
EVIL = "\x1b[2J\x1b]0;owned\x07\u202eevil\u2066"


@pytest.fixture
def shell(server: Server, api: Api) -> Shell:
    """Runs a line of shell in which ``holdfast`` is the command."""

    def run(line: str, **environ: str) -> subprocess.CompletedProcess[bytes]:
        given = {"HOLDFAST_URL": server.url, "HOLDFAST_API_KEY": str(api.key)}
        folder = os.path.dirname(HOLDFAST)
        path = f"{folder}{os.pathsep}{os.environ['PATH']}"
        spool = {"HOLDFAST_SPOOL_DIR": os.environ["HOLDFAST_SPOOL_DIR"]}
        return subprocess.run(
            ["/bin/bash", "-c", line],
            env={"PATH": path, "HOME": "/tmp", **given, **spool, **environ},
            capture_output=True,
            timeout=60,
        )

    return run


COMMANDS = ["status", "next --json", "doctor", "--help"]
OUTPUTS = ["| head -1", "| true", ">&-", "<&- >&- 2>&-"]


@pytest.mark.parametrize("output", OUTPUTS)
def test_no_output_is_worth_a_traceback(shell: Shell, client: Client, output: str) -> None:
    for number in range(3):
        client.instances.register(f"проект-{number}")
        client.work_items.put(f"item-{number}", title="🚀 " * 200)
    for command in COMMANDS[:2]:
        told = shell(f"holdfast {command} {output}").stderr.decode()
        assert "Traceback" not in told
        assert "Exception ignored" not in told


def test_a_full_disk_is_said_and_is_a_failure(shell: Shell) -> None:
    for command in COMMANDS:
        done = shell(f"holdfast {command} > /dev/full")
        assert done.returncode == 1, command
        assert b"No space left" in done.stderr


def test_an_error_keeps_its_exit_code_though_nobody_can_be_told(shell: Shell) -> None:
    codes = [
        shell(f"holdfast events nobody-at-all {output}").returncode
        for output in ("", "2>&-", "2> /dev/full", ">&- 2>&-")
    ]

    assert codes == [4] * 4


def test_a_command_under_supervision_does_not_care_about_the_streams(shell: Shell) -> None:
    for output in ("<&-", "<&- >&- 2>&-", "2> /dev/full"):
        done = shell(f"holdfast run --project p -- sh -c 'exit 7' {output}")
        assert done.returncode == 7, output
        assert b"Traceback" not in done.stderr


def test_nothing_that_is_opened_takes_the_place_of_a_closed_stream(
    shell: Shell, client: Client
) -> None:
    """What is printed would go into it."""
    shell("holdfast run --project p -- echo hello >&-", HOLDFAST_URL="http://127.0.0.1:9")

    folder = os.environ["HOLDFAST_SPOOL_DIR"]
    contents = [file.read_bytes() for file in Path(folder).rglob("*") if file.is_file()]
    assert contents
    assert not any(b"hello\n" in content for content in contents)


LOCALES = [
    {"LANG": "C", "LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"},
    {"PYTHONIOENCODING": "ascii"},
    {"PYTHONIOENCODING": "iso-8859-1:strict", "LANG": "de_DE.ISO-8859-1"},
    {"PYTHONIOENCODING": "cp437", "TERM": "dumb"},
    {"LANG": "nonsense", "TZ": "No/Where"},
]


@pytest.mark.parametrize("environ", LOCALES)
def test_every_character_can_be_told_in_every_language(
    shell: Shell, client: Client, environ: dict[str, str]
) -> None:
    client.instances.register("проект", name="日本語 🚀")
    client.work_items.put("пункт", title="ß → 🚀")
    for command in ("status", "next"):
        done = shell(f"holdfast {command}", **environ)
        assert done.returncode in (0, 1), done.stderr
        assert b"Traceback" not in done.stderr
    missing = shell("holdfast events $'\\xff\\xfe'", **environ)
    assert missing.returncode in (2, 4)
    assert b"Traceback" not in missing.stderr


def test_what_strangers_wrote_does_not_steer_the_terminal(
    api: Api, client: Client, cli: Cli
) -> None:
    agent = client.instances.register("odin", codebase=EVIL, tty=EVIL)["instance_id"]
    client.instances.beat(agent, activity="waiting_for_human", activity_reason=EVIL)
    client.instances.emit(agent, "epic_started", {"epic_id": EVIL})
    client.work_items.put("item", title=EVIL)
    client.claims.take("item", instance_id=agent, codebase=EVIL, tty=EVIL)
    other = client.sessions.create("odin", "laptop", codebase=EVIL)["session_id"]
    client.sessions.mark_failed(other, EVIL)
    for command in (
        ["status"],
        ["instances"],
        ["next"],
        ["events", agent],
        ["replay", agent],
        ["resume", agent],
        ["topology"],
        ["claim", "item", "--instance", client.instances.register("thor")["instance_id"]],
        ["events", EVIL],
        ["release", EVIL, "--instance", agent],
    ):
        told = cli(*command)
        for steering in ("\x1b", "\x07", "\u202e", "\u2066"):
            assert steering not in told.out + told.err, command


def test_what_the_library_warns_of_does_not_either(shell: Shell) -> None:
    done = shell("holdfast run --project p -- true", HOLDFAST_URL="http://127.0.0.1:9/\x1b[2J")

    assert b"\x1b" not in done.stderr


def test_the_library_s_own_log_is_left_to_those_who_use_it() -> None:
    assert type(logging.lastResort) is logging._StderrHandler  # type: ignore[attr-defined]
