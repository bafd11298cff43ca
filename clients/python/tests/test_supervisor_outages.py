"""``holdfast run`` while the service is away: the work goes on, and all of it is recorded later."""

from __future__ import annotations

import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest
from clients.python.tests.conftest import Connect
from clients.python.tests.supervised import Desk, Run, desk

from holdfast import Client
from holdfast.spool import Spool
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Server, cloned, ok
from tests.support.proxy import HttpWire, http_wire
from tests.support.waiting import eventually


@pytest.fixture
def here(api: Api, wire: HttpWire, tmp_path: Path) -> Iterator[Desk]:
    """A desk at the end of a wire."""
    with desk(api, tmp_path / "work", wire.url) as it:
        yield it


def delivered(client: Client) -> None:
    """Wait until everything that was kept has been sent, and see that nothing was refused."""
    eventually(lambda: not client.spool.has_any(), "the delivery")
    assert client.spool.refused() == []


def finished(run: Run, code: int = 0) -> None:
    """End the command, and with it the run."""
    run.say(str(code))
    assert run.end() == code, run.told


def test_a_run_that_sees_no_service_at_all_is_recorded_in_order_later(
    here: Desk, wire: HttpWire, connect: Connect
) -> None:
    wire.down()
    run = here.run("--interval", "0.1")
    run.up()
    finished(run, 3)
    assert "kept" in run.told
    wire.up()
    delivered(connect(wire.url, lenient=True))

    session, instance = run.session(), run.instance()
    assert session["status"] == "failed"
    assert session["metadata"]["exit_code"] == 3
    assert session["instance_id"] == instance["instance_id"]
    assert instance["status"] == "closed"
    assert len(run.events("command_logged")) == 1


def test_a_run_that_begins_without_the_service_is_seen_once_it_is_there(
    here: Desk, wire: HttpWire, connect: Connect
) -> None:
    wire.down()
    run = here.run("--interval", "0.1")
    run.up()
    placeholder = run.ask("HOLDFAST_SESSION_ID")
    assert placeholder.startswith("unsent-session-")
    wire.up()

    def beaten() -> bool:
        sessions = ok(here.api.get("/api/sessions", params={"project_id": run.project}))["sessions"]
        return bool(sessions and sessions[0]["last_heartbeat"] > sessions[0]["started_at"])

    eventually(beaten, "the session with a heartbeat")
    # What the command was given is good for whatever it has to say.
    assert connect(wire.url).sessions.get(placeholder)["session_id"] == run.session()["session_id"]
    finished(run)
    assert run.session()["status"] == "completed"


def test_the_work_goes_on_while_the_service_is_away_for_a_while(here: Desk, wire: HttpWire) -> None:
    run = here.run("--interval", "0.1")
    run.up()
    wire.down()
    run.warned("cannot be reached")
    assert run.ask("HOLDFAST_URL") == wire.url
    wire.up()
    beaten = run.session()["last_heartbeat"]
    eventually(lambda: run.session()["last_heartbeat"] > beaten, "a heartbeat")
    assert run.ask("HOLDFAST_URL") == wire.url
    finished(run)

    assert run.session()["status"] == "completed"
    assert len(run.events("command_logged")) == 1


@contextmanager
def nobody_sending(spool: Spool) -> Iterator[None]:
    """Within the block everything that is kept stays where it is."""

    def held_up() -> bool:
        with ExitStack() as attempt:
            if attempt.enter_context(spool.delivering()):
                block.enter_context(attempt.pop_all())
                return True
        return False

    with ExitStack() as block:
        eventually(held_up, "a moment at which nobody sends")
        yield


AGENT = """
import os, sys
from holdfast import Client
from holdfast.spool import Spool

client = Client(lenient=True)
print("up", os.getpid(), flush=True)
for line in sys.stdin:
    if line.strip() == "end":
        sys.exit()
    event = "epic_started", {"epic_id": line.strip()}
    print("unsent" in client.instances.emit(os.environ["HOLDFAST_INSTANCE_ID"], *event), flush=True)
"""


def test_the_end_does_not_overtake_what_the_command_itself_has_kept(
    here: Desk, wire: HttpWire, connect: Connect, api: Api
) -> None:
    """An instance that is closed takes nothing more: all of it would be lost."""
    run = here.run("--interval", "0.1", command=(sys.executable, "-c", AGENT))
    run.up()
    assert run.ask("0") == "False"
    wire.down()
    run.warned("cannot be reached")
    assert [run.ask(f"{number}") for number in range(1, 21)] == ["True"] * 20
    with nobody_sending(Spool(Path(os.environ["HOLDFAST_SPOOL_DIR"]), wire.url, api.key)):
        wire.up()
        beaten = run.session()["last_heartbeat"]
        eventually(lambda: run.session()["last_heartbeat"] > beaten, "a heartbeat")
        for number in range(21, 29):
            run.ask(f"{number}")
        run.say("end")
        assert run.end() == 0
    delivered(connect(wire.url, lenient=True))

    path = f"/api/instances/{run.instance()['instance_id']}/events"
    events = ok(here.api.get(path, params={"limit": 1000}))["events"]
    told = [e for e in events if e["event_type"] in ("epic_started", "command_logged")]
    assert [e["event_data"].get("epic_id") for e in told] == [*map(str, range(29)), None]
    assert run.instance()["status"] == "closed"
    assert run.session()["status"] == "completed"


def test_a_run_delivers_at_its_end_what_its_command_has_left_behind(
    here: Desk, wire: HttpWire, api: Api
) -> None:
    run = here.run("--interval", "0.1", command=(sys.executable, "-c", AGENT))
    run.up()
    wire.down()
    assert run.ask("0") == "True"
    wire.up()
    run.say("end")
    assert run.end() == 0

    assert len(run.events("epic_started")) == len(run.events("command_logged")) == 1
    assert run.instance()["status"] == "closed"
    assert "writes are kept" not in run.told


def test_an_end_without_the_service_is_reported_once_by_the_next_run(
    here: Desk, wire: HttpWire
) -> None:
    first = here.run("--claim", "item")
    first.up()
    wire.down()
    finished(first, 5)
    assert first.session()["status"] == "active"
    wire.up()
    second = here.run()
    second.up()
    eventually(lambda: first.session()["status"] == "failed", "the report of the first")
    eventually(lambda: first.instance()["status"] == "closed", "all of it")

    assert first.session()["metadata"]["exit_code"] == 5
    assert ok(here.api.get("/api/claims/item"))["holder"] is None
    assert len(first.events("command_logged")) == 1
    finished(second)


def test_a_report_whose_answer_was_lost_is_not_made_twice(here: Desk, wire: HttpWire) -> None:
    run = here.run()
    run.up()
    wire.lose("reply", "command_logged")
    finished(run, 2)

    assert wire.broken.is_set()
    assert len(run.events("command_logged")) == 1
    assert run.session()["status"] == "failed"


def test_a_service_that_is_killed_and_started_again_finds_the_run_still_there(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    with (
        cloned(cluster, template) as url,
        Server(url, tmp_path) as first,
        first.world() as api,
        http_wire(first.url) as wire,
        desk(api, tmp_path / "work", wire.url) as here,
    ):
        run = here.run("--claim", "item", "--interval", "0.1", "--complete")
        run.up()
        session_id = run.session()["session_id"]
        first.process.send_signal(signal.SIGKILL)
        first.process.wait()
        run.warned("cannot be reached")

        with Server(url, tmp_path, API_KEYS=f"{api.namespace}:{api.key}") as second:
            wire.target = second.url
            with Api(second.url, api.key, api.namespace) as now:
                before = now.get_session(session_id)["last_heartbeat"]
                eventually(
                    lambda: now.get_session(session_id)["last_heartbeat"] > before,
                    "a heartbeat of the run",
                )
                finished(run)
                assert now.get_session(session_id)["status"] == "completed"
                assert ok(now.get("/api/work-items/item"))["status"] == "completed"


def test_a_service_that_hangs_does_not_hold_up_the_end_for_long(
    here: Desk, server: Server, connect: Connect
) -> None:
    """Frozen, not dead: it takes connections and never answers."""
    run = here.run()
    run.up()
    server.process.send_signal(signal.SIGSTOP)
    try:
        finished(run, 4)
    finally:
        server.process.send_signal(signal.SIGCONT)
    delivered(connect(here.url, lenient=True))

    assert run.session()["status"] == "failed"
    assert len(run.events("command_logged")) == 1


def test_with_a_key_that_the_service_does_not_know_the_work_goes_on_and_it_is_said(
    here: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(here.api, "key", "nobody-s")
    run = here.run()
    run.up()
    finished(run, 6)

    assert "refuses this API key" in run.told


def test_a_signal_during_the_first_words_with_the_service_ends_the_run_before_it_begins(
    api: Api, tmp_path: Path
) -> None:
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        desk(api, tmp_path / "work", f"http://127.0.0.1:{silent.getsockname()[1]}") as here,
    ):
        run = here.run()
        taken, _ = silent.accept()
        with taken:
            assert taken.recv(1) == b"P"
            run.process.terminate()
            assert run.end() == 128 + signal.SIGTERM

    assert run.printed == ""
