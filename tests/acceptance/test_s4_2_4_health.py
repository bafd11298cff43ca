"""S4 2.4: session health."""

from __future__ import annotations

from datetime import timedelta

from tests.acceptance.conftest import Start
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, Json, ok, refused

OLD = timedelta(minutes=5)


def stalled(api: Api) -> list[str]:
    """The ids in the stalled list."""
    listed = ok(api.get("/api/sessions/stalled"))["stalled_sessions"]
    return [session["session_id"] for session in listed]


def test_the_summary_counts_every_session_once(api: Api) -> None:
    """AC-2.4.a Counts by status are exact, and add up to the total."""
    sessions = [api.session()["session_id"] for _ in range(6)]
    api.stall(sessions[2])
    api.fail(sessions[3])
    api.patch_session(sessions[4], status="completed")
    api.patch_session(sessions[5], status="paused")
    assert counts(api) == {
        "total_sessions": 6,
        "active_sessions": 2,
        "paused_sessions": 1,
        "stalled_sessions": 1,
        "failed_sessions": 1,
        "completed_sessions": 1,
    }


def test_an_unrecorded_stall_counts_as_stalled(api: Api, past: Past) -> None:
    """AC-2.4.a Past the threshold a session counts as stalled, before any sweep (spec 9)."""
    past.session(OLD)
    api.session()
    assert counts(api)["stalled_sessions"] == 1
    assert counts(api)["active_sessions"] == 1
    assert counts(api)["total_sessions"] == 2


def counts(api: Api) -> Json:
    """The summary without its time."""
    summary = ok(api.get("/api/sessions/health"))
    assert summary.pop("last_updated").endswith("Z")
    return summary


def test_a_silent_session_is_in_the_stalled_list(api: Api, past: Past) -> None:
    """AC-2.4.b An active session whose last heartbeat is 5 minutes old is listed."""
    old = past.session(OLD)
    reply = ok(api.get("/api/sessions/stalled"))
    (listed,) = reply["stalled_sessions"]
    assert {k: listed[k] for k in ("session_id", "project_id", "machine_id")} == {
        k: old[k] for k in ("session_id", "project_id", "machine_id")
    }
    assert set(listed) == {
        "session_id",
        "project_id",
        "machine_id",
        "last_heartbeat",
        "time_since_heartbeat_ms",
    }
    assert listed["time_since_heartbeat_ms"] >= 300_000
    assert reply["stall_threshold_ms"] == 180_000


def test_a_session_that_was_marked_stalled_is_listed_too(api: Api) -> None:
    """AC-2.4.b Stored stalled and active past the threshold are one list (spec 15, 7)."""
    session_id = api.session()["session_id"]
    api.stall(session_id)
    assert stalled(api) == [session_id]


def test_a_session_that_beats_is_not_in_the_stalled_list(api: Api, past: Past) -> None:
    """AC-2.4.c A heartbeat takes a session out of the list."""
    old = past.session(OLD)["session_id"]
    fresh = api.session()["session_id"]
    api.beat(fresh)
    assert stalled(api) == [old]
    api.beat(old)
    assert stalled(api) == []


def test_a_session_that_beats_is_healthy(api: Api) -> None:
    """AC-2.4.d is_healthy is true for an active session within its threshold."""
    session = api.session()
    health = ok(api.get(f"/api/sessions/{session['session_id']}/health"))
    assert health.pop("time_since_heartbeat_ms") >= 0
    assert health == {
        "session_id": session["session_id"],
        "is_healthy": True,
        "status": "active",
        "last_heartbeat": session["last_heartbeat"],
        "is_stalled": False,
        "stall_threshold_ms": 180_000,
    }


def test_a_silent_session_is_not_healthy(api: Api, past: Past) -> None:
    """AC-2.4.d Past the threshold is_healthy is false and is_stalled true."""
    session_id = past.session(OLD)["session_id"]
    health = ok(api.get(f"/api/sessions/{session_id}/health"))
    assert (health["is_healthy"], health["is_stalled"]) == (False, True)
    assert health["status"] == "stalled"
    assert health["time_since_heartbeat_ms"] >= 300_000


def test_a_paused_or_ended_session_is_neither_healthy_nor_stalled(api: Api) -> None:
    """AC-2.4.d is_healthy needs status active."""
    for status in ("paused", "completed", "failed"):
        session_id = api.session()["session_id"]
        api.patch_session(session_id, status=status)
        health = ok(api.get(f"/api/sessions/{session_id}/health"))
        assert (health["is_healthy"], health["is_stalled"]) == (False, False)
        assert health["status"] == status


def test_the_health_of_a_session_that_is_not_there_is_not_found(api: Api) -> None:
    """AC-2.4.d Unknown and malformed ids are 404."""
    refused(api.get("/api/sessions/nonsense/health"), 404, "session_not_found")


def test_the_threshold_is_a_setting(database: str, start: Start) -> None:
    """AC-2.4.e With STALL_THRESHOLD_MS=60000 a heartbeat 90 seconds old is a stall."""
    with start(database, STALL_THRESHOLD_MS="60000") as server, server.default() as api:
        past = Past(database, api.namespace)
        old = past.session(timedelta(seconds=90))["session_id"]
        past.session(timedelta(seconds=10))
        assert stalled(api) == [old]
        assert ok(api.get("/api/sessions/stalled"))["stall_threshold_ms"] == 60_000
        health = ok(api.get(f"/api/sessions/{old}/health"))
        assert (health["is_stalled"], health["stall_threshold_ms"]) == (True, 60_000)


def test_ninety_seconds_are_no_stall_by_default(api: Api, past: Past) -> None:
    """AC-2.4.e Without the setting the threshold is 3 minutes."""
    past.session(timedelta(seconds=90))
    assert stalled(api) == []
