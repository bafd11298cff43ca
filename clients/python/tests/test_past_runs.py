"""What a run told its processes of itself is not believed once it is over (spec 17, "CLI")."""

from __future__ import annotations

import io
import json
import logging
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.supervised import HOLDFAST, Desk, Run, desk

from holdfast import Client
from holdfast.settings import Settings
from holdfast.stdio import Bridge
from tests.acceptance.serving import Api, name, ok

TELLS = (
    "import json, os, sys; print('up', os.getpid(), flush=True); print(json.dumps(dict("
    "os.environ)), flush=True); sys.stdin.readline()"
)


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def begun(here: Desk) -> tuple[Run, dict[str, str]]:
    """A run, and the environment of what it started."""
    run = here.run(command=(sys.executable, "-c", TELLS))
    run.up()
    return run, json.loads(run.line())


def claim(here: Desk, environ: dict[str, str], item: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HOLDFAST, "claim", item], env=environ, cwd=here.folder, capture_output=True, text=True
    )


def test_while_the_run_goes_on_commands_speak_for_it(here: Desk) -> None:
    run, environ = begun(here)
    item = name("item")

    assert claim(here, environ, item).returncode == 0
    assert ok(here.api.get(f"/api/claims/{item}"))["holder"] == environ["HOLDFAST_SESSION_ID"]
    run.say("")
    assert run.end() == 0


def test_a_command_of_a_run_that_is_over_writes_nothing_and_says_so(here: Desk) -> None:
    run, environ = begun(here)
    run.say("")
    assert run.end() == 0
    item = name("item")
    ended = claim(here, environ, item)

    assert ended.returncode == 3
    assert "is over" in ended.stderr
    assert here.api.get(f"/api/claims/{item}").status_code == 404
    doctor = subprocess.run([HOLDFAST, "doctor"], env=environ, capture_output=True, text=True)
    assert "is over" in doctor.stdout


def test_nor_does_one_whose_supervisor_was_killed_revive_its_session(here: Desk) -> None:
    """Not even once somebody else carries the very session on."""
    run, environ = begun(here)
    session = environ["HOLDFAST_SESSION_ID"]
    run.process.kill()
    run.process.wait()
    other = here.carry_on(
        run.project,
        *("--session", session, "--instance", environ["HOLDFAST_INSTANCE_ID"]),
        command=(sys.executable, "-c", TELLS),
    )
    other.up()
    now = json.loads(other.line())
    assert now["HOLDFAST_SESSION_ID"] == session

    assert claim(here, environ, "one").returncode == 3
    assert claim(here, now, "two").returncode == 0
    other.say("")
    assert other.end() == 0


def test_the_sdk_does_not_take_up_the_ids_and_says_so(
    here: Desk, caplog: pytest.LogCaptureFixture
) -> None:
    run, environ = begun(here)
    assert Settings.load(environ).session_id == environ["HOLDFAST_SESSION_ID"]
    run.say("")
    assert run.end() == 0
    settings = Settings.load(environ)
    with caplog.at_level(logging.WARNING), Client(settings=settings):
        pass

    assert (settings.session_id, settings.instance_id) == (None, None)
    assert environ["HOLDFAST_SESSION_ID"] in settings.past_run
    assert "is over" in caplog.text


def test_a_tool_is_not_called_in_the_name_of_a_run_that_is_over(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, environ = begun(here)
    run.say("")
    assert run.end() == 0
    for variable, value in environ.items():
        if variable.startswith("HOLDFAST_"):
            monkeypatch.setenv(variable, value)
    arguments = {"session_id": environ["HOLDFAST_SESSION_ID"], "item_id": "x"}
    call = {
        "jsonrpc": "2.0",
        "id": 1,
        "method": "tools/call",
        "params": {"name": "claim", "arguments": arguments},
    }
    sink = io.BytesIO()
    Bridge(Settings.load(), io.BytesIO(json.dumps(call).encode() + b"\n"), sink).run()

    answer = json.loads(sink.getvalue())
    assert answer["error"]["data"]["code"] == "run_over"


def test_elsewhere_nobody_can_tell_and_the_service_decides(here: Desk) -> None:
    run, environ = begun(here)
    run.say("")
    assert run.end() == 0
    host, _, rest = environ["HOLDFAST_SUPERVISOR"].partition("/")
    assert rest
    environ["HOLDFAST_SUPERVISOR"] = f"another-{host}/{rest}"

    assert Settings.load(environ).session_id == environ["HOLDFAST_SESSION_ID"]
    ended = claim(here, environ, "item")
    assert ended.returncode == 3
    assert "completed" in ended.stderr
