"""What arrives late says when it happened, by the client's clock; nothing is decided by that."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from tests.acceptance.serving import Api, Json, ok

Call = Callable[[Api, Json], httpx.Response]


def ago(**time: float) -> str:
    """A time before now, as a client writes it."""
    return (datetime.now(UTC) - timedelta(**time)).isoformat().replace("+00:00", "Z")


def last(api: Api, stream_id: str, event_type: str) -> Json:
    """The last event of this type in a stream."""
    query = {"event_type": event_type, "order": "desc", "limit": "1"}
    [event] = ok(api.get(f"/api/streams/{stream_id}/events", params=query))["events"]
    found: Json = event
    return found


def instance(api: Api) -> str:
    body = {"project": "odin", "instance_type": "PS"}
    return str(ok(api.post("/api/instances", json=body), 201)["instance_id"])


def dated(api: Api, told: object) -> list[Json]:
    """An event of each kind of request that says when it happened."""
    when = {"occurred_at": told}
    body = {"project_id": "odin", "machine_id": "laptop", **when}
    session = ok(api.post("/api/sessions", json=body), 201)["session_id"]
    body = {"session_id": session, "project_id": "odin", "task_name": "t", **when}
    task = ok(api.post("/api/tasks", json=body), 201)["task_id"]
    ok(api.patch(f"/api/tasks/{task}", json={"status": "in_progress", **when}))
    body = {"project": "odin", "instance_type": "PS", **when}
    agent = ok(api.post("/api/instances", json=body), 201)["instance_id"]
    body = {"event_type": "epic_started", "event_data": {"epic_id": "e"}, **when}
    ok(api.post(f"/api/instances/{agent}/events", json=body), 201)
    body = {"label": "l", "state": {}, **when}
    ok(api.post(f"/api/instances/{agent}/checkpoints", json=body), 201)
    ok(api.post(f"/api/instances/{agent}/close", json=when))
    ok(api.patch(f"/api/sessions/{session}", json={"status": "completed", **when}))
    body = {"project_id": "odin", "machine_id": "desktop"}
    other = ok(api.post("/api/sessions", json=body), 201)["session_id"]
    ok(api.post(f"/api/sessions/{other}/mark-failed", json={"error_message": "x", **when}))
    return [
        last(api, f"session-{session}", "session_created"),
        last(api, f"session-{session}", "task_created"),
        last(api, f"session-{session}", "task_started"),
        last(api, f"session-{session}", "session_completed"),
        last(api, f"session-{other}", "session_failed"),
        last(api, f"instance-{agent}", "instance_registered"),
        last(api, f"instance-{agent}", "epic_started"),
        last(api, f"instance-{agent}", "checkpoint_created"),
        last(api, f"instance-{agent}", "instance_closed"),
    ]


def test_sessions_tasks_and_ends_say_when_they_happened(api: Api) -> None:
    told = ago(hours=3)
    for event in dated(api, told):
        kept = event["metadata"]
        assert kept["clock"] == "client"
        assert datetime.fromisoformat(kept["occurred_at"]) - datetime.fromisoformat(
            told
        ) < timedelta(milliseconds=1)
        assert event["timestamp"] > told


@pytest.mark.parametrize(
    "told",
    [
        pytest.param(ago(days=31), id="too long ago"),
        pytest.param(ago(days=-1), id="tomorrow"),
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "0001-01-01T00:00:00+14:00",
        None,
    ],
)
def test_what_no_clock_can_have_said_is_left_out_and_the_write_still_counts(
    api: Api, told: object
) -> None:
    for event in dated(api, told):
        assert not {"occurred_at", "clock"} & event["metadata"].keys()


@pytest.mark.parametrize("told", [5, "yesterday", "2026-01-31T12:00:00", True, {}, ["x"]])
def test_what_is_no_time_is_refused(api: Api, told: object) -> None:
    body = {"project_id": "odin", "machine_id": "laptop", "occurred_at": told}
    refused = api.post("/api/sessions", json=body)

    assert refused.status_code == 400
    assert [error["field"] for error in refused.json()["errors"]] == ["occurred_at"]


def test_nothing_is_decided_by_it(api: Api) -> None:
    """Who was silent until now is alive now, however long ago it says that it began."""
    body = {"project_id": "odin", "machine_id": "laptop", "occurred_at": ago(days=20)}
    session = ok(api.post("/api/sessions", json=body), 201)

    assert session["status"] == "active"
    assert session["started_at"] > ago(minutes=5)


def test_a_repetition_that_says_when_it_happened_is_the_same_request(api: Api) -> None:
    headers = {"Idempotency-Key": "one"}
    body = {"project_id": "odin", "machine_id": "laptop"}
    first = api.post("/api/sessions", json=body, headers=headers)
    again = api.post("/api/sessions", json={**body, "occurred_at": ago(hours=1)}, headers=headers)
    other = api.post("/api/sessions", json={**body, "hostname": "h"}, headers=headers)

    assert (first.status_code, again.status_code, other.status_code) == (201, 201, 422)
    assert first.json() == again.json()


def test_an_emitted_event_keeps_what_its_own_metadata_says(api: Api) -> None:
    agent, own = instance(api), {"occurred_at": "noon", "by": "me"}
    body = {"event_type": "epic_started", "event_data": {"epic_id": "e"}, "metadata": own}
    ok(api.post(f"/api/instances/{agent}/events", json={**body, "occurred_at": ago(hours=1)}), 201)

    kept = last(api, f"instance-{agent}", "epic_started")["metadata"]
    assert (kept["occurred_at"], kept["by"], kept["clock"]) == ("noon", "me", "client")
