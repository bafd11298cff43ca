"""Spec 9, 17: Idempotency-Key."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import psycopg
import pytest

from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Server, gone, invalid, name, ok, position, refused

Count = Callable[[], int]


def keyed(key: str) -> dict[str, str]:
    """The header."""
    return {"Idempotency-Key": key}


def place() -> dict[str, object]:
    """The body of a session in a place of its own."""
    return {"project_id": name("project"), "machine_id": name("machine")}


def same(first: httpx.Response, again: httpx.Response) -> None:
    """Both are one reply, told twice."""
    assert again.status_code == first.status_code
    assert again.content == first.content
    assert again.headers["x-event-position"] == first.headers["x-event-position"]
    assert again.headers["x-request-id"] != first.headers["x-request-id"]


def test_a_repeated_request_gets_the_stored_reply(api: Api, stored: Count) -> None:
    """Given a key and a body sent again, then the reply is the same and nothing else happens."""
    body = place()
    first = api.post("/api/sessions", json=body, headers=keyed("k"))
    session_id = ok(first, 201)["session_id"]
    api.patch_session(session_id, status="completed")
    before = stored()
    reordered = dict(reversed(body.items()))
    same(first, api.post("/api/sessions", json=reordered, headers=keyed("k")))
    assert stored() == before
    assert ok(api.get("/api/sessions"))["total_count"] == 1


def test_another_body_under_the_same_key_is_refused(api: Api, stored: Count) -> None:
    """Given a used key with another body, then 422 and nothing is stored."""
    ok(api.post("/api/sessions", json=place(), headers=keyed("k")), 201)
    before = stored()
    again = api.post("/api/sessions", json=place(), headers=keyed("k"))
    refused(again, 422, "idempotency_mismatch")
    assert stored() == before


def test_a_key_belongs_to_its_method_and_path(api: Api) -> None:
    """Given one key for requests of different paths and methods, then each is carried out."""
    session = ok(api.post("/api/sessions", json=place(), headers=keyed("k")), 201)
    path = f"/api/sessions/{session['session_id']}"
    assert ok(api.post(f"{path}/heartbeat", headers=keyed("k")))["session_id"]
    assert ok(api.patch(path, json={"metadata": {"a": 1}}, headers=keyed("k")))["metadata"]
    other = api.session()["session_id"]
    beaten = ok(api.post(f"/api/sessions/{other}/heartbeat", headers=keyed("k")))
    assert beaten["session_id"] == other
    gone(api.delete(path, headers=keyed("k")))
    refused(api.get(path), 404, "session_not_found")


def test_deletions_can_be_repeated(api: Api, stored: Count) -> None:
    """Given a DELETE with a key sent again, then 204 again, where another key finds nothing."""
    session = api.session()
    tasks = [api.task(session) for _ in range(2)]
    for path in (f"/api/tasks/{tasks[0]['task_id']}", f"/api/sessions/{session['session_id']}"):
        first = api.delete(path, headers=keyed("k"))
        gone(first)
        before = stored()
        same(first, api.delete(path, headers=keyed("k")))
        assert api.delete(path, headers=keyed("other")).status_code == 404
        assert stored() == before


def test_every_command_can_be_repeated(api: Api, stored: Count) -> None:
    """Given each kind of POST and PATCH twice with one key, then one effect and one reply."""
    session = api.session()
    path = f"/api/sessions/{session['session_id']}"
    task = api.task(session)
    host = f"/api/machines/{session['machine_id']}"
    requests: list[tuple[str, str, dict[str, object]]] = [
        ("POST", f"{path}/heartbeat", {"metadata": {"n": 1}}),
        ("PATCH", path, {"metadata": {"n": 2}}),
        (
            "POST",
            "/api/tasks",
            {
                "session_id": session["session_id"],
                "project_id": session["project_id"],
                "task_name": "t",
            },
        ),
        ("PATCH", f"/api/tasks/{task['task_id']}", {"status": "in_progress"}),
        ("POST", "/api/machines", {"hostname": "odin", "docker_slots": [1]}),
        ("PATCH", host, {"status": "offline"}),
        ("POST", f"{host}/heartbeat", {}),
        ("POST", f"{path}/mark-stalled", {}),
        ("POST", f"{path}/mark-failed", {"error_message": "x"}),
        ("POST", f"{path}/prepare-recovery", {"clear_machine": True}),
        ("POST", f"{path}/archive", {}),
        ("POST", f"{path}/recover", {"new_machine_id": name("machine")}),
    ]
    for verb, where, body in requests:
        first = api.request(verb, where, json=body, headers=keyed("k"))
        assert first.is_success, first.text
        before = stored()
        same(first, api.request(verb, where, json=body, headers=keyed("k")))
        assert stored() == before


def test_actions_can_be_repeated(api: Api, past: Past, stored: Count) -> None:
    """Given detect-failures and cleanup twice with one key, then the second one finds no work."""
    past.session(timedelta(minutes=5))
    first = api.post("/api/sessions/detect-failures", headers=keyed("k"))
    assert ok(first)["stalled"] == 1
    past.session(timedelta(minutes=5))
    before = stored()
    same(first, api.post("/api/sessions/detect-failures", headers=keyed("k")))
    assert stored() == before
    past.session(timedelta(days=50), ended=timedelta(days=40), tasks=2)
    for verb in ("POST", "DELETE"):
        past.session(timedelta(days=50), ended=timedelta(days=40), tasks=2)
        first = api.request(verb, "/api/sessions/cleanup", headers=keyed("k"))
        assert ok(first)["deleted_sessions"] > 0
        past.session(timedelta(days=50), ended=timedelta(days=40), tasks=2)
        same(first, api.request(verb, "/api/sessions/cleanup", headers=keyed("k")))
    other = api.post("/api/sessions/cleanup?older_than_days=3", headers=keyed("k"))
    refused(other, 422, "idempotency_mismatch")


def test_an_action_s_repeated_position_is_the_first_one_s(api: Api, past: Past) -> None:
    """Given writes between an action and its repetition, then the position is still the first."""
    past.session(timedelta(minutes=5))
    first = api.post("/api/sessions/detect-failures", headers=keyed("k"))
    for _ in range(3):
        api.session()
    again = api.post("/api/sessions/detect-failures", headers=keyed("k"))
    assert position(again) == position(first)


@pytest.mark.parametrize("at_once", [2, 20])
def test_requests_at_once_have_one_effect(server: Server, api: Api, at_once: int) -> None:
    """Given a request sent several times at once with one key, then one session and one reply."""
    body = place()

    def send(_: int) -> httpx.Response:
        with Api(server.url, api.key, api.namespace) as client:
            return client.post("/api/sessions", json=body, headers=keyed("k"))

    with ThreadPoolExecutor(at_once) as pool:
        sent = list(pool.map(send, range(at_once)))
    assert {reply.status_code for reply in sent} == {201}
    assert len({reply.content for reply in sent}) == 1
    assert len({position(reply) for reply in sent}) == 1
    assert len({reply.headers["x-request-id"] for reply in sent}) == at_once
    assert ok(api.get("/api/sessions"))["total_count"] == 1


def test_actions_at_once_have_one_reply(server: Server, api: Api, past: Past) -> None:
    """Given an action sent several times at once with one key, then all are told the same."""
    for _ in range(5):
        past.session(timedelta(minutes=5))

    def send(_: int) -> httpx.Response:
        with Api(server.url, api.key, api.namespace) as client:
            return client.post("/api/sessions/detect-failures", headers=keyed("k"))

    with ThreadPoolExecutor(6) as pool:
        sent = list(pool.map(send, range(6)))
    assert len({reply.content for reply in sent}) == 1
    assert len({position(reply) for reply in sent}) == 1


def test_a_refused_request_is_decided_again(api: Api) -> None:
    """Given a refusal under a key, then it was not kept: the same request may succeed later."""
    body = place()
    holder = api.session(**body)["session_id"]
    refused(api.post("/api/sessions", json=body, headers=keyed("k")), 409, "session_exists")
    api.patch_session(holder, status="completed")
    ok(api.post("/api/sessions", json=body, headers=keyed("k")), 201)


def test_the_key_is_kept_with_the_events(api: Api, store: psycopg.Connection) -> None:
    """Given a command with a key, then its events name it as command_id."""
    reply = api.post("/api/sessions", json=place(), headers=keyed("order 66"))
    ok(reply, 201)
    rows = store.execute(
        "SELECT DISTINCT metadata->>'command_id' FROM event_store WHERE namespace = %s",
        [api.namespace],
    ).fetchall()
    assert rows == [("order 66",)]


@pytest.mark.parametrize("key", [b"", b"x" * 256, b"\xc3\xa9", b"a\tb"])
def test_a_malformed_key_is_refused(api: Api, stored: Count, key: bytes) -> None:
    """Given a key that is empty, too long or not printable ASCII, then 400 names the header."""
    reply = api.post("/api/sessions", json=place(), headers=[(b"Idempotency-Key", key)])
    invalid(reply, "Idempotency-Key")
    assert stored() == 0


def test_a_repeated_read_is_simply_read(api: Api) -> None:
    """Given a GET with a key, then the key means nothing."""
    assert ok(api.get("/api/sessions", headers=keyed("k")))["total_count"] == 0
    api.session()
    assert ok(api.get("/api/sessions", headers=keyed("k")))["total_count"] == 1
