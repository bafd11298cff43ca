"""An outage loses no times: what is sent late says when it happened."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from clients.python.tests.conftest import Connect

from holdfast.errors import InvalidInput
from holdfast.request import Request
from holdfast.transport import Reply, Transport
from tests.acceptance.serving import Api, Json, ok
from tests.support.commands import Cli
from tests.support.proxy import HttpWire
from tests.support.waiting import eventually

LATE = (
    "session_created",
    "task_created",
    "session_completed",
    "instance_registered",
    "epic_started",
    "instance_closed",
)


def history(api: Api) -> list[Json]:
    found: list[Json] = ok(api.get("/api/events", params={"limit": "1000"}))["events"]
    return found


def test_what_is_sent_late_says_when_it_happened(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    client = connect(wire.url, lenient=True, retries=0)
    wire.down()
    with client.session("odin", "laptop") as session, session.task("write the parser"):
        pass
    with client.instance("odin") as agent:
        agent.emit("epic_started", epic_id="e")
    before = datetime.now().astimezone()
    wire.up()
    eventually(lambda: not client.spool.has_any())

    assert client.spool.refused() == []
    told = {event["event_type"]: event["metadata"] for event in history(api)}
    for event_type in LATE:
        assert told[event_type]["clock"] == "client"
        happened = datetime.fromisoformat(told[event_type]["occurred_at"])
        assert happened <= before


def test_a_person_sees_when_it_happened(connect: Connect, wire: HttpWire, cli: Cli) -> None:
    client = connect(wire.url, lenient=True, retries=0)
    wire.down()
    client.instances.register("odin")
    at = datetime.now().astimezone() - timedelta(hours=2)
    client.spool._database.run(
        lambda db: db.execute("UPDATE entry SET kept_at = ?", [at.timestamp()])
    )
    wire.up()
    eventually(lambda: not client.spool.has_any())
    [agent] = client.instances.list()["instances"]

    assert "(happened at " in cli.ok("events", agent["instance_id"])


def test_a_service_of_before_takes_it_without(
    connect: Connect, wire: HttpWire, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = connect(wire.url, lenient=True, retries=0)
    once = Transport._once

    def older(self: Transport, request: Request, timeout: float | None) -> Reply:
        if "occurred_at" in (request.body or {}):
            why = [{"field": "occurred_at", "message": "is not a field of this request"}]
            raise InvalidInput("no", status=400, errors=why)  # type: ignore[arg-type]
        return once(self, request, timeout)

    wire.down()
    client.sessions.create("odin", "laptop")
    monkeypatch.setattr(Transport, "_once", older)
    wire.up()
    eventually(lambda: not client.spool.has_any())

    assert client.spool.refused() == []
    assert len(ok(api.get("/api/sessions"))["sessions"]) == 1
