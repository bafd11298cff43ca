"""Spec 9: what every reply has, what every list has, and reading what was written."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import httpx
import psycopg
import pytest

from tests.acceptance.past import Past
from tests.acceptance.serving import (
    Api,
    Json,
    Server,
    gone,
    is_uuid4,
    name,
    ok,
    position,
    refused,
)


def replies(api: Api) -> Iterable[httpx.Response]:
    """One reply of each kind."""
    body = {"project_id": name("p"), "machine_id": name("m")}
    yield (created := api.post("/api/sessions", json=body))
    path = f"/api/sessions/{created.json()['session_id']}"
    yield api.get(path)
    yield api.post("/api/sessions", json=body)
    yield api.post("/api/sessions", json={})
    yield api.get("/api/nothing")
    yield api.put("/api/sessions")
    yield api.get("/health")
    yield api.get("/api/docs")
    yield api.get(path, headers={"X-API-Key": "wrong"})
    yield api.post("/api/sessions", content=b" " * 300_000)
    yield api.delete(path)


def test_every_reply_has_a_fresh_request_id(api: Api) -> None:
    """Given replies of all kinds, then each has a UUID4 of its own, whatever the client sends."""
    api.headers["X-Request-Id"] = "mine"
    given = [reply.headers["x-request-id"] for reply in replies(api)]
    assert all(is_uuid4(request_id) for request_id in given)
    assert len(set(given)) == len(given)


def test_every_error_has_the_one_shape(api: Api) -> None:
    """Given one error of each status, then each body says all that an error says."""
    errors = [reply for reply in replies(api) if reply.status_code >= 400]
    assert sorted(reply.status_code for reply in errors) == [400, 401, 404, 405, 409, 413]
    for reply in errors:
        refused(reply, reply.status_code, reply.json()["code"])
        assert reply.headers["content-type"] == "application/json"


def test_unknown_paths_and_methods(api: Api) -> None:
    """Given a path that is not there or a method that it does not take, then 404 and 405."""
    for path in ("/api", "/api/session", "/nothing", "/api/sessions/a/b/c"):
        refused(api.get(path), 404, "no_such_path")
    session_id = api.session()["session_id"]
    for verb, path in (
        ("PUT", "/api/sessions"),
        ("GET", f"/api/sessions/{session_id}/heartbeat"),
        ("DELETE", "/api/machines"),
        ("POST", f"/api/tasks/{session_id}"),
        ("POST", "/health"),
    ):
        refused(api.request(verb, path), 405, "method_not_allowed")


def test_the_event_position_is_that_of_the_command_s_last_event(
    api: Api, store: psycopg.Connection
) -> None:
    """Given commands of every kind, then X-Event-Position is where their own last event is."""
    session = api.session()
    path = f"/api/sessions/{session['session_id']}"
    commands: list[tuple[str, str, Json | None]] = [
        ("POST", "/api/sessions", {"project_id": name("p"), "machine_id": name("m")}),
        ("POST", f"{path}/heartbeat", {}),
        ("PATCH", path, {"status": "paused", "metadata": {"a": 1}}),
        ("POST", f"{path}/mark-stalled", {}),
        ("POST", f"{path}/heartbeat", {"current_task_id": "t"}),
        ("POST", f"{path}/mark-failed", {"error_message": "x"}),
        ("POST", f"{path}/prepare-recovery", {}),
        ("POST", f"{path}/recover", {"new_machine_id": name("m")}),
        ("POST", f"{path}/archive", {}),
        ("POST", "/api/machines", {"hostname": "odin", "docker_slots": []}),
        ("DELETE", path, None),
    ]
    for verb, where, body in commands:
        reply = api.request(verb, where, json=body)
        assert reply.is_success, reply.text
        request_id = reply.headers["x-request-id"]
        row = store.execute(
            "SELECT max(position) FROM event_store WHERE namespace = %s"
            " AND coalesce(metadata->>'request_id', event_id::text) = %s",
            [api.namespace, request_id],
        ).fetchone()
        assert row == (position(reply),), (verb, where)


def test_a_command_that_changes_nothing_tells_a_position_too(
    api: Api, stored: Callable[[], int]
) -> None:
    """Given a command that finds everything as it wants it, then no event, and the head."""
    session_id = api.session()["session_id"]
    before = stored()
    reply = api.patch(f"/api/sessions/{session_id}", json={"status": "active"})
    assert (ok(reply)["status"], position(reply), stored()) == ("active", before, before)


def test_whoever_reads_sees_what_was_written_before(api: Api, past: Past) -> None:
    """Given a hundred writes, each read back at once by list and by id, then none is missing."""
    session = api.session()
    path = f"/api/sessions/{session['session_id']}"
    for number in range(100):
        api.beat(session["session_id"], metadata={"n": number})
        read = api.get(path)
        assert ok(read)["metadata"] == {"n": number}
        assert "x-read-lag" not in read.headers
    for number in range(1, 21):
        task = api.task(session)
        assert api.get_task(task["task_id"]) == task
        assert ok(api.get("/api/tasks"))["total_count"] == number
    # Whoever wrote it: history that another process appended is read at once as well.
    for number in range(1, 11):
        past.session(timedelta(minutes=1))
        assert ok(api.get("/api/sessions"))["total_count"] == number + 1


def test_readers_see_their_own_writes_while_others_write(server: Server, api: Api) -> None:
    """Given eight clients of one namespace at work at once, then each reads what it wrote."""

    def work(_: int) -> None:
        with Api(server.url, api.key, api.namespace) as client:
            for _ in range(12):
                created = client.session(metadata={"n": 1})
                assert client.get_session(created["session_id"]) == created
                assert client.patch_session(created["session_id"], status="completed")
                assert client.get_session(created["session_id"])["status"] == "completed"

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert ok(api.get("/api/sessions/health"))["completed_sessions"] == 96


def test_a_read_can_ask_for_less_or_more_than_the_head(api: Api) -> None:
    """Given min_position=0, then a read waits for nothing; beyond the head it tells its lag."""
    written = api.post("/api/machines", json={"hostname": "odin", "docker_slots": []})
    here = position(written)
    assert "x-read-lag" not in api.get(f"/api/machines?min_position={here}").headers
    assert "x-read-lag" not in api.get("/api/machines?min_position=0").headers
    late = api.get(f"/api/machines?min_position={here + 5}")
    assert ok(late)["total_count"] == 1
    assert late.headers["x-read-lag"] == "5"


@pytest.mark.parametrize("what", ["sessions", "tasks", "machines"])
def test_a_list_comes_in_pages(api: Api, what: str) -> None:
    """Given seven things, then pages of three tell the total, and whether there is more."""
    session = api.session()
    make: dict[str, Callable[[], Json]] = {
        "sessions": lambda: api.session(machine_id=session["machine_id"]),
        "tasks": lambda: api.task(session),
        "machines": lambda: api.machine(),
    }
    there = 0 if what == "tasks" else 1
    for _ in range(7 - there):
        make[what]()
    whole = ok(api.get(f"/api/{what}"))
    assert (whole["total_count"], whole["limit"], whole["offset"]) == (7, 50, 0)
    assert (len(whole[what]), whole["has_more"]) == (7, False)
    about = {"total_count", "limit", "offset", "has_more", "next_cursor"}
    assert set(whole) == {what, *about}
    for offset, more in ((0, True), (3, True), (6, False), (7, False), (1000, False)):
        page = ok(api.get(f"/api/{what}", params={"limit": 3, "offset": offset}))
        assert page[what] == whole[what][offset : offset + 3]
        assert (page["total_count"], page["has_more"]) == (7, more)
        assert (page["limit"], page["offset"]) == (3, offset)
    times = [item["created_at"] for item in whole[what]]
    assert times == sorted(times, reverse=what == "sessions")


def test_a_reply_to_a_command_equals_the_next_read(api: Api) -> None:
    """Given any command's reply, then GET answers the same, field for field."""
    session = api.session(docker_slot=3, metadata={"a": {"b": [1, None, "é"]}}, codebase="/src")
    path = f"/api/sessions/{session['session_id']}"
    task = api.task(session, metadata={"size": 1.5}, github_issue_id="7")
    for body in (
        {"metadata": {"a": None, "c": 1}},
        {"status": "paused"},
        {"status": "stalled"},
        {"status": "active", "current_task_id": "free text"},
        {"current_task_id": None},
    ):
        assert ok(api.patch(path, json=body)) == ok(api.get(path))
    beaten = api.beat(session["session_id"], metadata={"d": 2})
    assert {k: beaten[k] for k in session} == ok(api.get(path))
    assert set(beaten) - set(session) == {"age_seconds", "stale"}
    for status in ("in_progress", "blocked", "pending", "completed"):
        assert api.patch_task(task["task_id"], status=status) == api.get_task(task["task_id"])
    machine = api.machine(docker_slots=[3, 1, 2, 3], metadata={"cpu": 8, "none": None})
    assert machine["docker_slots"] == [1, 2, 3]
    assert machine == api.get_machine(machine["machine_id"])
    machine = api.patch_machine(machine["machine_id"], metadata={"cpu": None}, docker_slots=[])
    assert machine == api.get_machine(machine["machine_id"])
    failed = api.fail(session["session_id"])
    assert failed == ok(api.get(path))
    assert ok(api.post(f"{path}/prepare-recovery")) == ok(api.get(path))
    assert ok(api.post(f"{path}/archive")) == ok(api.get(path))
    successor = ok(api.recover(session["session_id"], name("machine")), 201)
    assert successor == api.get_session(successor["session_id"])
    assert ok(api.get("/api/sessions"))["sessions"] == [successor, ok(api.get(path))]


def test_the_view_of_live_sessions(api: Api, past: Past) -> None:
    """Given live and ended sessions, then /active has a row for each live one, with its ages."""
    fresh = api.session(hostname="odin", tty="pts/1", docker_slot=2)
    paused = past.session(timedelta(minutes=4))
    api.patch_session(paused["session_id"], status="paused")
    old = past.session(timedelta(minutes=6))
    api.fail(api.session()["session_id"])
    reply = ok(api.get("/api/sessions/active"))
    assert reply["total_count"] == 3
    rows = {row["session_id"]: row for row in reply["sessions"]}
    assert list(rows) == [fresh["session_id"], paused["session_id"], old["session_id"]]
    row = rows[fresh["session_id"]]
    for field in ("project_id", "machine_id", "docker_slot", "hostname", "tty", "last_heartbeat"):
        assert row[field] == fresh[field]
    assert (row["status"], row["computed_status"], row["held_items"]) == ("active", "idle", [])
    assert row["claim_duration_minutes"] is None
    assert row["heartbeat_age_human"].endswith("s ago")
    assert rows[paused["session_id"]]["status"] == "paused"
    assert rows[paused["session_id"]]["heartbeat_age_human"] == "4m ago"
    row = rows[old["session_id"]]
    assert (row["status"], row["computed_status"]) == ("stalled", "stale")
    assert (row["heartbeat_age_human"], row["seconds_until_stale"]) == ("6m ago", 0)
    assert row["heartbeat_age_minutes"] == pytest.approx(row["heartbeat_age_seconds"] / 60)
    assert row["heartbeat_age_seconds"] >= 360


def test_a_deleted_thing_s_tombstone_answers_without_a_body(api: Api) -> None:
    """Given a DELETE, then 204, no body, and the position of the tombstone."""
    session_id = api.session()["session_id"]
    reply = api.delete(f"/api/sessions/{session_id}")
    gone(reply)
    assert position(reply) > 0
    assert "content-length" not in reply.headers


def test_times_are_utc_with_z(api: Api) -> None:
    """Given any reply, then its times end in Z."""
    session = api.session()
    for field in ("created_at", "updated_at", "started_at", "last_heartbeat"):
        assert session[field].endswith("Z")
    assert ok(api.get("/health"))["timestamp"].endswith("Z")


def test_a_method_that_a_path_does_not_take_is_answered_with_those_that_it_takes(api: Api) -> None:
    reply = api.put("/api/sessions", json={})

    refused(reply, 405, "method_not_allowed")
    assert set(reply.headers["allow"].split(", ")) >= {"GET", "POST"}


def test_a_path_with_a_slash_too_many_is_no_path(api: Api) -> None:
    refused(api.get("/api/sessions/"), 404, "no_such_path")
