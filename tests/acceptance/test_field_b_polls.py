"""Field cases 7: long polls end with their client, are bounded, and look at nothing twice."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any
from urllib.parse import urlsplit

import pytest

from interfaces.operations.following import WAITING_EACH
from tests.acceptance.conftest import Start
from tests.acceptance.serving import Api, eventually, name, ok, position, refused
from tests.support.killable import KillablePostgres


def instance(api: Api) -> str:
    body = {"project": name("project"), "instance_type": "PS"}
    return str(ok(api.post("/api/instances", json=body), 201)["instance_id"])


def emit(api: Api, instance_id: str, event_type: str, **data: object) -> int:
    body = {"event_type": event_type, "event_data": data}
    return position(api.post(f"/api/instances/{instance_id}/events", json=body))


@pytest.fixture
def waiting(api: Api) -> Iterator[ExitStack]:
    """A hundred connections of one key, on each of which a long poll waits."""
    where = urlsplit(str(api.base_url))
    after = ok(api.get("/api/events"))["next_position"]
    head = (
        f"GET /api/events?after={after}&wait=25 HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"X-API-Key: {api.key}\r\n\r\n"
    )
    with ExitStack() as stack:
        for _ in range(WAITING_EACH):
            place = (where.hostname or "", where.port or 0)
            connection = stack.enter_context(socket.create_connection(place))
            connection.sendall(head.encode())
        yield stack


def asked(api: Api) -> int:
    """The status of a long poll that would have to wait for a moment."""
    after = ok(api.get("/api/events"))["next_position"]
    return api.get("/api/events", params={"after": after, "wait": 0.01}).status_code


def test_a_key_s_long_polls_are_bounded_and_end_with_their_clients(
    api: Api, other: Api, waiting: ExitStack
) -> None:
    """The 101st is 429; another key waits as ever; once the clients have gone there is room."""
    eventually("a refusal", lambda: asked(api) == 429)
    after = ok(api.get("/api/events"))["next_position"]
    response = api.get("/api/events", params={"after": after, "wait": 5})
    refused(response, 429, "too_many_waiting")
    assert int(response.headers["retry-after"]) >= 1
    assert asked(other) == 200
    # Who need not wait is not counted.
    assert ok(api.get("/api/events"))["events"] == []
    waiting.close()
    eventually("room for another", lambda: asked(api) == 200)


def test_a_poll_that_waits_for_one_type_hears_of_it_alone(api: Api) -> None:
    """Given a fleet that beats while it waits, the first event of its type ends it."""
    instance_id = instance(api)
    session_id = api.session()["session_id"]
    after = ok(api.get("/api/events"))["next_position"]
    query = {"after": after, "wait": 20, "event_type": ["pr_merged", "deployment_done"]}
    with ThreadPoolExecutor(1) as pool:
        polled = pool.submit(api.get, "/api/events", params=query)
        for _ in range(30):
            api.beat(session_id)
        emit(api, instance_id, "epic_started", epic_id="e")
        at = emit(api, instance_id, "deployment_completed", service="web")
        page = ok(polled.result(60))
    assert [event["position"] for event in page["events"]] == [at]
    assert page["next_position"] == at
    # Asked again from where it began: what lay before is not looked through again, nor missed.
    assert ok(api.get("/api/events", params=query)) == page
    again = {**query, "event_type": "pr_merged", "wait": 0}
    assert ok(api.get("/api/events", params=again)) == {"events": [], "next_position": after}
    merged = emit(api, instance_id, "pr_merged", pr_url="https://example.org/1")
    assert ok(api.get("/api/events", params=again))["next_position"] == merged


@pytest.mark.parametrize("given", [["epic_started"], ["epic_started", "session_heartbeat"], []])
def test_events_of_types_come_in_order_once_each(api: Api, given: list[str]) -> None:
    """By the index of types, by the log, or all; a type named twice changes nothing."""
    instance_id, session_id = instance(api), api.session()["session_id"]
    for number in range(6):
        emit(api, instance_id, "epic_started", epic_id=f"e{number}")
        api.beat(session_id)
        emit(api, instance_id, "epic_completed", epic_id=f"e{number}")
    found: list[int] = []
    after = 0
    while True:
        query: dict[str, Any] = {"after": after, "limit": 4, "event_type": [*given, *given]}
        page = ok(api.get("/api/events", params=query))
        if not page["events"]:
            break
        assert len(page["events"]) <= 4
        found += [event["position"] for event in page["events"]]
        assert {e["event_type"] for e in page["events"]} <= set(given) or not given
        after = page["next_position"]
    assert found == sorted(set(found))
    kinds = {"epic_started": 6, "session_heartbeat": 6}
    expected = sum(kinds[kind] for kind in given) if given else after
    assert len(found) == expected


def test_reads_of_the_past_go_on_after_the_database_came_back(
    private_cluster: KillablePostgres, start: Start
) -> None:
    """Connections that broke while nobody used them are not handed out."""
    with start(private_cluster.url_of("postgres")) as server, server.default() as api:
        instance_id = instance(api)
        paths = (
            f"/api/instances/{instance_id}/events",
            f"/api/instances/{instance_id}/events?keyword=x",
            f"/api/instances/{instance_id}/replay",
            "/api/events",
        )
        for path in paths:
            ok(api.get(path))
        ok(api.post("/api/sessions/detect-failures"))
        private_cluster.kill()
        private_cluster.start()
        eventually("the service to write", lambda: _beats(api, instance_id))
        for path in paths:
            ok(api.get(path))
        ok(api.post("/api/sessions/detect-failures"))


def _beats(api: Api, instance_id: str) -> bool:
    return api.post(f"/api/instances/{instance_id}/heartbeat", json={}).status_code == 200
