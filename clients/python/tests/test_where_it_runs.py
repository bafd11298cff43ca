"""Wherever it runs, the work starts: what the machine says of itself is an optional fact."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST

from holdfast.facts import fact
from tests.acceptance.serving import Api, Json, Server, ok

Begin = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture
def begin(server: Server, api: Api, tmp_path: Path) -> Begin:
    """Runs a command under supervision in a shell that first does something to where it is."""

    def run(
        before: str, command: Sequence[str | bytes] = ("true",), **environ: str | None
    ) -> subprocess.CompletedProcess[bytes]:
        given: Mapping[str, str | None] = {
            "HOLDFAST_URL": server.url,
            "HOLDFAST_API_KEY": api.key,
            "HOLDFAST_SPOOL_DIR": str(tmp_path / "spool"),
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            **environ,
        }
        script = f'{before}; exec "$@"'
        return subprocess.run(
            ["/bin/sh", "-c", script, "sh", HOLDFAST, "run", "--", *command],
            env={name: value for name, value in given.items() if value is not None},
            cwd=tmp_path,
            capture_output=True,
            timeout=60,
        )

    return run


def only_session(api: Api) -> Json:
    [session] = ok(api.get("/api/sessions"))["sessions"]
    found: Json = session
    return found


DEEP = "i=0; while [ $i -lt 15 ]; do mkdir " + "d" * 200 + " && cd " + "d" * 200
PLACES = {
    "a deleted folder": "mkdir gone && cd gone && rmdir ../gone",
    "a path of 3,030 characters": f"{DEEP}; i=$((i+1)); done",
    "a folder whose name is no text": 'n=$(printf \'a\\377b\') && mkdir "$n" && cd "$n"',
    "a folder with a line feed": 'n=$(printf \'a\\nb\') && mkdir "$n" && cd "$n"',
    "a folder with an escape": 'n=$(printf \'a\\033[31mb\') && mkdir "$n" && cd "$n"',
    "a folder of blanks": "mkdir '   ' && cd '   '",
    "a folder in Cyrillic": "mkdir проект && cd проект",
    "the root": "cd /",
}


@pytest.mark.parametrize("place", PLACES)
def test_the_work_starts_wherever_it_is(begin: Begin, api: Api, place: str) -> None:
    done = begin(PLACES[place], ["sh", "-c", "echo it ran"])

    assert (done.returncode, done.stdout) == (0, b"it ran\n"), done.stderr
    assert b"Traceback" not in done.stderr
    session = only_session(api)
    assert session["status"] == "completed"
    assert len(session["codebase"] or "") <= 1000


ENVIRONMENTS: dict[str, dict[str, str | None]] = {
    "no home": {"HOME": None, "USER": None, "HOLDFAST_SPOOL_DIR": None},
    "a home that is not there": {"HOME": "/nowhere/at/all", "HOLDFAST_SPOOL_DIR": None},
    "a home that cannot be written": {"HOME": "/proc", "HOLDFAST_SPOOL_DIR": None},
    "a strange time zone and language": {"TZ": "Nowhere/Land", "LANG": "xx_YY.ISO-8859-77"},
    "plain C": {"LANG": "C", "LC_ALL": "C", "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"},
    "a terminal that nobody knows": {"TERM": "\x1b", "COLUMNS": "many"},
}


@pytest.mark.parametrize("environ", ENVIRONMENTS)
def test_the_work_starts_whatever_the_environment_says(
    begin: Begin, api: Api, environ: str
) -> None:
    done = begin("true", ["sh", "-c", "echo it ran"], **ENVIRONMENTS[environ])

    assert (done.returncode, done.stdout) == (0, b"it ran\n"), done.stderr
    assert b"Traceback" not in done.stderr
    assert only_session(api)["status"] == "completed"


def test_nothing_is_kept_in_a_folder_called_after_a_home_that_is_not_known(
    begin: Begin, tmp_path: Path
) -> None:
    begin("true", HOME=None, USER=None, HOLDFAST_SPOOL_DIR=None, HOLDFAST_URL="http://127.0.0.1:9")

    assert not (tmp_path / "~").exists()


def test_arguments_that_are_no_text_reach_the_command_and_are_recorded_spelled_out(
    begin: Begin, api: Api
) -> None:
    show = 'printf %s "$1" | od -An -tx1'
    done = begin("true", ["sh", "-c", show, "sh", b"a\xff\xfe"])

    assert (done.returncode, done.stdout.split()) == (0, [b"61", b"ff", b"fe"]), done.stderr
    assert "\\xff\\xfe" in only_session(api)["metadata"]["command"]


def test_the_end_of_a_block_that_failed_over_a_strange_name_is_recorded(
    begin: Begin, server: Server, api: Api, tmp_path: Path
) -> None:
    """The message of an error may have a file's name in it."""
    script = (
        "from holdfast import Client\n"
        "with Client() as client, client.session('odin', 'laptop'):\n"
        "    open(b'/nowhere/\\xff\\x1b'.decode('utf-8', 'surrogateescape'))\n"
    )
    environ = {"HOLDFAST_URL": server.url, "HOLDFAST_API_KEY": str(api.key), "HOME": str(tmp_path)}
    subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, timeout=60)

    assert only_session(api)["status"] == "failed"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("/home/odin", "/home/odin"),
        ("", None),
        (" \n", "\\x0a"),
        ("a\udcffb", "a\\xffb"),
        ("\ud800", "\\ud800"),
        ("\x1b[2J\x00", "\\x1b[2J\\x00"),
        ("проект", "проект"),
    ],
)
def test_a_fact_is_text_that_can_be_shown(text: str, shown: str | None) -> None:
    assert fact(text) == shown


def test_what_is_too_long_keeps_its_beginning_and_its_end() -> None:
    shown = fact("/begin/" + "x" * 5_000 + "/end")

    assert shown is not None
    assert len(shown) == 1_000
    assert (shown.startswith("/begin/x"), shown.endswith("x/end")) == (True, True)
