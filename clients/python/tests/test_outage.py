"""The service goes away and comes back; the work goes on, and nothing of it is lost (spec 11)."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client, Conflict, HeartbeatManager, NotFound, Unavailable
from holdfast.spool import Spool
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Api, Json, Server, cloned, ok
from tests.support.proxy import HttpWire, Loss, http_wire
from tests.support.waiting import eventually

NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def lenient(connect: Connect, wire: HttpWire) -> Client:
    """A client that never fails the work, at an address that can go away."""
    return connect(wire.url, lenient=True)


def sent(client: Client) -> bool:
    """Whether everything that was kept has been sent, or set aside."""
    return not client.spool.has_any()


def events_of(api: Api, instance_id: str) -> list[Json]:
    """All that is recorded of an instance."""
    path = f"/api/instances/{instance_id}/events"
    events: list[Json] = ok(api.get(path, params={"limit": 1000}))["events"]
    return events


def epics(api: Api, instance_id: str) -> list[str]:
    """The ids of the epics that it started, in order."""
    found = events_of(api, instance_id)
    return [e["event_data"]["epic_id"] for e in found if e["event_type"] == "epic_started"]


def only(api: Api, kind: str) -> Json:
    """The only session, instance or task of the namespace."""
    found = ok(api.get(f"/api/{kind}s"))[f"{kind}s"]
    assert len(found) == 1
    one: Json = found[0]
    return one


def test_what_happens_while_the_service_is_away_is_recorded_once_it_is_back(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    agent = lenient.instances.register("odin")["instance_id"]
    lenient.instances.emit(agent, "epic_started", {"epic_id": "before"})
    wire.down()
    for number in range(30):
        reply = lenient.instances.emit(agent, "epic_started", {"epic_id": f"{number}"})
        assert reply["unsent"]  # type: ignore[typeddict-item]
        lenient.instances.beat(agent, context_percent=number)
    assert lenient.spool.stats().kept == 31
    wire.up()
    eventually(lambda: sent(lenient))

    assert epics(api, agent) == ["before", *(str(number) for number in range(30))]
    assert lenient.instances.get(agent)["context_percent"] == 29
    beats = [e for e in events_of(api, agent) if e["event_type"] == "instance_heartbeat"]
    assert len(beats) == 1


def test_an_event_that_arrives_late_says_when_it_happened(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    agent = lenient.instances.register("odin")["instance_id"]
    wire.down()
    lenient.instances.emit(agent, "epic_started", {"epic_id": "e"}, metadata={"by": "me"})
    wire.up()
    eventually(lambda: sent(lenient))

    event = events_of(api, agent)[-1]
    assert event["metadata"]["by"] == "me"
    assert event["metadata"]["occurred_at"] <= event["timestamp"]


def test_everything_that_began_while_the_service_was_away_is_delivered_in_order(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    wire.down()
    agent = lenient.instances.register("odin")["instance_id"]
    session = lenient.sessions.create("odin", "laptop", instance_id=agent)["session_id"]
    task = lenient.tasks.create(session, "odin", "write the parser")["task_id"]
    lenient.tasks.start(task)
    lenient.instances.emit(agent, "epic_started", {"epic_id": "e1"})
    lenient.sessions.beat(session, current_task_id=task)
    lenient.tasks.complete(task)
    lenient.sessions.complete(session)
    lenient.instances.close(agent)
    wire.up()
    eventually(lambda: sent(lenient))

    assert lenient.spool.refused() == []
    recorded = only(api, "session")
    assert recorded["status"] == "completed"
    assert recorded["instance_id"] == only(api, "instance")["instance_id"]
    assert only(api, "task")["status"] == "completed"
    assert epics(api, recorded["instance_id"]) == ["e1"]
    assert lenient.sessions.get(session)["session_id"] == recorded["session_id"]


def test_a_placeholder_is_good_in_another_process_too(
    lenient: Client, connect: Connect, wire: HttpWire, api: Api
) -> None:
    wire.down()
    session = lenient.sessions.create("odin", "laptop")["session_id"]
    other = connect(wire.url, retries=0)
    with pytest.raises(Unavailable) as refused:
        other.sessions.get(session)
    assert refused.value.code == "not_recorded_yet"
    wire.up()
    eventually(lambda: sent(lenient))

    assert other.sessions.get(session)["session_id"] == only(api, "session")["session_id"]


def test_a_final_report_is_not_lost_while_the_server_is_away(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """The incident: the server was restarted as a task ended; it was "running" for ever.

    The service is killed while an agent works. The agent ends before it is back, its report is
    kept; another process of the same user delivers it.
    """
    with (
        cloned(cluster, template) as url,
        http_wire(NOBODY) as wire,
    ):
        key, world = "a-key-of-one-agent", "agents"
        with Server(url, tmp_path, API_KEYS=f"{world}:{key}") as doomed:
            wire.target = doomed.url
            work = Client(wire.url, key, lenient=True)
            with work.session("odin") as session, session.task("write the parser"):
                doomed.process.send_signal(signal.SIGKILL)
                doomed.process.wait()
            work.close()
        with (
            Server(url, tmp_path, API_KEYS=f"{world}:{key}") as again,
            Api(again.url, key, world) as api,
        ):
            running = only(api, "session")["status"]
            wire.target = again.url
            with Client(wire.url, key, lenient=True) as heir:
                eventually(lambda: sent(heir))

            assert (running, only(api, "session")["status"]) == ("active", "completed")
            assert only(api, "task")["status"] == "completed"
            assert heir.spool.refused() == []


@pytest.mark.parametrize("loss", ["request", "reply"])
def test_a_reply_that_was_lost_does_not_record_anything_twice(
    lenient: Client, wire: HttpWire, api: Api, loss: Loss
) -> None:
    agent = lenient.instances.register("odin")["instance_id"]
    wire.lose(loss, "lost-on-the-way", for_good=True)
    lenient.instances.emit(agent, "epic_started", {"epic_id": "lost-on-the-way"})
    assert wire.broken.is_set()
    assert lenient.spool.stats().kept == 1
    wire.up()
    eventually(lambda: sent(lenient))

    assert epics(api, agent) == ["lost-on-the-way"]


def test_a_reply_lost_long_ago_does_not_record_anything_twice(
    lenient: Client, wire: HttpWire, api: Api, server: Server
) -> None:
    """After 24 hours the service has forgotten the idempotency key: the record itself is asked."""
    agent = lenient.instances.register("odin")["instance_id"]
    session = lenient.sessions.create("odin", "laptop")["session_id"]
    wire.lose("reply", "second-session", for_good=True)
    created = lenient.sessions.create("second-session", "laptop")["session_id"]
    lenient.tasks.create(created, "second-session", "in it")
    a_day_later(lenient, server)
    wire.up()
    eventually(lambda: sent(lenient))
    wire.lose("reply", "lost-on-the-way", for_good=True)
    lenient.instances.emit(agent, "epic_started", {"epic_id": "lost-on-the-way"})
    lenient.instances.emit(agent, "epic_started", {"epic_id": "never sent"})
    a_day_later(lenient, server)
    wire.up()
    eventually(lambda: sent(lenient))

    assert lenient.spool.refused() == []
    assert epics(api, agent) == ["lost-on-the-way", "never sent"]
    sessions = {s["session_id"] for s in ok(api.get("/api/sessions"))["sessions"]}
    assert sessions == {session, only(api, "task")["session_id"]}


def a_day_later(client: Client, server: Server) -> None:
    """The service has forgotten its replies; the client remembers that it tried."""
    assert server.database_url is not None
    with psycopg.connect(server.database_url, autocommit=True) as store:
        store.execute("DELETE FROM receipts")
    with sqlite3.connect(client.spool.path) as kept:
        kept.execute("UPDATE entry SET tried_at = tried_at - 25 * 3600")
    kept.close()


def test_what_is_refused_does_not_hold_up_the_rest(
    lenient: Client, wire: HttpWire, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    agent = lenient.instances.register("odin")["instance_id"]
    wire.down()
    lenient.instances.emit(agent, "epic_started", {"epic_id": "good"})
    lenient.instances.emit(agent, "no_such_event", {})
    lenient.instances.emit("odin-PS-000000", "epic_started", {"epic_id": "nobody's"})
    lenient.instances.emit(agent, "epic_started", {"epic_id": "good too"})
    wire.up()
    eventually(lambda: sent(lenient))

    assert epics(api, agent) == ["good", "good too"]
    assert [r.code for r in lenient.spool.refused()] == ["unknown_event_type", "instance_not_found"]
    assert "unknown_event_type" in caplog.text


def test_a_gateway_with_nothing_behind_it_refuses_nothing(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    """Some answer 404 for a service that is being restarted: that throws nothing away."""
    agent = lenient.instances.register("odin")["instance_id"]
    nothing = b"HTTP/1.1 404 -\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone"
    wire.answer(*[nothing] * 6)
    lenient.instances.emit(agent, "epic_started", {"epic_id": "one"})
    lenient.instances.emit(agent, "epic_started", {"epic_id": "two"})
    eventually(lambda: sent(lenient))

    assert lenient.spool.refused() == []
    assert epics(api, agent) == ["one", "two"]


def test_a_fleet_s_heartbeats_do_not_fail_the_work_either(lenient: Client, wire: HttpWire) -> None:
    wire.down()
    beats = lenient.beat_all([{"instance_id": "odin-PS-000000"}, {"session_id": "s"}])

    assert (beats["accepted"], beats["rejected"]) == (0, 2)
    assert [result["id"] for result in beats["results"]] == ["odin-PS-000000", "s"]


def test_what_belongs_to_something_refused_is_set_aside_with_it(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    """The place of the session is taken by the time the service is back."""
    wire.down()
    session = lenient.sessions.create("odin", "laptop")["session_id"]
    lenient.tasks.create(session, "odin", "in vain")
    agent = lenient.instances.register("odin")["instance_id"]
    api.session(project_id="odin", machine_id="laptop")
    wire.up()
    eventually(lambda: sent(lenient))

    codes = [refused.code for refused in lenient.spool.refused()]
    assert codes == ["session_exists", "belongs_to_nothing_recorded"]
    assert lenient.instances.get(lenient.spool.real(agent) or "")["project"] == "odin"


def test_an_outage_is_told_once_and_so_is_its_end(
    lenient: Client, wire: HttpWire, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "holdfast")
    agent = lenient.instances.register("odin")["instance_id"]
    for _ in range(2):
        wire.down()
        for number in range(20):
            lenient.instances.emit(agent, "epic_started", {"epic_id": f"{number}"})
        wire.up()
        eventually(lambda: sent(lenient) and not lenient.outage.lasts)

    told = [(record.levelname, record.message.partition(":")[0]) for record in caplog.records]
    assert [level for level, _ in told] == ["WARNING", "INFO"] * 2
    assert told[0][1] == "holdfast cannot be reached"


def test_a_lenient_client_never_fails_the_work_over_a_refusal(
    lenient: Client, caplog: pytest.LogCaptureFixture
) -> None:
    reply = lenient.instances.emit("odin-PS-000000", "epic_started", {"epic_id": "e"})
    strange = lenient.sessions.create("odin", "laptop", metadata={"at": object()})

    assert reply["refused"] == "instance_not_found"  # type: ignore[typeddict-item]
    assert strange["refused"] == "invalid_input"  # type: ignore[typeddict-item]
    assert len(caplog.records) == 2


def test_what_is_no_json_does_not_fail_the_work_in_an_outage_either(
    lenient: Client, wire: HttpWire
) -> None:
    wire.down()
    lenient.instances.register("odin")
    strange = lenient.sessions.create("odin", "laptop", metadata={"at": object()})

    assert strange["refused"] == "invalid_input"  # type: ignore[typeddict-item]
    assert lenient.spool.stats().kept == 1


@pytest.mark.parametrize("key", ["clé", "two\nlines"])
def test_a_malformed_key_does_not_fail_the_work_either(
    server: Server, key: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Client(server.url, key, lenient=True) as client, client.session("odin") as session:
        assert not session.heartbeats.force()
    refused, kept = caplog.records

    assert "refuses this API key" in refused.message
    assert "Malformed API key: set HOLDFAST_API_KEY" in refused.message
    assert kept.message.startswith("2 writes are kept")


def test_what_needs_an_answer_raises_lenient_or_not(lenient: Client, wire: HttpWire) -> None:
    """A claim that is not granted is none: to go on as if it were would be two agents' ruin."""
    session = lenient.sessions.create("odin", "laptop")["session_id"]
    rival = lenient.sessions.create("thor", "laptop")["session_id"]
    lenient.claims.take("parser", session_id=session)
    with pytest.raises(Conflict) as held:
        lenient.claims.take("parser", session_id=rival)
    with pytest.raises(NotFound):
        lenient.claims.get("nobody's")
    wire.down()
    with pytest.raises(Unavailable):
        lenient.claims.take("lexer", session_id=session)

    assert held.value.details["claimed_by"] == session
    assert sent(lenient)


def test_what_a_client_leaves_behind_the_next_one_sends(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    wire.down()
    first = connect(wire.url, lenient=True)
    first.instances.register("odin")
    first.close()
    wire.up()
    heir = connect(wire.url, lenient=True)
    eventually(lambda: sent(heir))

    assert only(api, "instance")["project"] == "odin"


WORKER = """
import sys
from holdfast import Client

client = Client(lenient=True)
agent = client.instances.register(sys.argv[1])["instance_id"]
print("offline", flush=True)
for number in range(30):
    client.instances.emit(agent, "epic_started", {"epic_id": str(number)})
    print(number, flush=True)
sys.stdin.read()
"""


def test_what_a_killed_process_had_kept_is_delivered_by_others(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    """Two agents work offline on one machine and are killed; a third finds the service back."""
    wire.down()
    environ = {**os.environ, "HOLDFAST_URL": wire.url, "HOLDFAST_API_KEY": api.key or ""}
    kept: dict[str, int] = {}
    workers = {
        project: subprocess.Popen(
            [sys.executable, "-c", WORKER, project],
            env=environ,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for project in ("odin", "thor")
    }
    for project, worker in workers.items():
        with worker:
            assert worker.stdout is not None
            while worker.stdout.readline() != "5\n":
                pass
            worker.kill()
            kept[project] = 6 + len(worker.stdout.readlines())
    wire.up()
    heir = connect(wire.url, lenient=True)
    eventually(lambda: sent(heir))

    agents = ok(api.get("/api/instances"))["instances"]
    assert {agent["project"] for agent in agents} == {"odin", "thor"}
    for agent in agents:
        count = kept[agent["project"]]
        numbers = epics(api, agent["instance_id"])
        assert numbers[:count] == [str(number) for number in range(count)]
        # Nothing but what was being written may be there beyond what was acknowledged.
        assert len(numbers) <= count + 1


def test_new_work_does_not_overtake_what_is_kept(lenient: Client, wire: HttpWire, api: Api) -> None:
    """Another process is slow to send what is kept, while the service is back already."""
    agent = lenient.instances.register("odin")["instance_id"]
    other = Spool(lenient.spool.path.parent, wire.url, api.key)
    with other.delivering() as sending:
        assert sending
        wire.down()
        lenient.instances.emit(agent, "epic_started", {"epic_id": "first"})
        wire.up()
        lenient.sessions.list()
        assert not lenient.outage.lasts
        lenient.instances.emit(agent, "epic_started", {"epic_id": "second"})
    eventually(lambda: sent(lenient))

    assert epics(api, agent) == ["first", "second"]


def test_new_work_of_another_process_does_not_overtake_it_either(
    lenient: Client,
    connect: Connect,
    wire: HttpWire,
    api: Api,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It has seen nothing of the outage, and kept nothing itself."""
    agent = lenient.instances.register("odin")["instance_id"]
    supervisor = connect(wire.url, lenient=True)
    supervisor.instances.emit(agent, "epic_started", {"epic_id": "before"})
    sender = Spool(lenient.spool.path.parent, wire.url, api.key)
    with sender.delivering():
        wire.down()
        lenient.instances.emit(agent, "epic_started", {"epic_id": "first"})
        wire.up()
        supervisor.instances.emit(agent, "epic_started", {"epic_id": "second"})
        # The row does not move: whoever has waited for it once does not wait again.
        waited: list[float] = []
        with monkeypatch.context() as noting:
            noting.setattr(supervisor.delivery, "flush", lambda s, **_: waited.append(s))
            for name in ("third", "fourth"):
                supervisor.instances.emit(agent, "epic_started", {"epic_id": name})
        assert waited == []
    supervisor.instances.close(agent)
    eventually(lambda: sent(lenient))

    assert epics(api, agent) == ["before", "first", "second", "third", "fourth"]
    assert lenient.spool.refused() == []
    assert lenient.instances.get(agent)["status"] == "closed"


@pytest.fixture
def looks_rarely(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is sent by a client's own looking whether the service is back."""
    monkeypatch.setattr("holdfast.recorder.FIRST_LOOK_SECONDS", 600.0)


@pytest.mark.usefixtures("looks_rarely")
def test_whoever_learns_that_the_service_is_back_sends_what_others_have_kept(
    lenient: Client, connect: Connect, wire: HttpWire, api: Api
) -> None:
    agent = lenient.instances.register("odin")["instance_id"]
    supervisor = connect(wire.url, lenient=True, retries=0)
    wire.down()
    with pytest.raises(Unavailable):
        supervisor.sessions.list()
    lenient.instances.emit(agent, "epic_started", {"epic_id": "e"})
    lenient.close()
    wire.up()
    assert supervisor.sessions.list()["total_count"] == 0
    eventually(lambda: sent(supervisor))

    assert epics(api, agent) == ["e"]


def test_whoever_speaks_with_the_service_sends_what_an_ended_process_has_left(
    client: Client, connect: Connect, api: Api
) -> None:
    """It has seen nothing of the outage itself, and has nothing to record."""
    agent = client.instances.register("odin")["instance_id"]
    watching, ended = connect(lenient=True), connect(lenient=True, retries=0)
    ended.transport.close()
    ended.instances.emit(agent, "epic_started", {"epic_id": "e"})
    ended.close()
    assert watching.spool.has_any()
    watching.sessions.list()
    eventually(lambda: sent(watching))

    assert epics(api, agent) == ["e"]


@pytest.mark.usefixtures("looks_rarely")
def test_a_sign_of_life_for_what_is_not_recorded_yet_has_it_recorded(
    lenient: Client, wire: HttpWire, api: Api
) -> None:
    wire.down()
    agent = lenient.instances.register("odin")["instance_id"]
    beats = HeartbeatManager(lenient)
    assert not beats.force(agent)
    wire.up()

    assert beats.force(agent)
    assert only(api, "instance")["instance_id"] == lenient.spool.real(agent)


@pytest.mark.usefixtures("looks_rarely")
def test_a_claim_is_decided_after_what_was_kept(lenient: Client, wire: HttpWire) -> None:
    done, todo = (lenient.sessions.create(name, "laptop")["session_id"] for name in ("a", "b"))
    lenient.claims.take("parser", session_id=done)
    wire.down()
    lenient.sessions.complete(done)
    wire.up()

    assert lenient.claims.take("parser", session_id=todo)["session_id"] == todo


@pytest.mark.usefixtures("looks_rarely")
def test_a_client_that_ends_tries_once_more(
    lenient: Client, wire: HttpWire, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    wire.down()
    agent = lenient.instances.register("odin")["instance_id"]
    lenient.instances.close(agent)
    wire.up()
    lenient.close()

    assert sent(lenient)
    assert only(api, "instance")["status"] == "closed"
    assert [record.message.partition(":")[0] for record in caplog.records] == [
        "holdfast cannot be reached"
    ]


@pytest.mark.usefixtures("looks_rarely")
def test_at_its_end_a_client_tells_only_of_what_it_kept_itself(
    lenient: Client, connect: Connect, wire: HttpWire, caplog: pytest.LogCaptureFixture
) -> None:
    wire.down()
    other, third = (connect(wire.url, lenient=True) for _ in range(2))
    for count, client in ((5, lenient), (2, other)):
        agent = client.instances.register("odin")["instance_id"]
        for number in range(1, count):
            client.instances.emit(agent, "epic_started", {"epic_id": f"{number}"})
    caplog.clear()
    for client in (lenient, other, third):
        client.close()

    kept = [record.message.partition(" writes are kept")[0] for record in caplog.records]
    assert kept == ["5", "2"]


def test_what_is_neither_sent_nor_kept_is_said_to_be_lost(
    lenient: Client, wire: HttpWire, caplog: pytest.LogCaptureFixture
) -> None:
    lenient.spool.path.parent.write_text("a file where the folder should be")
    wire.down()
    agent = lenient.instances.register("odin")["instance_id"]
    lenient.instances.emit(agent, "epic_started", {"epic_id": "e"})
    caplog.clear()
    lenient.close()

    [told] = caplog.records
    assert told.levelname == "ERROR"
    assert told.message.startswith("2 writes are lost")


def test_writes_that_are_refused_alike_are_told_once_with_their_number(
    lenient: Client, wire: HttpWire, caplog: pytest.LogCaptureFixture
) -> None:
    agent = lenient.instances.register("odin")["instance_id"]
    wire.down()
    for number in range(39):
        lenient.instances.emit(agent, "no_such_event", {"number": number})
    wire.up()
    eventually(lambda: sent(lenient))
    for number in range(3):
        lenient.instances.emit(agent, "no_such_event", {"number": number})
    lenient.close()

    told = [record.message for record in caplog.records if "holdfast refused" in record.message]
    assert len(told) == 2
    assert " 39 times (unknown_event_type)" in told[0]
    assert " 3 more times (unknown_event_type)" in told[1]
    assert len(lenient.spool.refused()) == 39


def test_what_was_kept_under_a_refused_key_waits_until_a_person_gives_it_to_another(
    connect: Connect, server: Server, api: Api, caplog: pytest.LogCaptureFixture
) -> None:
    """The other key may lead into another team's namespace."""
    with Client(server.url, "wrong-key", lenient=True) as refused:
        agent = refused.instances.register("odin")["instance_id"]
        refused.instances.emit(agent, "epic_started", {"epic_id": "e"})
    assert "`holdfast doctor` tells how" in caplog.text
    heir = connect(lenient=True)
    assert heir.flush()
    assert ok(api.get("/api/instances"))["instances"] == []
    [other] = heir.spool.other_keys()
    assert other.writes == heir.spool.adopt(other.key_id) == 2
    assert heir.flush()

    assert epics(api, str(heir.spool.real(agent))) == ["e"]


def test_what_may_have_arrived_under_another_key_is_not_recorded_twice(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    """A key's successor in the same namespace: the service repeats no reply to it."""
    with (
        cloned(cluster, template) as url,
        Server(url, tmp_path, API_KEYS="team:old-key,team:new-key") as both,
        Api(both.url, "new-key", "team") as api,
        http_wire(both.url) as wire,
    ):
        with Client(wire.url, "old-key", lenient=True) as old:
            agent = old.instances.register("odin")["instance_id"]
            wire.lose("reply", "lost-on-the-way", for_good=True)
            old.instances.emit(agent, "epic_started", {"epic_id": "lost-on-the-way"})
            old.instances.emit(agent, "epic_started", {"epic_id": "never sent"})
        wire.up()
        with Client(wire.url, "new-key", lenient=True) as new:
            [other] = new.spool.other_keys()
            new.spool.adopt(other.key_id)
            assert new.flush()

        assert epics(api, agent) == ["lost-on-the-way", "never sent"]


def test_what_waits_for_another_key_does_not_hold_up_what_can_be_sent(
    connect: Connect, server: Server, api: Api
) -> None:
    """An id from before the key was set right: what is said of it waits with it."""
    with Client(server.url, "wrong-key", lenient=True) as refused:
        early = refused.instances.register("odin")["instance_id"]
    client = connect(lenient=True)
    client.instances.emit(early, "epic_started", {"epic_id": "of the early one"})
    late = client.instances.register("thor")["instance_id"]
    assert client.flush()
    assert only(api, "instance")["instance_id"] == client.spool.real(late)
    client.spool.adopt(refused.spool.key_id)
    assert client.flush()

    assert epics(api, str(client.spool.real(early))) == ["of the early one"]
    assert client.spool.refused() == []
