"""Signs of life, as long as there is life (S3 FR-5)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from clients.python.tests.conftest import Connect

from holdfast import Client, Conflict, HeartbeatManager, HoldfastError
from holdfast.heartbeat import INTERVAL_SECONDS
from holdfast.types import Json, LostClaim
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import PLAIN_KEY, Api, Server, cloned, ok
from tests.support.proxy import HttpWire
from tests.support.waiting import eventually

OFTEN = 0.05
# A service for which a third of a second is a long time.
IMPATIENT = {
    "STALL_THRESHOLD_MS": "100",
    "INSTANCE_STALE_SECONDS": "0.1",
    "CLAIM_STALE_SECONDS": "0.3",
}


@pytest.fixture
def manager(client: Client) -> Iterator[HeartbeatManager]:
    """A manager that beats often."""
    with HeartbeatManager(client, interval=OFTEN) as beating:
        yield beating


def beats_of(api: Api, stream_id: str) -> list[Json]:
    """The heartbeats that are recorded of a session or an instance."""
    kind = "session_heartbeat" if stream_id.startswith("session") else "instance_heartbeat"
    query = {"event_type": kind, "limit": "1000"}
    events: list[Json] = ok(api.get(f"/api/streams/{stream_id}/events", params=query))["events"]
    return events


def test_it_beats_for_sessions_and_instances_until_it_is_stopped(
    manager: HeartbeatManager, api: Api, client: Client
) -> None:
    session = api.session()["session_id"]
    agent = client.instances.register("odin")["instance_id"]
    manager.start(session)
    manager.start(agent, lambda: {"context_percent": 70})
    assert manager.is_active(session)
    eventually(lambda: len(beats_of(api, f"session-{session}")) > 3)
    eventually(lambda: len(beats_of(api, f"instance-{agent}")) > 3)
    manager.stop()

    stats = manager.stats()
    assert not manager.is_active()
    recorded = len(beats_of(api, f"session-{session}")) + len(beats_of(api, f"instance-{agent}"))
    assert stats.beats == recorded
    assert (stats.failures, stats.degraded, stats.ids) == (0, False, [])
    assert client.instances.get(agent)["context_percent"] == 70


def test_every_beat_names_the_current_task(
    manager: HeartbeatManager, api: Api, client: Client
) -> None:
    """S4 4.3: the payload has ``current_task_id``."""
    session = api.session()
    task = api.task(session)["task_id"]
    manager.start(session["session_id"])
    manager.say(session["session_id"], current_task_id=task)

    eventually(lambda: api.get_session(session["session_id"])["current_task_id"] == task)


def test_by_default_it_beats_every_30_seconds_with_jitter(client: Client, api: Api) -> None:
    session = api.session()["session_id"]
    with HeartbeatManager(client) as manager:
        manager.start(session)
        eventually(lambda: manager.stats().beats == 1)
        due = set()
        for _ in range(5):
            assert manager.force(session)
            planned = manager.stats().next_beat_in_seconds
            assert planned is not None
            due.add(planned)

    assert INTERVAL_SECONDS == 30
    assert all(27 < planned <= 30 for planned in due)
    assert max(due) - min(due) > 0.001


def test_a_beat_can_be_forced(client: Client, api: Api) -> None:
    """S3 FR-5: a manual ping, whether it is kept alive or not."""
    session = api.session()["session_id"]
    manager = HeartbeatManager(client)

    assert manager.force(session)
    assert not manager.force("odin-PS-000000")
    assert len(beats_of(api, f"session-{session}")) == 1
    assert not manager.is_active()


def test_after_three_failures_it_is_degraded_and_never_gives_up(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    session = api.session()["session_id"]
    with HeartbeatManager(connect(wire.url), interval=OFTEN) as manager:
        manager.start(session)
        eventually(lambda: manager.stats().beats > 1)
        wire.down()
        eventually(lambda: manager.stats().failures_in_a_row >= 2)
        eventually(lambda: manager.stats().degraded)
        eventually(lambda: manager.stats().failures_in_a_row > 6)
        worse = manager.stats()
        due = worse.next_beat_in_seconds
        before = worse.beats
        wire.up()
        eventually(lambda: not manager.stats().degraded)

    assert worse.last_error
    assert due is not None
    assert due <= 2 * OFTEN
    assert manager.stats().beats > before
    assert manager.stats().failures_in_a_row == 0


def test_it_is_degraded_from_the_third_failure_on_and_beats_less_often(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    session = api.session()["session_id"]
    with HeartbeatManager(connect(wire.url), interval=600) as manager:
        manager.start(session)
        eventually(lambda: manager.stats().beats == 1)
        wire.down()
        seen = []
        for _ in range(4):
            assert not manager.force()
            stats = manager.stats()
            seen.append((stats.failures_in_a_row, stats.degraded))
        due = manager.stats().next_beat_in_seconds

    assert seen == [(1, False), (2, False), (3, True), (4, True)]
    assert due is not None
    assert due > 600


def test_a_reply_that_cannot_be_read_is_a_failure_like_any_other(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    """As of a gateway that says it is compressed, and is not."""
    session = api.session()["session_id"]
    garbled = b"HTTP/1.1 502 Bad Gateway\r\nContent-Encoding: gzip\r\nContent-Length: 3\r\n\r\nno!"
    with HeartbeatManager(connect(wire.url), interval=OFTEN) as manager:
        manager.start(session)
        eventually(lambda: manager.stats().beats > 1)
        wire.answer(garbled)
        wire.cut()
        eventually(lambda: manager.stats().failures > 0)
        before = manager.stats().beats
        eventually(lambda: manager.stats().beats > before)


def test_any_sign_that_the_service_is_back_is_enough(
    connect: Connect, wire: HttpWire, api: Api
) -> None:
    """It does not wait for its next turn, which may be a minute off."""
    session = api.session()["session_id"]
    client = connect(wire.url, lenient=True)
    with HeartbeatManager(client, interval=600) as manager:
        manager.start(session)
        eventually(lambda: manager.stats().beats == 1)
        wire.down()
        assert not manager.force(session)
        wire.up()
        client.sessions.list()

        eventually(lambda: manager.stats().beats == 2)


@pytest.mark.parametrize("how", ["ended", "superseded", "deleted"])
def test_it_stops_for_a_session_that_is_over_and_says_so(
    client: Client, api: Api, how: str
) -> None:
    told: list[tuple[str, HoldfastError]] = []
    session = api.session()
    session_id = session["session_id"]
    other = api.session()["session_id"]
    place = {key: session[key] for key in ("project_id", "machine_id")}
    with HeartbeatManager(
        client, interval=OFTEN, on_ended=lambda an_id, error: told.append((an_id, error))
    ) as manager:
        manager.start(other)
        match how:
            case "ended":
                api.fail(session_id)
            case "superseded":
                api.stall(session_id)
                api.session(**place)
            case _:
                api.delete(f"/api/sessions/{session_id}")
        manager.start(session_id)
        eventually(lambda: told)

        assert not manager.is_active(session_id)
        assert manager.is_active(other)
    [(an_id, error)] = told
    assert an_id == session_id
    expected = {"ended": "session_ended", "deleted": "session_not_found"}
    assert error.code == expected.get(how, how)


def test_it_stops_for_an_instance_that_was_closed(client: Client) -> None:
    closed = threading.Event()
    agent = client.instances.register("odin")["instance_id"]
    with HeartbeatManager(client, interval=OFTEN, on_ended=lambda *_: closed.set()) as manager:
        manager.start(agent)
        client.instances.close(agent)

        assert closed.wait(15)
        assert not manager.is_active()


def test_it_tells_what_another_took_over(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The old holder finds out with its next heartbeat (spec 6)."""
    told: list[tuple[str, list[LostClaim]]] = []
    with (
        cloned(cluster, template) as url,
        Server(url, tmp_path, **IMPATIENT) as server,
        Client(server.url, PLAIN_KEY) as client,
    ):
        old = client.sessions.create("odin", "laptop")["session_id"]
        new = client.sessions.create("odin", "desktop")["session_id"]
        client.claims.take("parser", session_id=old)
        client.claims.take("lexer", session_id=old)
        eventually(lambda: taken_over(client, "parser", new))
        with HeartbeatManager(
            client, interval=OFTEN, on_lost_claims=lambda an_id, lost: told.append((an_id, lost))
        ) as manager:
            manager.start(old)
            eventually(lambda: told)
            eventually(lambda: manager.stats().beats > 3)

    [(an_id, [lost])] = told
    assert (an_id, lost["item_id"], lost["taken_by"]) == (old, "parser", new)
    assert manager.stats().lost_claims == [lost]
    assert "parser" in caplog.text


def taken_over(client: Client, item_id: str, session_id: str) -> bool:
    """Whether the holder was silent for long enough."""
    try:
        client.claims.take(item_id, session_id=session_id, takeover=True)
    except Conflict:
        return False
    return True


def test_what_is_wrong_with_a_description_does_not_stop_the_beating(
    manager: HeartbeatManager, api: Api, client: Client
) -> None:
    def broken() -> Json:
        raise ValueError("no idea")

    one, two = (client.instances.register("odin")["instance_id"] for _ in "ab")
    manager.start(one, broken)
    manager.start(two, lambda: {"context_percent": 7000})

    eventually(lambda: len(beats_of(api, f"instance-{one}")) > 1)
    eventually(lambda: len(beats_of(api, f"instance-{two}")) > 1)
