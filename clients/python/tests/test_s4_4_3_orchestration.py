"""S4 4.3: an orchestration that is on record from its start to its end.

The Python client stands in for the editor's extension here: the same requests in the same places.
"""

from __future__ import annotations

import logging

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client, ManagedSession, Unauthorized
from holdfast.heartbeat import INTERVAL_SECONDS
from tests.acceptance.serving import Api, Server, ok
from tests.support.proxy import HttpWire
from tests.support.waiting import eventually


def test_the_start_of_an_orchestration_creates_a_session(client: Client, api: Api) -> None:
    """AC-4.3.a: POST /api/sessions, and the id is kept."""
    with client.session("odin", docker_slot=3, metadata={"branch": "main"}) as session:
        assert session.id is not None
        recorded = api.get_session(session.id)

    assert (recorded["project_id"], recorded["status"]) == ("odin", "active")
    assert recorded["machine_id"] == session.machine_id == recorded["hostname"]
    assert recorded["codebase"]
    assert (recorded["docker_slot"], recorded["metadata"]) == (3, {"branch": "main"})


def test_creating_the_session_is_tried_three_times_more(wire: HttpWire, connect: Connect) -> None:
    """AC-4.3.a: "Retry up to 3 times with exponential backoff"."""
    busy = b"HTTP/1.1 503 -\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    wire.answer(busy, busy, busy)

    with connect(wire.url).session("odin") as session:
        assert session.id is not None


def test_a_heartbeat_is_sent_at_regular_intervals(client: Client, api: Api) -> None:
    """AC-4.3.b: every 60 seconds at the latest (every 30: spec 15, 6)."""
    with client.session("odin") as session, client.session("thor", interval=0.05) as busy:
        eventually(lambda: session.heartbeats.stats().beats == 1)
        planned = session.heartbeats.stats().next_beat_in_seconds
        eventually(lambda: busy.heartbeats.stats().beats >= 3)
        path = f"/api/streams/session-{busy.id}/events?event_type=session_heartbeat"
        recorded = ok(api.get(path))["total_count"]

    assert recorded >= 3
    assert planned is not None
    assert planned <= INTERVAL_SECONDS == 30


def test_a_task_is_recorded_when_it_begins_and_heartbeats_name_it(client: Client, api: Api) -> None:
    """AC-4.3.c: POST /api/tasks with the session's id; ``current_task_id`` in the heartbeat."""
    with (
        client.session("odin", interval=600) as session,
        session.task("write the parser", github_issue_id="17") as task,
    ):
        during = api.get_task(str(task.id))
        with session.task("tests for it") as inner:
            within = api.get_session(str(session.id))["current_task_id"]
        session.heartbeats.force()
        current = api.get_session(str(session.id))["current_task_id"]

    assert (during["session_id"], during["status"]) == (session.id, "in_progress")
    assert (during["task_name"], during["github_issue_id"]) == ("write the parser", "17")
    assert (within, current) == (inner.id, task.id)
    assert api.get_task(str(task.id))["status"] == "completed"


def test_the_end_of_an_orchestration_completes_its_session(client: Client, api: Api) -> None:
    """AC-4.3.d: PATCH with status "completed", and no heartbeat after it."""
    with client.session("odin", interval=0.01) as session:
        eventually(lambda: session.heartbeats.stats().beats > 3)

    assert api.get_session(str(session.id))["status"] == "completed"
    assert not session.heartbeats.is_active()
    assert session.ended is None


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("no such file"), "ValueError: no such file"),
        (ValueError("x" * 100_000), "ValueError: xxx"),
        (RuntimeError(), "RuntimeError"),
        (KeyboardInterrupt(), "interrupted (KeyboardInterrupt)"),
        (SystemExit(3), "exited with 3"),
    ],
)
def test_an_error_ends_the_session_and_its_task_as_failed(
    client: Client, api: Api, error: BaseException, message: str
) -> None:
    """S4 4.3: "On orchestration error: POST mark-failed"; the error itself goes its way."""
    with (
        pytest.raises(type(error)),
        client.session("odin") as session,
        session.task("write the parser") as task,
    ):
        raise error

    recorded = api.get_session(str(session.id))
    assert recorded["status"] == "failed"
    assert recorded["metadata"]["error_message"].startswith(message)
    failed = api.get_task(str(task.id))
    assert (failed["status"], failed["error_message"][:9]) == ("failed", message[:9])


def test_an_exit_without_an_error_completes_the_session(client: Client, api: Api) -> None:
    """AC-4.3.d: ``sys.exit()`` is how many a script ends well."""
    with pytest.raises(SystemExit), client.session("odin") as session:
        raise SystemExit

    assert api.get_session(str(session.id))["status"] == "completed"


def test_a_refused_key_is_told_with_what_to_do_and_the_work_goes_on(
    server: Server, wire: HttpWire, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """AC-4.3.e: an error with an actionable message, once; nothing is lost once it is heeded."""
    worked = 0
    with Client(wire.url, "wrong-key", lenient=True) as client, client.session("odin") as session:
        for name in ("one", "two"):
            with session.task(name):
                worked += 1
    errors = [record for record in caplog.records if record.levelno == logging.ERROR]
    with pytest.raises(Unauthorized, match="HOLDFAST_API_KEY"), Client(wire.url, "wrong-key") as c:
        c.sessions.list()
    with Client(wire.url, api.key, lenient=True) as heeded:
        # What a person says by `holdfast doctor --adopt`.
        assert heeded.spool.adopt(client.spool.key_id)
        assert heeded.flush()

    assert worked == 2
    assert len(errors) == 1
    assert "Invalid API key" in errors[0].message
    assert "set HOLDFAST_API_KEY" in errors[0].message
    [recorded] = ok(api.get("/api/sessions"))["sessions"]
    assert recorded["status"] == "completed"
    assert len(api.tasks_of(recorded)) == 2


def test_an_orchestration_goes_on_without_the_service_and_is_recorded_later(
    connect: Connect, wire: HttpWire, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """AC-4.3.f: it does not crash, an error is logged; all of it is delivered later, in order."""
    wire.down()
    client = connect(wire.url, lenient=True)
    session = client.session("odin", interval=0.05)
    with pytest.raises(ValueError, match="of its own"):
        orchestrate(session)
    assert "cannot be reached" in caplog.text
    wire.up()
    eventually(lambda: not client.spool.has_any())

    assert client.spool.refused() == []
    [recorded] = ok(api.get("/api/sessions"))["sessions"]
    assert recorded["session_id"] == session.id
    assert recorded["status"] == "failed"
    assert recorded["metadata"]["error_message"] == "ValueError: an error of its own"
    assert [task["status"] for task in api.tasks_of(recorded)] == ["failed"]


def orchestrate(session: ManagedSession) -> None:
    with session, session.task("write the parser"):
        eventually(lambda: session.heartbeats.stats().degraded)
        raise ValueError("an error of its own")


def test_it_is_kept_alive_once_the_service_is_back(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    """AC-4.3.f: begun without the service, it is on record and beating when there is one."""
    wire.down()
    client = connect(wire.url, lenient=True)
    with client.session("odin", interval=600) as session, session.task("write the parser") as task:
        eventually(lambda: session.heartbeats.stats().failures == 1)
        placeholder = session.id
        wire.up()
        eventually(lambda: session.heartbeats.stats().beats == 1)
        current = eventually(lambda: api.get_session(str(session.id))["current_task_id"])
        status = api.get_session(str(session.id))["status"]

    assert placeholder != session.id
    assert status == "active"
    assert client.spool.real(str(task.id)) == current
