"""S4 2.2: the heartbeat."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

from tests.acceptance.past import Past
from tests.acceptance.serving import Api, ok, refused

NEVER = "0b2ab3c8-5d1f-4f7e-9d2c-8c1b0e8f6a77"


def test_a_heartbeat_brings_last_heartbeat_up_to_now(api: Api, past: Past) -> None:
    """AC-2.2.a last_heartbeat becomes the present time: it lies between the request's two ends.

    Server and test have one clock here; two seconds are allowed for the host's being set.
    """
    session_id = past.session(timedelta(minutes=2))["session_id"]
    before = datetime.now(UTC)
    beaten = api.beat(session_id)
    after = datetime.now(UTC)
    then = datetime.fromisoformat(api.get_session(session_id)["last_heartbeat"])
    assert before - timedelta(seconds=2) <= then <= after + timedelta(seconds=2)
    assert beaten["last_heartbeat"] == api.get_session(session_id)["last_heartbeat"]


def test_a_heartbeat_may_name_the_current_task(api: Api) -> None:
    """AC-2.2.b current_task_id in the body becomes the session's; a beat without one keeps it."""
    session_id = api.session()["session_id"]
    assert api.beat(session_id, current_task_id="task-123")["current_task_id"] == "task-123"
    assert api.beat(session_id)["current_task_id"] == "task-123"
    assert api.get_session(session_id)["current_task_id"] == "task-123"


def test_a_heartbeat_merges_metadata(api: Api) -> None:
    """AC-2.2.b The optional metadata object goes over what there was; null removes a key."""
    session_id = api.session(metadata={"a": 1, "b": 2})["session_id"]
    api.beat(session_id, metadata={"b": None, "c": {"d": [3]}})
    assert api.get_session(session_id)["metadata"] == {"a": 1, "c": {"d": [3]}}


def test_a_heartbeat_revives_a_stalled_session(api: Api) -> None:
    """AC-2.2.c A stalled session that beats is active again."""
    session_id = api.session()["session_id"]
    api.patch_session(session_id, status="stalled")
    assert api.get_session(session_id)["status"] == "stalled"
    assert api.beat(session_id)["status"] == "active"
    assert api.get_session(session_id)["status"] == "active"


def test_a_hundred_heartbeats_at_once_are_all_stored(api: Api) -> None:
    """AC-2.2.d What the load test sends is answered and kept; the times are `make bench`'s."""
    ids = [api.session()["session_id"] for _ in range(4)]

    def beat(number: int) -> str:
        status: str = api.beat(ids[number % 4], metadata={f"n{number}": number})["status"]
        return status

    with ThreadPoolExecutor(8) as pool:
        assert set(pool.map(beat, range(100))) == {"active"}
    kept = [api.get_session(session_id)["metadata"] for session_id in ids]
    assert sum(map(len, kept)) == 100


def test_a_heartbeat_of_a_session_that_is_not_there_is_not_found(api: Api) -> None:
    """AC-2.2.e An unknown or malformed session_id is 404."""
    for session_id in ("invalid-uuid", NEVER):
        response = api.post(f"/api/sessions/{session_id}/heartbeat")
        refused(response, 404, "session_not_found")


def test_two_heartbeats_within_a_second_both_succeed(api: Api) -> None:
    """AC-2.2.f Heartbeats close together do not conflict, with a body or without."""
    session_id = api.session()["session_id"]
    path = f"/api/sessions/{session_id}/heartbeat"
    assert ok(api.post(path))["status"] == "active"
    assert ok(api.post(path, json={}))["status"] == "active"
