"""A new client beside a service of a former version loses nothing by what it adds by itself."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import psycopg
import pytest
from clients.python.tests.conftest import Connect
from clients.python.tests.supervised import HOLDFAST, Desk, desk

from holdfast import Client, InvalidInput, Unreachable
from holdfast.additions import UNKNOWN
from holdfast.proof import FENCES, told
from holdfast.request import Request
from holdfast.settings import Settings
from holdfast.stdio import Bridge
from holdfast.transport import Reply, Transport
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance import versions
from tests.acceptance.serving import Api, Json, Server, name, ok
from tests.support.proxy import HttpWire, http_wire
from tests.support.waiting import eventually

Refuse = Callable[..., None]
FIELD = "supervisor_fence"


@pytest.fixture(scope="module")
def former(cluster: EmbeddedPostgres, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A service of a former version."""
    directory = tmp_path_factory.mktemp("former")
    code, database = versions.former(directory), name("former")
    with psycopg.connect(cluster.url_of("postgres"), autocommit=True) as admin:
        admin.execute(f'CREATE DATABASE "{database}"'.encode())
        with Server(cluster.url_of(database), directory, code=code) as running:
            yield running
        admin.execute(f'DROP DATABASE "{database}" WITH (FORCE)'.encode())


@pytest.fixture
def before(former: Server) -> Iterator[Api]:
    """A client of the former version, in a namespace that only this test has."""
    with former.world() as api:
        yield api


@pytest.fixture
def there(before: Api, tmp_path: Path) -> Iterator[Desk]:
    with desk(before, tmp_path / "work") as it:
        yield it


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Request]:
    """Every request that a client of this process sends from here on."""
    found: list[Request] = []
    once = Transport._once

    def noted(self: Transport, request: Request, timeout: float | None) -> Reply:
        found.append(request)
        return once(self, request, timeout)

    monkeypatch.setattr(Transport, "_once", noted)
    return found


@pytest.fixture
def refuse(monkeypatch: pytest.MonkeyPatch) -> Refuse:
    """Makes the service one that does not know these fields."""

    def of(*fields: str, message: str = UNKNOWN) -> None:
        once = Transport._once

        def older(self: Transport, request: Request, timeout: float | None) -> Reply:
            wrong = [f for f in fields if f in (request.body or {})]
            if wrong:
                errors = [{"field": field, "message": message} for field in wrong]
                raise InvalidInput("no", status=400, errors=errors)  # type: ignore[arg-type]
            return once(self, request, timeout)

        monkeypatch.setattr(Transport, "_once", older)

    return of


def supervised(client: Client) -> Client:
    """The same settings as in a command that a run around it has started."""
    made = client.instances.register("odin", supervisor="around")
    environ = {
        "HOLDFAST_URL": client.settings.url,
        "HOLDFAST_API_KEY": client.settings.api_key or "",
        "HOLDFAST_SPOOL_DIR": str(client.settings.spool_dir),
        "HOLDFAST_INSTANCE_ID": made["instance_id"],
        FENCES: told({made["instance_id"]: made["supervisor_fence"] or 1}),
    }
    return Client(settings=Settings.load(environ=environ), lenient=client.lenient)


def events_of(api: Api, instance_id: str, event_type: str) -> list[Json]:
    path = f"/api/instances/{instance_id}/events"
    found: list[Json] = ok(api.get(path, params={"event_type": event_type, "limit": "200"}))[
        "events"
    ]
    return found


def with_fence(asked: list[Request]) -> list[Request]:
    return [request for request in asked if FIELD in (request.body or {})]


def test_the_former_service_gets_all_that_a_managed_instance_and_session_say(before: Api) -> None:
    with Client(str(before.base_url).rstrip("/"), before.key, lenient=True) as client:
        with client.instance("odin") as agent:
            for number in range(3):
                agent.emit("epic_started", epic_id=str(number))
            agent.checkpoint("midway", {"step": 3})
            with client.session("odin", "laptop") as session, session.task("parse"):
                session.claim(item := name("item"))
                session.complete_item(item)
        assert (client.spool.refused(), client.spool.has_any()) == ([], False)
    assert agent.id is not None
    assert session.id is not None
    assert len(events_of(before, agent.id, "epic_started")) == 3
    [kept] = events_of(before, agent.id, "checkpoint_created")
    assert kept["event_data"]["label"] == "midway"
    [task] = before.tasks_of(before.get_session(session.id))
    assert (task["status"], before.get_session(session.id)["status"]) == ("completed", "completed")
    assert ok(before.get(f"/api/work-items/{item}"))["status"] == "completed"


def test_a_run_beside_the_former_service_loses_nothing(there: Desk, before: Api) -> None:
    item = name("item")
    commands = (
        f"'{HOLDFAST}' complete {item} && '{sys.executable}' -c '"
        "import os; from holdfast import Client; client = Client(lenient=True);"
        ' client.instances.emit(os.environ["HOLDFAST_INSTANCE_ID"], "epic_started",'
        ' {"epic_id": "e"}); client.close()\''
    )
    run = there.run("--claim", item, "--complete", command=("sh", "-c", commands))
    assert run.end() == 0, run.told
    assert "validation_error" not in run.told
    assert ok(before.get(f"/api/work-items/{item}"))["status"] == "completed"
    assert run.session()["status"] == "completed"
    [logged] = run.events("command_logged")
    assert logged["event_data"]["exit_code"] == 0
    assert len(run.events("epic_started")) == 1
    assert run.instance()["status"] == "closed"
    with Client(there.url, before.key) as client:
        assert (client.spool.refused(), client.spool.has_any()) == ([], False)


def test_a_run_that_completes_its_item_by_itself(there: Desk, before: Api) -> None:
    item = name("item")
    run = there.run("--claim", item, "--complete", command=("true",))
    assert run.end() == 0, run.told
    assert ok(before.get(f"/api/work-items/{item}"))["status"] == "completed"


def test_the_former_service_takes_up_a_session_and_its_instance_one_after_the_other(
    there: Desk, before: Api
) -> None:
    body = {"project": name("project"), "instance_type": "PS", "supervisor": "gone"}
    instance = ok(before.post("/api/instances", json=body), 201)["instance_id"]
    session = before.session(project_id=body["project"], instance_id=instance, supervisor="gone")
    run = there.carry_on(
        body["project"], "--session", session["session_id"], "--takeover", command=("true",)
    )
    assert run.end() == 0, run.told
    assert run.session()["status"] == "completed"
    assert run.instance()["status"] == "closed"


@pytest.mark.parametrize("kept", [False, True], ids=["online", "from the spool"])
def test_it_costs_one_request_more_and_only_once(
    former: Server, before: Api, asked: list[Request], kept: bool
) -> None:
    with http_wire(former.url) as wire, Client(wire.url, before.key, lenient=True) as outer:
        client = supervised(outer)
        agent = client.settings.instance_id
        assert agent is not None
        asked.clear()
        if kept:
            wire.down()
        for number in range(4):
            client.instances.emit(agent, "epic_started", {"epic_id": str(number)})
        if kept:
            wire.up()
            eventually(lambda: not client.spool.has_any())
        assert client.spool.refused() == []
        client.close()
    assert len(events_of(before, agent, "epic_started")) == 4
    reached = [r for r in asked if r.path.endswith("/events")]
    if not kept:
        assert [FIELD in (r.body or {}) for r in reached] == [True, False, False, False, False]


def test_what_the_user_gave_is_refused_and_told(before: Api, asked: list[Request]) -> None:
    with Client(str(before.base_url).rstrip("/"), before.key) as client:
        agent = client.instances.register("odin")["instance_id"]
        asked.clear()
        with pytest.raises(InvalidInput) as refused:
            client.instances.emit(agent, "epic_started", {"epic_id": "e"}, supervisor_fence=1)
    assert [error["field"] for error in refused.value.errors] == [FIELD]
    assert len(asked) == 1


@pytest.mark.parametrize("kept", [False, True], ids=["online", "from the spool"])
@pytest.mark.parametrize(
    "fields",
    [
        (FIELD,),
        (FIELD, "supervisor"),
        (FIELD, "supervisor", "occurred_at", "hostname", "tty", "codebase"),
    ],
    ids=len,
)
def test_whatever_the_client_adds_an_older_service_may_not_know(
    connect: Connect, wire: HttpWire, api: Api, refuse: Refuse, fields: tuple[str, ...], kept: bool
) -> None:
    refuse(*fields)
    client = connect(wire.url, lenient=True, retries=0)
    if kept:
        wire.down()
    with client.instance("odin") as agent:
        agent.emit("epic_started", epic_id="e")
        with client.session("odin", "laptop") as session, session.task("parse"):
            pass
    if kept:
        wire.up()
        eventually(lambda: not client.spool.has_any())
    assert client.spool.refused() == []
    told = {event["event_type"] for event in ok(api.get("/api/events"))["events"]}
    assert told >= {
        "instance_registered",
        "epic_started",
        "session_created",
        "task_created",
        "task_completed",
        "session_completed",
        "instance_closed",
    }


def test_after_a_break_it_is_tried_again(
    connect: Connect, wire: HttpWire, asked: list[Request], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service may have been brought up to date meanwhile."""
    client = supervised(connect(wire.url))
    agent = client.settings.instance_id
    assert agent is not None
    with monkeypatch.context() as patch:
        once = Transport._once

        def older(self: Transport, request: Request, timeout: float | None) -> Reply:
            if FIELD in (request.body or {}):
                errors = [{"field": FIELD, "message": UNKNOWN}]
                raise InvalidInput("no", status=400, errors=errors)  # type: ignore[arg-type]
            return once(self, request, timeout)

        patch.setattr(Transport, "_once", older)
        client.instances.emit(agent, "epic_started", {"epic_id": "1"})
    client.instances.emit(agent, "epic_started", {"epic_id": "2"})
    assert with_fence(asked) == []
    wire.down()
    with pytest.raises(Unreachable):
        client.send(Request("GET", "/health"), retries=0)
    wire.up()
    client.instances.emit(agent, "epic_started", {"epic_id": "3"})
    client.close()
    assert [r.body["event_data"]["epic_id"] for r in with_fence(asked) if r.body] == ["3"]


def test_a_value_that_is_refused_once_is_not_taken_for_unknown(
    connect: Connect, api: Api, asked: list[Request], refuse: Refuse
) -> None:
    refuse(FIELD, message="must be at least 1")
    client = supervised(connect())
    agent = client.settings.instance_id
    assert agent is not None
    for number in range(2):
        client.instances.emit(agent, "epic_started", {"epic_id": str(number)})
    client.close()
    assert len(events_of(api, agent, "epic_started")) == 2


def test_an_agent_by_mcp_loses_nothing_either(before: Api) -> None:
    with Client(str(before.base_url).rstrip("/"), before.key) as outer:
        settings = supervised(outer).settings
    calls = [
        {
            "jsonrpc": "2.0",
            "id": number,
            "method": "tools/call",
            "params": {
                "name": "mcp_meta_emit_event",
                "arguments": {
                    "instance_id": settings.instance_id,
                    "event_type": "epic_started",
                    "event_data": {"epic_id": str(number)},
                },
            },
        }
        for number in range(3)
    ]
    sink = io.BytesIO()
    lines = b"".join(json.dumps(call).encode() + b"\n" for call in calls)
    Bridge(settings, io.BytesIO(lines), sink).run()
    answers: list[Mapping[str, Json]] = [json.loads(li) for li in sink.getvalue().splitlines()]
    assert [answer["result"].get("isError", False) for answer in answers] == [False] * 3
    assert len(events_of(before, settings.instance_id or "", "epic_started")) == 3
