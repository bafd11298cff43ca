"""What a former run started, and lives, says nothing more in its name: by the fence it was told."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from clients.python.tests.supervised import HOLDFAST, Desk, Run, desk

from holdfast import Client, Conflict
from holdfast.proof import FENCES, TOOLS, heard, proven, told
from holdfast.request import Request
from holdfast.settings import Settings
from holdfast.stdio import Bridge
from interfaces.carry_out import accepted, path_parameters
from interfaces.operations import OPERATIONS
from tests.acceptance.serving import Api, Json, name, ok

# Says that it is up and what its environment is, and ends as it is told.
TELLS = (
    "import json, os, sys; print('up', os.getpid(), flush=True);"
    " print(json.dumps(dict(os.environ)), flush=True); sys.exit(int(sys.stdin.readline()))"
)
Environ = dict[str, str]


@pytest.fixture
def here(api: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(api, tmp_path / "work") as it:
        yield it


def begun(run: Run) -> Environ:
    """The environment of what a run has started."""
    run.up()
    environ: Environ = json.loads(run.line())
    return environ


@pytest.fixture
def taken_up(here: Desk) -> Iterator[tuple[Environ, Environ]]:
    """What two runs told their commands: one that was taken over, and lives, and the present one.

    The first has not been told yet: its supervisor beats once an hour.
    """
    command = (sys.executable, "-c", TELLS)
    first = here.run("--interval", "3600", "--claim", name("item"), command=command)
    former = begun(first)
    session = former["HOLDFAST_SESSION_ID"]
    second = here.carry_on(first.project, "--session", session, "--takeover", command=command)
    yield former, begun(second)
    first.say("0")
    second.say("0")
    assert (first.end(), second.end()) == (0, 0)


def holdfast(here: Desk, environ: Environ, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [HOLDFAST, *words], env=environ, cwd=here.folder, capture_output=True, text=True
    )


def record(here: Desk, environ: Environ) -> list[Json]:
    """All that is on record of a run's session, instance and item, but for heartbeats."""
    session, instance = environ["HOLDFAST_SESSION_ID"], environ["HOLDFAST_INSTANCE_ID"]
    item = environ["HOLDFAST_ITEM"]
    found: list[Json] = []
    for stream in (f"session-{session}", f"instance-{instance}", f"claim-{item}"):
        events = ok(here.api.get(f"/api/streams/{stream}/events"))["events"]
        found += [event for event in events if "heartbeat" not in event["event_type"]]
    return found


@pytest.mark.parametrize("named", [False, True])
@pytest.mark.parametrize("verb", ["complete", "release", "claim"])
def test_commands_of_a_run_that_was_taken_over_are_refused(
    here: Desk, taken_up: tuple[Environ, Environ], verb: str, named: bool
) -> None:
    former, present = taken_up
    item = name("item") if verb == "claim" else former["HOLDFAST_ITEM"]
    before = record(here, former)
    holder = ["--session", former["HOLDFAST_SESSION_ID"]] if named else []
    refused = holdfast(here, former, verb, item, *holder)

    assert refused.returncode == 3
    assert "Another supervisor has taken up" in refused.stderr
    assert record(here, former) == before
    assert holdfast(here, present, verb, item, *holder).returncode == 0


def test_nor_does_it_end_the_session_or_the_instance(
    here: Desk, taken_up: tuple[Environ, Environ]
) -> None:
    former, _ = taken_up
    before = record(here, former)
    for kind in ("SESSION", "INSTANCE"):
        refused = holdfast(here, former, "end", former[f"HOLDFAST_{kind}_ID"])
        assert refused.returncode == 3
        assert "Another supervisor" in refused.stderr
    assert record(here, former) == before


SAYS: list[Callable[[Client, Environ], object]] = [
    lambda c, e: c.sessions.beat(e["HOLDFAST_SESSION_ID"]),
    lambda c, e: c.sessions.update(e["HOLDFAST_SESSION_ID"], status="paused"),
    lambda c, e: c.sessions.complete(e["HOLDFAST_SESSION_ID"]),
    lambda c, e: c.sessions.mark_failed(e["HOLDFAST_SESSION_ID"], "gone"),
    lambda c, e: c.sessions.mark_stalled(e["HOLDFAST_SESSION_ID"]),
    lambda c, e: c.sessions.delete(e["HOLDFAST_SESSION_ID"]),
    lambda c, e: c.tasks.create(e["HOLDFAST_SESSION_ID"], e["PROJECT"], "task"),
    lambda c, e: c.instances.beat(e["HOLDFAST_INSTANCE_ID"], activity="working"),
    lambda c, e: c.instances.emit(e["HOLDFAST_INSTANCE_ID"], "command_logged", {"command": "x"}),
    lambda c, e: c.instances.checkpoint(e["HOLDFAST_INSTANCE_ID"], "here", {"at": 1}),
    lambda c, e: c.instances.close(e["HOLDFAST_INSTANCE_ID"]),
    lambda c, e: c.work_items.claim_next(session_id=e["HOLDFAST_SESSION_ID"]),
    lambda c, e: c.work_items.cancel(e["HOLDFAST_ITEM"], session_id=e["HOLDFAST_SESSION_ID"]),
]


def test_nothing_that_its_program_says_is_stored(
    here: Desk, taken_up: tuple[Environ, Environ]
) -> None:
    former, _ = taken_up
    session = here.api.get_session(former["HOLDFAST_SESSION_ID"])
    former = {**former, "PROJECT": session["project_id"]}
    before = record(here, former)
    with Client(settings=Settings.load(former)) as client:
        for say in SAYS:
            with pytest.raises(Conflict) as refusal:
                say(client, former)
            assert refusal.value.code == "supervisor_replaced"
        beats = [
            {f"{kind}_id": former[f"HOLDFAST_{kind.upper()}_ID"]}
            for kind in ("session", "instance")
        ]
        results = client.beat_all(beats)["results"]
    assert [one["error"]["code"] for one in results] == ["supervisor_replaced"] * 2
    assert record(here, former) == before


def call(tool: str, **arguments: Any) -> bytes:
    params = {"name": tool, "arguments": arguments}
    message = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params}
    return json.dumps(message).encode() + b"\n"


def test_nor_is_a_tool_called_in_its_name(
    here: Desk, taken_up: tuple[Environ, Environ], monkeypatch: pytest.MonkeyPatch
) -> None:
    for whose, is_refused in zip(taken_up, (True, False), strict=True):
        for variable, value in whose.items():
            if variable.startswith("HOLDFAST_"):
                monkeypatch.setenv(variable, value)
        sink = io.BytesIO()
        asks = call(
            "mcp_meta_emit_event",
            instance_id=whose["HOLDFAST_INSTANCE_ID"],
            event_type="command_logged",
            event_data={"command": "make"},
        )
        Bridge(Settings.load(whose), io.BytesIO(asks), sink).run()
        result = json.loads(sink.getvalue())["result"]
        assert result.get("isError", False) is is_refused, result
        if is_refused:
            assert "supervisor_replaced" in str(result["content"])


def test_while_the_service_is_away_what_is_kept_has_the_fence_too(
    here: Desk, taken_up: tuple[Environ, Environ], tmp_path: Path
) -> None:
    former, _ = taken_up
    before = record(here, former)
    nowhere = {**former, "HOLDFAST_URL": "http://127.0.0.1:9"}
    settings = Settings.load(nowhere)
    with Client(settings=settings, lenient=True, retries=0) as client:
        client.sessions.complete(former["HOLDFAST_SESSION_ID"])
        kept = client.spool.first()
    assert kept is not None
    assert (
        json.loads(kept.body)["supervisor_fence"]
        == heard(former[FENCES])[former["HOLDFAST_SESSION_ID"]]
    )
    assert record(here, former) == before


def test_a_run_within_a_run_says_nothing_of_the_item_around_it(here: Desk) -> None:
    item = name("item")
    inner = [HOLDFAST, "run", "--project", name("inner"), "--", sys.executable, "-c", TELLS]
    run = here.run("--claim", item, command=(*inner,))
    environ = begun(run)
    assert environ["HOLDFAST_ITEM"] == environ["HOLDFAST_FENCE"] == ""
    assert set(heard(environ[FENCES])) == {
        environ["HOLDFAST_SESSION_ID"],
        environ["HOLDFAST_INSTANCE_ID"],
    }
    run.say("0")
    assert run.end() == 0


def test_the_variable_is_read_as_it_is_written() -> None:
    fences = {"3f2a-unsent": 7, "p-1-PS-8f4a2b": 1}
    assert heard(told(fences)) == fences
    assert heard("a=1 b c= =2 d=x e=-1 f==3 g=٣") == {"a": 1, "f=": 3}


def test_every_write_for_a_session_or_instance_that_takes_a_fence_gets_it() -> None:
    """Whatever operation takes one, but taking up and putting down, which name their own."""
    apart = {"session_put_down", "instance_put_down", "task_update", "task_delete"}
    for operation in OPERATIONS:
        fields = {*path_parameters(operation), *accepted(operation)}
        takes = "supervisor_fence" in fields and operation.name not in apart
        path = operation.path.replace("{item_id:path}", "item").replace("{task_id}", "task")
        path = path.replace("{machine_id:path}", "machine")
        path = path.replace("{session_id}", "mine").replace("{instance_id}", "mine")
        if operation.query is None and operation.name not in apart:
            for holder in ("session_id", "instance_id"):
                request = Request(operation.verb, path, {holder: "mine"})
                with_it = proven(request, {"mine": 4}.get).body or {}
                assert ("supervisor_fence" in with_it) is takes, operation.name
        if operation.tool and operation.query is None:
            assert (operation.tool.name in TOOLS) is takes, operation.name
