"""Spec 5, 17: liveness is computed on read, and recorded by a sweep that re-decides."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.past import Past
from tests.acceptance.serving import Api, eventually, name, ok

OLD = timedelta(minutes=5)


def test_past_the_threshold_every_read_says_stalled(
    api: Api, past: Past, stored: Callable[[], int]
) -> None:
    """Given a silent session and no sweep, then all reads agree that it is stalled."""
    session = past.session(OLD)
    session_id = session["session_id"]
    before = stored()
    assert api.get_session(session_id)["status"] == "stalled"
    assert ok(api.get(f"/api/sessions/{session_id}/health"))["is_stalled"] is True
    assert ok(api.get(f"/api/sessions/{session_id}/recovery-state"))["status"] == "stalled"
    assert ok(api.get("/api/sessions"))["sessions"][0]["status"] == "stalled"
    assert ok(api.get("/api/sessions?status=stalled"))["total_count"] == 1
    assert ok(api.get("/api/sessions?status=active"))["total_count"] == 0
    assert ok(api.get("/api/sessions?status=active&offset=5"))["total_count"] == 0
    assert ok(api.get("/api/sessions/active"))["sessions"][0]["status"] == "stalled"
    assert len(ok(api.get("/api/sessions/stalled"))["stalled_sessions"]) == 1
    assert ok(api.get("/api/sessions/health"))["stalled_sessions"] == 1
    assert stored() == before
    # And so do replies to commands that do not revive it.
    assert api.patch_session(session_id, metadata={"a": 1})["status"] == "stalled"
    assert api.get_session(session_id)["status"] == "stalled"
    assert api.get_machine(session["machine_id"])["active_sessions"] == [session_id]


def test_a_paused_session_never_stalls(api: Api, past: Past) -> None:
    """Given a paused session, then however long it is silent it stays paused, in every read."""
    session_id = past.session(timedelta(days=3))["session_id"]
    api.patch_session(session_id, status="paused")
    assert ok(api.post("/api/sessions/detect-failures"))["stalled"] == 0
    assert api.get_session(session_id)["status"] == "paused"
    assert ok(api.get("/api/sessions/stalled"))["stalled_sessions"] == []
    assert ok(api.get("/api/sessions/health"))["paused_sessions"] == 1
    beaten = api.beat(session_id)
    assert beaten["status"] == "paused"
    assert beaten["age_seconds"] >= 3 * 86_400
    assert api.patch_session(session_id, status="active")["status"] == "active"


@pytest.mark.parametrize(
    ("threshold", "minutes", "stalled"),
    [(60_000, 2, True), (60_000, 0, False), (3_600_000, 30, False), (3_600_000, 61, True)],
)
def test_a_session_may_have_its_own_threshold(
    api: Api, past: Past, threshold: int, minutes: int, stalled: bool
) -> None:
    """Given stall_threshold_ms, then it counts for this session in place of the service's."""
    silent = timedelta(minutes=minutes)
    session_id = past.session(silent, stall_threshold_ms=threshold)["session_id"]
    assert api.get_session(session_id)["stall_threshold_ms"] == threshold
    health = ok(api.get(f"/api/sessions/{session_id}/health"))
    assert (health["is_stalled"], health["stall_threshold_ms"]) == (stalled, threshold)
    assert len(ok(api.get("/api/sessions/stalled"))["stalled_sessions"]) == int(stalled)
    assert ok(api.post("/api/sessions/detect-failures"))["stalled"] == int(stalled)
    assert api.beat(session_id)["stale"] is stalled


def test_the_threshold_of_a_session_comes_back(api: Api) -> None:
    """Given the shortest and the longest threshold, then both are accepted."""
    for threshold in (30_000, 86_400_000):
        created = api.session(stall_threshold_ms=threshold)
        assert api.get_session(created["session_id"])["stall_threshold_ms"] == threshold
    assert api.session()["stall_threshold_ms"] is None


def test_the_stalled_list_begins_with_the_longest_silent(api: Api, past: Past) -> None:
    """Given several stalled sessions, then the list is by last heartbeat, the oldest first."""
    ids = [past.session(timedelta(minutes=m))["session_id"] for m in (5, 9, 7)]
    listed = ok(api.get("/api/sessions/stalled"))["stalled_sessions"]
    assert [row["session_id"] for row in listed] == [ids[1], ids[2], ids[0]]
    assert [row["time_since_heartbeat_ms"] // 60_000 for row in listed] == [9, 7, 5]


def test_a_heartbeat_in_the_future_is_not_negative(api: Api, past: Past) -> None:
    """Given a heartbeat written ahead of the database's clock, then its age is 0, not below."""
    session_id = past.session(-timedelta(minutes=1))["session_id"]
    assert ok(api.get(f"/api/sessions/{session_id}/health"))["time_since_heartbeat_ms"] == 0
    row = ok(api.get("/api/sessions/active"))["sessions"][0]
    assert (row["heartbeat_age_seconds"], row["heartbeat_age_human"]) == (0, "0s ago")
    assert api.beat(session_id)["age_seconds"] == 0


def test_a_session_that_falls_silent_stalls_and_comes_back(database: str, start: Start) -> None:
    """Given short thresholds, then the status goes active, stalled, recorded, active by itself."""
    with (
        start(database, STALL_THRESHOLD_MS="400", SWEEP_SECONDS="0.2") as server,
        server.default() as api,
    ):
        session = api.session(machine_id=name("machine"))
        session_id = session["session_id"]

        def reads(status: str) -> bool:
            return bool(api.get_session(session_id)["status"] == status)

        eventually("the stall", lambda: reads("stalled"))
        eventually("its being recorded", lambda: server.lines("session_stalled") or None)
        beaten = api.beat(session_id)
        assert (beaten["status"], beaten["stale"]) == ("active", True)
        eventually("the next stall", lambda: reads("stalled"))
        assert api.patch_session(session_id, status="paused")["status"] == "paused"
        recorded = len(server.lines("session_stalled"))
        other = api.session(machine_id=name("machine"))["session_id"]
        eventually(
            "a sweep that finds the other",
            lambda: any(
                line["context"]["session_id"] == other for line in server.lines("session_stalled")
            ),
        )
        assert reads("paused")
        ours = [x for x in server.lines("session_stalled") if x["context"]["session_id"] != other]
        assert len(ours) in (recorded, recorded + 1)
