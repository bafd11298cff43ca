"""S2: the event store as its clients see it. Each test names the section of S2 that it shows."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.sql import SQL, Identifier

from application.eventstore.connect import SERVICE_ROLE
from domain.instances.instance import Instance
from domain.instances.instance_events import INSTANCE_EVENTS
from domain.instances.work_events import CATALOGUE
from tests.acceptance.fleet import Fleet
from tests.acceptance.serving import Api, Json, Server, gone, is_uuid4, ok, position, refused

OLD = timedelta(minutes=5)
# One of each type, as its agents would send it; S2 6-9 where S2 has a sample.
SAMPLES: dict[str, Json] = {
    "epic_planned": {"epic_id": "epic-003", "estimated_hours": 60},
    "epic_started": {
        "epic_id": "epic-003",
        "feature_name": "authentication-oauth",
        "estimated_hours": 60,
        "spawned_by": "plan-feature-interactive",
        "acceptance_criteria_count": 12,
    },
    "feature_requested": {"feature_name": "single sign-on"},
    "task_spawned": {"task_name": "write the parser"},
    "command_logged": {"command": "make test", "exit_code": 0, "duration_ms": 812.5},
    "context_window_updated": {"context_percent": 73},
    "test_started": {"epic_id": "epic-003", "total_count": 45},
    "test_failed": {"epic_id": "epic-003", "failed_count": 2, "failures": ["a", "b"]},
    "test_passed": {
        "epic_id": "epic-003",
        "test_type": "unit|integration|e2e",
        "passed_count": 45,
        "failed_count": 0,
        "coverage_percent": 87,
        "duration_seconds": 342,
    },
    "commit_created": {"commit": "a1b2c3d", "message": 'Größe “8” ≤ 9 \\ " / 🙂'},
    "pr_created": {"pr_url": "https://github.com/project/pull/123"},
    "pr_merged": {"pr_url": "https://github.com/project/pull/123"},
    "validation_failed": {"issues": ["cors_headers"]},
    "validation_passed": {"confidence": 0.96},
    "checkpoint_created": {"label": "before deploying", "state": {"step": 4, "deep": {"er": []}}},
    "checkpoint_loaded": {"checkpoint_id": "c-1"},
    "deployment_started": {"service": "supervisor-mcp"},
    "deployment_failed": {"service": "supervisor-mcp", "error_message": "no disk"},
    "deployment_completed": {
        "service": "supervisor-mcp",
        "port": 8081,
        "health_status": "healthy",
        "response_time_ms": 12,
        "git_commit": "a1b2c3d",
        "docker_image": "supervisor:latest",
    },
    "prd_updated": {"epic_id": "epic-003", "version": "1.1"},
    "epic_failed": {"epic_id": "epic-002", "reason": "no budget"},
    "epic_completed": {
        "epic_id": "epic-003",
        "duration_hours": 58.5,
        "files_changed": 23,
        "tests_passed": 45,
        "pr_url": "https://github.com/project/pull/123",
        "validation_confidence": 0.96,
        "issues_encountered": ["cors_headers", "token_refresh"],
    },
}


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


@pytest.fixture
def agent(fleet: Fleet) -> str:
    """An instance that registered just now."""
    return fleet.id()


@pytest.fixture
def busy(fleet: Fleet, agent: str) -> str:
    """An instance that did a little of everything."""
    for event_type, data in SAMPLES.items():
        fleet.emit(agent, event_type, data)
    return agent


def numbers(events: list[Json]) -> list[int]:
    return [event["sequence_num"] for event in events]


# 1: the table


def test_an_event_in_the_table_is_what_the_api_says(
    fleet: Fleet, agent: str, store: psycopg.Connection
) -> None:
    """S2 1 event_id, sequence_num, event_type, timestamp, event_data, metadata in `event_store`."""
    emitted = fleet.emit(agent, "epic_started", SAMPLES["epic_started"], metadata={"tag": "x"})
    row = store.execute(
        "SELECT event_id, sequence_num, event_type, timestamp, event_data, metadata"
        " FROM event_store WHERE namespace = %s AND stream_id = %s AND sequence_num = 2",
        [fleet.api.namespace, f"instance-{agent}"],
    ).fetchone()

    assert row is not None
    event_id, sequence_num, event_type, timestamp, data, metadata = row
    assert str(event_id) == emitted["event_id"]
    assert sequence_num == emitted["sequence_num"] == 2
    assert event_type == "epic_started"
    assert timestamp == datetime.fromisoformat(emitted["timestamp"])
    assert data == SAMPLES["epic_started"]
    assert metadata["tag"] == "x"


def test_every_index_begins_with_the_namespace(store: psycopg.Connection) -> None:
    """S2 1 By instance and number (the primary key), by position; no query crosses a namespace."""
    rows = store.execute(
        "SELECT indexdef FROM pg_indexes WHERE tablename = 'event_store'"
    ).fetchall()
    columns = [definition.partition("(")[2].partition(")")[0] for (definition,) in rows]

    assert "namespace, stream_id, sequence_num" in columns
    assert all(column.startswith("namespace,") for column in columns)


# 2: the types


def test_every_type_of_s2_can_be_seen_in_the_list(api: Api) -> None:
    """S2 2 All types with their categories; 3 the list_event_types tool."""
    listed = ok(api.get("/api/event-types"))["event_types"]
    by_type = {entry["type"]: entry for entry in listed}

    assert len(by_type) == len(listed)
    assert set(by_type) == {*CATALOGUE, *(event.event_type for event in INSTANCE_EVENTS)}
    for entry in listed:
        assert set(entry) == {
            "type",
            "description",
            "category",
            "required_fields",
            "optional_fields",
        }
        assert entry["description"]
    assert {entry["category"] for entry in listed} == {
        "instance",
        "epic",
        "testing",
        "git",
        "deployment",
        "work_state",
        "planning",
    }
    assert by_type["epic_started"]["required_fields"] == ["epic_id"]
    assert "coverage_percent" in by_type["test_passed"]["optional_fields"]
    assert by_type["checkpoint_created"]["required_fields"] == ["label", "state"]
    assert "age_ms" in by_type["instance_stale"]["required_fields"]


# 3: the tools


@pytest.mark.parametrize("event_type", CATALOGUE)
def test_every_type_can_be_emitted_and_is_kept_to_the_letter(
    fleet: Fleet, agent: str, event_type: str
) -> None:
    """S2 3 emit_event; 6-9 the samples, unknown fields too."""
    data = {**SAMPLES[event_type], "mood": {"own": [1, 2.5, None, True, ""]}}
    emitted = fleet.emit(agent, event_type, data, metadata={"tags": ["a"], "n": 7})

    assert emitted["success"] is True
    assert is_uuid4(emitted["event_id"])
    assert emitted["sequence_num"] == 2
    [event] = fleet.events(agent, event_type=event_type)
    assert event["event_data"] == data
    assert event["event_type"] == event_type
    assert event["instance_id"] == agent
    assert event["stream_id"] == f"instance-{agent}"
    assert [event[name] for name in ("event_id", "sequence_num", "timestamp")] == [
        emitted[name] for name in ("event_id", "sequence_num", "timestamp")
    ]
    metadata = event["metadata"]
    assert (metadata["tags"], metadata["n"]) == (["a"], 7)
    assert metadata["command"] == "event_emit"
    assert metadata["actor"]


def test_the_reply_to_an_event_tells_where_it_is(fleet: Fleet, agent: str) -> None:
    """S2 3 event_id, sequence_num, timestamp; the position is the log's."""
    reply = fleet.offer(agent, "command_logged", {"command": "make"})
    emitted = ok(reply, 201)

    assert set(emitted) == {"success", "event_id", "sequence_num", "timestamp"}
    assert fleet.events(agent)[-1]["position"] == position(reply) == 2
    assert fleet.events(agent)[-1]["metadata"]["request_id"] == reply.headers["x-request-id"]


def test_an_event_sent_twice_with_one_key_is_recorded_once(fleet: Fleet, agent: str) -> None:
    """S2 13 Zero duplicates: a lost reply can be asked for again (spec 9)."""
    path = f"/api/instances/{agent}/events"
    body = {"event_type": "commit_created", "event_data": {"commit": "a1b2c3d"}}
    headers = {"Idempotency-Key": "commit a1b2c3d"}
    first, second = (fleet.api.post(path, json=body, headers=headers) for _ in range(2))

    assert first.content == second.content
    assert fleet.find(agent)["total_count"] == 2
    event = fleet.events(agent)[-1]
    assert event["event_id"] == ok(second, 201)["event_id"]
    assert event["metadata"]["command_id"] == "commit a1b2c3d"


@pytest.mark.parametrize("given", [{}, {"order": "asc"}])
def test_events_come_in_the_order_of_their_numbers(fleet: Fleet, busy: str, given: Json) -> None:
    """S2 3 query_events, ascending by sequence_num (spec 17)."""
    found = fleet.find(busy, **given)

    assert numbers(found["events"]) == list(range(1, len(SAMPLES) + 2))
    assert [e["event_type"] for e in found["events"]] == ["instance_registered", *SAMPLES]
    assert (found["total_count"], found["has_more"]) == (len(SAMPLES) + 1, False)
    assert (found["limit"], found["offset"]) == (100, 0)
    times = [event["timestamp"] for event in found["events"]]
    assert times == sorted(times)


def test_the_newest_may_come_first(fleet: Fleet, busy: str) -> None:
    """S2 3 order=desc (spec 17): the last 100 events of a stream."""
    assert numbers(fleet.events(busy, order="desc")) == list(range(len(SAMPLES) + 1, 0, -1))
    [last] = fleet.events(busy, order="desc", limit=1)
    assert last["event_type"] == "epic_completed"
    assert fleet.types(busy, order="desc", event_type=["test_passed", "epic_started"]) == [
        "test_passed",
        "epic_started",
    ]


def test_events_are_told_page_by_page(fleet: Fleet, busy: str) -> None:
    """S2 3 limit, offset, total_count, has_more."""
    total = len(SAMPLES) + 1
    pages = [fleet.find(busy, limit=10, offset=offset) for offset in (0, 10, 20, 30)]

    assert [numbers(page["events"]) for page in pages] == [
        list(range(1, 11)),
        list(range(11, 21)),
        list(range(21, total + 1)),
        [],
    ]
    assert [page["has_more"] for page in pages] == [True, True, False, False]
    assert {page["total_count"] for page in pages} == {total}


def test_events_are_found_by_type_or_types(fleet: Fleet, busy: str) -> None:
    """S2 3 The filter event_type takes one or several."""
    assert fleet.types(busy, event_type="pr_merged") == ["pr_merged"]
    several = fleet.find(busy, event_type=["pr_merged", "epic_started", "pr_created"], limit=2)
    assert [e["event_type"] for e in several["events"]] == ["epic_started", "pr_created"]
    assert (several["total_count"], several["has_more"]) == (3, True)
    assert fleet.find(busy, event_type="no_such_type")["total_count"] == 0
    # What is emitted under an alias is found under it too.
    assert "deployment_completed" in fleet.types(busy, event_type="deployment_done")


@pytest.mark.parametrize(
    ("keyword", "found"),
    [
        ("OAUTH", ["epic_started"]),
        ("pull/123", ["pr_created", "pr_merged", "epic_completed"]),
        ("no disk", ["deployment_failed"]),
        ('"er": []', ["checkpoint_created"]),
        ("größe", ["commit_created"]),
        ("🙂", ["commit_created"]),
        # Characters that mean something to a pattern mean themselves.
        ("%", []),
        ("_", None),
        ("a.c", []),
        ("(", []),
    ],
)
def test_events_are_found_by_a_word_in_their_data(
    fleet: Fleet, busy: str, keyword: str, found: list[str] | None
) -> None:
    """S2 3 Keyword search on data: a literal part of its JSON text, whatever the case (spec 17)."""
    events = fleet.events(busy, keyword=keyword)

    if found is None:
        assert 0 < len(events) < len(SAMPLES)
        assert all(keyword in str(event["event_data"]) for event in events)
    else:
        assert [event["event_type"] for event in events] == found


def test_events_are_found_by_date_bounds_included(fleet: Fleet) -> None:
    """S2 3 date_range; both bounds belong to it (spec 17), whatever their time zone."""
    instance = Instance(id="instance-odin-PS-0000aa")
    start = datetime(2026, 1, 28, 12, 0, tzinfo=UTC)
    instance.register(
        start, project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    for minute in range(1, 6):
        instance.record_work(start + timedelta(minutes=minute), "epic_failed", {"epic_id": "e"})
    fleet.write(instance)

    def found(**bounds: Any) -> list[int]:
        page = fleet.find(instance.key, **bounds)
        assert page["total_count"] == len(page["events"])
        return numbers(page["events"])

    assert found(start_date="2026-01-28T12:02:00Z", end_date="2026-01-28T12:04:00Z") == [3, 4, 5]
    assert found(start_date="2026-01-28T12:04:00.000001Z") == [6]
    assert found(end_date="2026-01-28T13:01:00+01:00") == [1, 2]
    assert found(end_date="2026-01-28T12:00:59.999999Z") == [1]
    assert found(start_date="2026-01-28T12:03:00Z", end_date="2026-01-28T12:03:00Z") == [4]
    assert found(start_date="2027-01-01T00:00:00Z") == []
    # Without a zone it is UTC; a day ends with its last moment; a plus may get lost on the way.
    assert found(start_date="2026-01-28T12:04:00") == [5, 6]
    assert found(start_date="2026-01-28", end_date="2026-01-28") == [1, 2, 3, 4, 5, 6]
    assert found(start_date="2026-01-29") == found(end_date="2026-01-27") == []
    assert found(start_date="2026-01-28T13:04:00 01:00") == [5, 6]
    assert found(start_date="2026-01-28T12:02:00Z", keyword='"e"', limit=1000) == [3, 4, 5, 6]


def test_the_state_at_the_end_is_what_was_observed(fleet: Fleet, busy: str) -> None:
    """S2 3 replay_events; 17 the reconstruction matches what was seen live."""
    fleet.beat(busy, context_percent=80, current_epic="epic-004", activity="idle")
    replayed = fleet.replay(busy)
    state = replayed["final_state"]
    last = fleet.events(busy, order="desc", limit=1)[0]

    total = len(SAMPLES) + 2
    assert replayed["success"] is True
    assert replayed["events_replayed"] == state["total_events_replayed"] == total
    assert replayed["duration_ms"] >= 0
    assert state["last_epic"] == "epic-003"
    assert state["last_event_type"] == "instance_heartbeat"
    assert state["latest_timestamp"] == last["timestamp"]
    assert state["checkpoint_state"] == SAMPLES["checkpoint_created"]["state"]
    read = fleet.get(busy)
    shared = set(read) & set(state)
    assert {"status", "context_percent", "current_epic", "activity", "metrics"} <= shared
    assert {name: state[name] for name in shared} == {name: read[name] for name in shared}


def test_the_state_at_every_event_is_what_was_observed_then(fleet: Fleet, agent: str) -> None:
    """S2 17 Partial replay, to each point; nothing later shows in it."""
    watched = ("context_percent", "current_epic", "last_epic", "updated_at", "activity", "status")
    seen: list[Json] = [fleet.get(agent)]

    def look() -> None:
        seen.append(fleet.get(agent))

    for percent in (10, 20.5, 0):
        fleet.beat(agent, context_percent=percent, activity="working")
        look()
    for event_type in ("epic_started", "context_window_updated", "epic_failed", "epic_completed"):
        fleet.emit(agent, event_type, SAMPLES[event_type])
        look()
    fleet.close(agent)
    look()
    for number, then in enumerate(seen, 1):
        state = fleet.replay(agent, to_sequence_num=number)["final_state"]
        assert {name: state[name] for name in watched} == {name: then[name] for name in watched}
        assert state["total_events_replayed"] == state["version"] == number
    assert fleet.replay(agent)["final_state"] == state


def test_what_changed_between_two_events_can_be_asked_for(fleet: Fleet, agent: str) -> None:
    """S2 3 A replay with diff_from tells each path that differs (spec 17)."""
    fleet.beat(agent, metrics={"queue_depth": 1, "error_rate": 0.5})
    fleet.emit(agent, "epic_started", {"epic_id": "e1"})
    fleet.beat(agent, metrics={"queue_depth": 2, "error_rate": 0.5})
    diff = fleet.replay(agent, to_sequence_num=4, diff_from=2)["diff"]

    assert (diff["from"], diff["to"]) == (2, 4)
    changed = diff["changed"]
    assert changed["metrics.queue_depth"] == [1, 2]
    assert changed["current_epic"] == changed["last_epic"] == [None, "e1"]
    assert changed["version"] == [2, 4]
    assert "metrics.error_rate" not in changed
    assert "project" not in changed
    backwards = fleet.replay(agent, to_sequence_num=2, diff_from=4)["diff"]["changed"]
    assert backwards == {path: [new, old] for path, (old, new) in changed.items()}
    assert fleet.replay(agent, diff_from=4)["diff"]["changed"] == {}


def test_a_checkpoint_is_an_event_and_part_of_the_state(fleet: Fleet, agent: str) -> None:
    """S2 3 checkpoint_state; POST /checkpoints records checkpoint_created (spec 9)."""
    body = {"label": "half-way", "state": {"files": ["a.py"], "step": 3}}
    kept = ok(fleet.api.post(f"/api/instances/{agent}/checkpoints", json=body), 201)

    assert is_uuid4(kept["checkpoint_id"])
    assert (kept["instance_id"], kept["label"], kept["sequence_num"]) == (agent, "half-way", 2)
    [event] = fleet.events(agent, event_type="checkpoint_created")
    assert event["event_data"] == {"checkpoint_id": kept["checkpoint_id"], **body}
    assert event["timestamp"] == kept["created_at"]
    assert fleet.replay(agent)["final_state"]["checkpoint_state"] == body["state"]
    assert fleet.replay(agent, to_sequence_num=1)["final_state"]["checkpoint_state"] is None


# 4: events that the service emits


def test_life_is_recorded_without_being_asked(fleet: Fleet) -> None:
    """S2 4 Registration, heartbeats, staleness and closing are events of the instance."""
    instance_id = fleet.silent(OLD, "0000ab")
    fleet.sweep()
    fleet.beat(instance_id, context_percent=5)
    fleet.beat(instance_id)
    fleet.close(instance_id)
    events = fleet.events(instance_id)

    assert [event["event_type"] for event in events] == [
        "instance_registered",
        "instance_stale",
        "instance_heartbeat",
        "instance_heartbeat",
        "instance_closed",
    ]
    assert [event["event_data"] for event in events[2:]] == [{"context_percent": 5}, {}, {}]
    assert all(UUID(event["metadata"]["request_id"]) for event in events)
    assert [event["metadata"]["command"] for event in events[2:]] == [
        "instance_heartbeat",
        "instance_heartbeat",
        "instance_close",
    ]


# 5: events that agents emit


def test_deployment_done_is_deployment_completed(fleet: Fleet, agent: str) -> None:
    """S2 5 The guide's name is an alias; the name that was submitted is kept (spec 3)."""
    fleet.emit(agent, "deployment_done", {"service": "s", "port": 80, "health_status": "healthy"})
    [event] = fleet.events(agent, event_type="deployment_completed")

    assert event["event_data"] == {"service": "s", "port": 80, "health_status": "healthy"}
    assert event["metadata"]["submitted_type"] == "deployment_done"
    assert fleet.find(agent, event_type="deployment_done")["total_count"] == 1
    fleet.emit(agent, "deployment_completed", {"service": "s"})
    assert "submitted_type" not in fleet.events(agent)[-1]["metadata"]


@pytest.mark.parametrize(
    ("event_type", "data", "stored"),
    [
        (
            "epic_started",
            {"epic_id": "e", "feature_name": "f", "estimated_hours": 1.5},
            {"epic_id": "e", "feature_name": "f", "estimated_hours": 1.5},
        ),
        (
            "epic_completed",
            {"epic_id": "e", "duration_hours": 2, "files_changed": 3},
            {"epic_id": "e", "duration_hours": 2, "files_changed": 3},
        ),
        (
            "test_passed",
            {"epic_id": "e", "test_count": 45, "coverage": 87},
            {"epic_id": "e", "passed_count": 45, "coverage_percent": 87},
        ),
    ],
)
def test_the_calls_of_the_guide_work_as_they_stand(
    fleet: Fleet, agent: str, event_type: str, data: Json, stored: Json
) -> None:
    """S2 5 Both of its spellings are taken, and stored under the second (spec 3)."""
    fleet.emit(agent, event_type, data)

    assert fleet.events(agent)[-1]["event_data"] == stored


# 3: the log as a feed


def test_the_whole_log_can_be_followed_from_any_position(fleet: Fleet, api: Api) -> None:
    """S2 3 /api/events: every stream's events after a position, without a gap (spec 9)."""
    first, second = fleet.id(), fleet.id()
    fleet.beat(second)
    api.session()
    fleet.emit(first, "epic_started", {"epic_id": "e"})
    everything = ok(api.get("/api/events", params={"limit": 1000}))
    positions = [event["position"] for event in everything["events"]]

    assert positions == list(range(1, len(positions) + 1))
    assert everything["next_position"] == positions[-1]
    seen: list[Json] = []
    after = 0
    while page := ok(api.get("/api/events", params={"after": after, "limit": 2}))["events"]:
        seen += page
        after = page[-1]["position"]
    assert seen == everything["events"]
    nothing_new = ok(api.get("/api/events", params={"after": after}))
    assert nothing_new == {"events": [], "next_position": after}
    types = {"event_type": ["epic_started", "instance_heartbeat"]}
    assert [e["event_type"] for e in ok(api.get("/api/events", params=types))["events"]] == [
        "instance_heartbeat",
        "epic_started",
    ]


@pytest.mark.parametrize("event_type", [None, "epic_started"])
def test_the_feed_waits_for_what_comes_next(
    fleet: Fleet, agent: str, server: Server, event_type: str | None
) -> None:
    """S2 3 A long poll answers as soon as something is there, filtered or not (spec 9)."""
    query: dict[str, Any] = {"after": 1, "wait": 9}
    if event_type:
        query["event_type"] = event_type
    with ThreadPoolExecutor(1) as pool, server.default() as waiting:
        waiting.headers["X-API-Key"] = str(fleet.api.key)
        answer = pool.submit(waiting.get, "/api/events", params=query)
        if event_type:
            fleet.beat(agent)
        emitted = fleet.emit(agent, "epic_started", {"epic_id": "e"})
        events = ok(answer.result())["events"]

    assert [event["event_id"] for event in events] == [emitted["event_id"]]


def test_a_feed_without_news_says_so_when_the_wait_is_over(fleet: Fleet, agent: str) -> None:
    """S2 3 next_position equals after (spec 17)."""
    query = {"after": 1, "wait": 0.05}

    assert ok(fleet.api.get("/api/events", params=query)) == {"events": [], "next_position": 1}


def test_the_events_and_the_state_of_every_kind_of_stream_can_be_read(
    fleet: Fleet, api: Api
) -> None:
    """S2 3 Sessions, claims and machines as well (spec 9)."""
    session = api.session()
    api.task(session, "completed")
    fleet.id(scope="global")
    streams = {
        f"session-{session['session_id']}": "session_created",
        f"machine-{session['machine_id']}": "machine_registered",
        f"claim-@place/{session['project_id']}/{session['machine_id']}/": "claim_granted",
        "claim-@global": "claim_granted",
    }

    for stream_id, first in streams.items():
        path = f"/api/streams/{stream_id}"
        events = ok(api.get(f"{path}/events"))["events"]
        assert numbers(events) == list(range(1, len(events) + 1))
        assert events[0]["event_type"] == first
        assert {event["stream_id"] for event in events} == {stream_id}
        replayed = ok(api.get(f"{path}/replay"))
        assert replayed["stream_id"] == stream_id
        assert replayed["events_replayed"] == len(events)
        assert ok(api.get(f"{path}/events", params={"event_type": first}))["total_count"] == 1
    state = ok(api.get(f"/api/streams/session-{session['session_id']}/replay"))["final_state"]
    assert [task["status"] for task in state["tasks"].values()] == ["completed"]
    for unknown in ("session-nobody", "nothing", "instance-odin-PS-000000", "potato-1"):
        refused(api.get(f"/api/streams/{unknown}/events"), 404, "stream_not_found")
        refused(api.get(f"/api/streams/{unknown}/replay"), 404, "stream_not_found")


def test_the_events_of_a_deleted_session_stay_for_auditors(fleet: Fleet, api: Api) -> None:
    """S2 13 Nothing is deleted from the log (spec 8)."""
    session_id = api.session()["session_id"]
    gone(api.delete(f"/api/sessions/{session_id}"))
    path = f"/api/streams/session-{session_id}"

    assert ok(api.get(f"{path}/events"))["events"][-1]["event_type"] == "session_deleted"
    assert ok(api.get(f"{path}/replay"))["success"] is True


# 13: integrity


@pytest.mark.parametrize(
    "statement",
    [
        b"UPDATE event_store SET event_type = 'x' WHERE namespace = %s",
        b"UPDATE event_store SET timestamp = now() WHERE namespace = %s",
        b"UPDATE event_store SET sequence_num = sequence_num + 9 WHERE namespace = %s",
        b"DELETE FROM event_store WHERE namespace = %s",
    ],
    ids=["type", "timestamp", "number", "delete"],
)
def test_a_stored_event_cannot_be_changed_or_removed(
    fleet: Fleet, agent: str, store: psycopg.Connection, statement: bytes
) -> None:
    """S2 13 Append-only, refused by the database itself to the service's role."""
    before = fleet.events(agent)
    store.execute(SQL("SET ROLE {}").format(Identifier(SERVICE_ROLE)))
    with pytest.raises(psycopg.errors.InsufficientPrivilege):
        store.execute(statement, [fleet.api.namespace])
    store.execute("RESET ROLE")

    assert fleet.events(agent) == before


def test_the_api_has_no_way_to_change_an_event(fleet: Fleet, agent: str) -> None:
    """S2 13 No verb but GET and POST on events."""
    path = f"/api/instances/{agent}/events"

    for verb in ("PUT", "PATCH", "DELETE"):
        refused(fleet.api.request(verb, path), 405, "method_not_allowed")


def test_a_reader_who_would_wait_for_long_is_answered_at_once_when_there_is_something(
    fleet: Fleet, agent: str
) -> None:
    """S2 3 Given a wait beyond the longest, then it is no error."""
    assert ok(fleet.api.get("/api/events", params={"wait": 3600}))["events"]


def test_what_is_left_out_may_be_null(fleet: Fleet, api: Api) -> None:
    """S2 3 Given optional fields that a caller sends as null, then they count as absent."""
    agent = fleet.id(tags=None, name=None, initial_context=None, restart_policy=None)
    fleet.emit(agent, "epic_started", {"epic_id": "e"}, metadata=None)
    session = api.session(metadata=None)
    assert session["metadata"] == {}
    assert api.task(session, metadata=None)["metadata"] == {}
    assert api.machine(metadata=None)["metadata"] == {}


def test_a_caller_cannot_choose_time_or_number(fleet: Fleet, agent: str) -> None:
    """S2 13 Timestamps and numbers are the store's; a caller's are just unknown fields."""
    own = {"epic_id": "e", "timestamp": "1999-01-01T00:00:00Z", "sequence_num": 99}
    emitted = fleet.emit(agent, "epic_started", own)

    assert emitted["sequence_num"] == 2
    assert abs(datetime.fromisoformat(emitted["timestamp"]) - datetime.now(UTC)) < timedelta(
        minutes=1
    )
    assert fleet.events(agent)[-1]["event_data"] == own
    refused(
        fleet.offer(agent, "epic_started", {"epic_id": "e"}, timestamp="1999-01-01T00:00:00Z"),
        400,
        "validation_error",
    )


def test_numbers_are_contiguous_whoever_emits_at_once(fleet: Fleet) -> None:
    """S2 16 Eight at once on three streams: each counts without a gap; so does the log."""
    agents = [fleet.id() for _ in range(3)]

    def emit(number: int) -> tuple[str, int, str]:
        agent = agents[number % 3]
        if number % 5 == 0:
            fleet.beat(agent)
        emitted = fleet.emit(agent, "command_logged", {"command": f"make {number}"})
        return agent, emitted["sequence_num"], emitted["event_id"]

    with ThreadPoolExecutor(8) as pool:
        acknowledged = list(pool.map(emit, range(120)))
    log = ok(fleet.api.get("/api/events", params={"limit": 1000}))["events"]

    assert [event["position"] for event in log] == list(range(1, 3 + 120 + 24 + 1))
    for agent in agents:
        assert numbers([event for event in log if event["instance_id"] == agent]) == list(
            range(1, fleet.find(agent)["total_count"] + 1)
        )
    stored = {(e["instance_id"], e["sequence_num"], e["event_id"]) for e in log}
    assert set(acknowledged) <= stored
    assert len(set(acknowledged)) == 120


# 14-17: the whole way


def test_the_full_lifecycle(fleet: Fleet) -> None:
    """S2 16 Register, emit, query, replay; epic by epic as S2's problem statement tells it."""
    agent = fleet.id(project="Session Continuity")
    fleet.emit(agent, "epic_started", {"epic_id": "epic-003"})
    fleet.emit(agent, "test_passed", {"epic_id": "epic-003", "passed_count": 5, "total_count": 8})
    fleet.emit(agent, "epic_completed", {"epic_id": "epic-003"})
    fleet.emit(agent, "prd_updated", {"epic_id": "epic-003", "version": "1.1"})
    state = fleet.replay(agent)["final_state"]

    assert fleet.find(agent, keyword="EPIC-003")["total_count"] == 4
    assert state["last_epic"] == "epic-003"
    assert state["current_epic"] is None
    assert state["latest"]["test_passed"]["data"]["passed_count"] == 5
    assert state["latest"]["test_passed"]["sequence_num"] == 3
    assert state["latest"]["prd_updated"]["data"]["version"] == "1.1"


def test_a_long_history_is_queried_and_replayed_in_part(fleet: Fleet) -> None:
    """S2 16 10,000 events: type and date range, the last 100, any point (times: `make bench`)."""
    instance = Instance(id="instance-odin-PS-00010c")
    start = datetime(2026, 1, 28, tzinfo=UTC)
    instance.register(
        start, project="odin", project_name="odin", instance_type="PS", scope="project"
    )
    for number in range(2, 10_001):
        at = start + timedelta(seconds=number)
        if number % 100:
            instance.beat(at, context_percent=number % 101)
        else:
            instance.record_work(at, "test_passed", {"epic_id": f"e{number % 7}"})
    fleet.write(instance)
    page = fleet.find(
        instance.key,
        event_type="test_passed",
        start_date="2026-01-28T01:00:00Z",
        end_date="2026-01-28T02:00:00Z",
        limit=1000,
    )

    assert numbers(page["events"]) == list(range(3600, 7201, 100))
    assert page["total_count"] == 37
    assert numbers(fleet.events(instance.key, order="desc")) == list(range(10_000, 9_900, -1))
    state = fleet.replay(instance.key, to_sequence_num=5_050)["final_state"]
    assert state["context_percent"] == 5_050 % 101
    assert state["latest"]["test_passed"]["sequence_num"] == 5_000


def test_an_agent_s_events_are_its_own(fleet: Fleet) -> None:
    """S2 16 Events of concurrent instances do not mix."""
    first, second = fleet.id(), fleet.id()
    fleet.emit(first, "epic_started", {"epic_id": "mine"})
    fleet.emit(second, "epic_started", {"epic_id": "yours"})

    assert fleet.find(first, keyword="yours")["total_count"] == 0
    assert fleet.replay(second)["final_state"]["last_epic"] == "yours"


def test_nothing_is_stored_of_what_was_refused(
    fleet: Fleet, agent: str, stored: Callable[[], int]
) -> None:
    """S2 14 Validation comes before storing (more in test_bad_input_instances)."""
    before = stored()
    refused(fleet.offer(agent, "moon_landed", {}), 400, "unknown_event_type")
    refused(fleet.offer(agent, "epic_started", {}), 400, "validation_error")
    refused(
        fleet.offer("odin-PS-000000", "prd_updated", {"epic_id": "e"}), 404, "instance_not_found"
    )

    assert stored() == before
