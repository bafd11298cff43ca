"""S0: the instance registry and its ids."""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from domain import identity
from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.serving import Api, Json, Server, eventually, ok, position, refused

ID = re.compile(r"odin-PS-[0-9a-f]{6}")
OLD = timedelta(minutes=5)
A_MOMENT = timedelta(seconds=2)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


def ids(instances: list[Json]) -> list[str]:
    return [instance["instance_id"] for instance in instances]


# AC1: ids


def test_a_hundred_instances_have_a_hundred_ids_of_the_form(fleet: Fleet) -> None:
    """S0 AC1 `{project}-{type}-{hash}`, six hex digits; 100 ids without a clash."""
    made = [fleet.id() for _ in range(100)]

    assert all(ID.fullmatch(instance_id) for instance_id in made)
    assert len(set(made)) == 100


@pytest.mark.parametrize(
    ("given", "project"),
    [("odin", "odin"), ("odin-x-2", "odin-x-2"), ("Odin X", "odin-x"), ("a/b_c", "a-b-c")],
)
def test_the_id_begins_with_the_project_s_slug_and_its_name_is_kept(
    fleet: Fleet, given: str, project: str
) -> None:
    """S0 AC1 Project-scoped, hyphens allowed; a name that is no slug becomes one (spec 17)."""
    registered = fleet.register(project=given, instance_type="MS")
    parsed = identity.parse(registered["instance_id"])

    assert parsed is not None
    assert (parsed.project, parsed.instance_type) == (project, "MS")
    assert (registered["project"], registered["project_name"]) == (project, given)
    assert fleet.get(registered["instance_id"])["project_name"] == given


# AC2: the table


def test_the_table_of_the_registry_can_be_queried(
    fleet: Fleet, api: Api, store: psycopg.Connection
) -> None:
    """S0 AC2 `supervisor_sessions` has the columns that were asked for, as a view for analysts."""
    instance_id = fleet.id(initial_context={"context_percent": 12, "current_epic": "epic-003"})
    fleet.get(instance_id)
    cursor = store.execute(
        "SELECT * FROM supervisor_sessions WHERE namespace = %s", [api.namespace]
    )
    [row] = cursor.fetchall()
    columns = [column.name for column in cursor.description or []]

    found = dict(zip(columns, row, strict=True))
    assert found["last_heartbeat"] == found["created_at"]
    assert abs(datetime.now(UTC) - found.pop("created_at")) < timedelta(minutes=1)
    found.pop("last_heartbeat")
    assert found == {
        "namespace": api.namespace,
        "instance_id": instance_id,
        "project": "odin",
        "instance_type": "PS",
        "status": "active",
        "context_percent": 12.0,
        "current_epic": "epic-003",
        "closed_at": None,
        "unknown_since": None,
    }


def test_the_columns_that_are_searched_have_indexes(store: psycopg.Connection) -> None:
    """S0 AC2 By project and status, by id, by heartbeat, by project and heartbeat."""
    rows = store.execute(
        "SELECT indexdef FROM pg_indexes WHERE schemaname LIKE 'projection%'"
        " AND tablename = 'instances'"
    ).fetchall()
    columns = [definition.partition("(")[2].partition(")")[0] for (definition,) in rows]

    assert "namespace, project, status" in columns
    assert "namespace, instance_id" in columns
    assert "namespace, heartbeat_minute" in columns
    assert "namespace, project, heartbeat_minute DESC" in columns


# AC3: registering


def test_registering_answers_with_the_instance(fleet: Fleet, stored: Callable[[], int]) -> None:
    """S0 AC3 project, type and context go in; id, project, type, created_at and status come out."""
    reply = fleet.ask("odin", "PS", initial_context=42)
    registered = ok(reply, 201)

    assert ID.fullmatch(registered["instance_id"])
    assert registered["project"] == "odin"
    assert registered["type"] == registered["instance_type"] == "PS"
    assert registered["status"] == "active"
    assert registered["context_percent"] == 42
    created = datetime.fromisoformat(registered["created_at"])
    assert registered["created_at"].endswith("Z")
    assert abs(datetime.now(UTC) - created) < timedelta(minutes=1)
    assert position(reply) == stored() == 1


def test_what_was_registered_is_there(fleet: Fleet) -> None:
    """S0 AC3 The row is there, and says what the reply said."""
    given: Json = {
        "initial_context": {"context_percent": 7.5, "current_epic": "epic-003"},
        "name": "the builder",
        "tags": ["gpu", "nightly"],
        "hostname": "laptop",
        "tty": "pts/3",
        "codebase": "/src/odin",
        "restart_policy": {"policy": "on_failure", "max_restarts": 5, "backoff_seconds": 2},
    }
    registered = fleet.register(**given)
    read = fleet.get(registered["instance_id"])

    for moving in ("age_seconds", "uptime_seconds"):
        assert read.pop(moving) >= registered.pop(moving)
    assert read == registered
    expected = {**given, "context_percent": 7.5, "current_epic": "epic-003"}
    del expected["initial_context"]
    assert {name: read[name] for name in expected} == expected


@pytest.mark.parametrize("context", [None, 0, 100, {}, {"current_epic": "epic-003"}])
def test_the_initial_context_may_be_a_percentage_an_object_or_left_out(
    fleet: Fleet, context: Any
) -> None:
    """S0 AC3 initial_context is 0 to 100, or an object (spec 9)."""
    registered = fleet.register(initial_context=context)

    assert registered["context_percent"] == (context if isinstance(context, int) else None)


def test_further_types_are_a_setting(start: Start, database: str) -> None:
    """S0 AC3 PS and MS; more by INSTANCE_TYPES (spec 4)."""
    with start(database, INSTANCE_TYPES="PS,QA7") as server, server.world() as api:
        fleet = Fleet(api, database)
        assert re.fullmatch("odin-QA7-[0-9a-f]{6}", fleet.id(instance_type="QA7"))
        body = refused(fleet.ask(instance_type="MS"), 400, "validation_error")
        assert body["errors"] == [
            {"field": "instance_type", "message": "must be one of PS, QA7"},
        ]


# AC4: heartbeats


def test_a_heartbeat_tells_the_gap_before_it_and_the_status_after(fleet: Fleet) -> None:
    """S0 AC4 status, age_seconds, stale, last_heartbeat and context come back (spec 5)."""
    instance_id = fleet.silent(OLD, "0000a1")
    late = fleet.beat(instance_id, context_percent=55, current_epic="epic-003")
    prompt = fleet.beat(instance_id)

    assert late["instance_id"] == instance_id
    assert late["status"] == prompt["status"] == "active"
    assert late["age_seconds"] >= 300
    assert late["stale"] is True
    assert prompt["age_seconds"] < 120
    assert prompt["stale"] is False
    assert late["context_percent"] == prompt["context_percent"] == 55
    assert fleet.get(instance_id)["last_heartbeat"] == prompt["last_heartbeat"]


def test_a_heartbeat_s_time_is_that_of_the_request(fleet: Fleet) -> None:
    """S0 AC4 last_heartbeat is updated. Two seconds are allowed for the host's being set."""
    instance_id = fleet.silent(OLD, "0000a2")
    before = datetime.now(UTC)
    then = datetime.fromisoformat(fleet.beat(instance_id)["last_heartbeat"])

    assert before - A_MOMENT <= then <= datetime.now(UTC) + A_MOMENT


@pytest.mark.parametrize("percent", [0, 37, 99.5, 100])
def test_context_and_epic_are_tracked(fleet: Fleet, percent: float) -> None:
    """S0 AC4 context_percent (0 to 100) and current_epic are what the last beat said."""
    instance_id = fleet.id(initial_context=50)
    fleet.beat(instance_id, context_percent=percent, current_epic="epic-003")
    read = fleet.get(instance_id)
    assert (read["context_percent"], read["current_epic"]) == (percent, "epic-003")
    fleet.beat(instance_id)

    assert fleet.get(instance_id)["context_percent"] == percent
    fleet.beat(instance_id, current_epic="epic-004")
    read = fleet.get(instance_id)
    assert (read["context_percent"], read["current_epic"]) == (percent, "epic-004")


def test_a_heartbeat_of_a_stranger_is_not_found(fleet: Fleet) -> None:
    """S0 AC4 An unknown instance is 404, whatever its id looks like."""
    for stranger in ("odin-PS-000000", "no id at all", "x" * 300):
        reply = fleet.api.post(f"/api/instances/{stranger}/heartbeat", json={})
        refused(reply, 404, "instance_not_found")


def test_many_beats_go_in_one_request(fleet: Fleet, api: Api) -> None:
    """S0 AC4 Beats of instances and sessions together, a result for each (spec 9)."""
    first, second = fleet.id(), fleet.id()
    closed = fleet.id()
    fleet.close(closed)
    session_id = api.session()["session_id"]
    beats: list[Json] = [
        {"instance_id": first, "context_percent": 1},
        {"session_id": session_id},
        {"instance_id": "odin-PS-nobody"},
        {"instance_id": second, "activity": "idle"},
        {"instance_id": first, "context_percent": 2},
        {"instance_id": closed},
    ]
    reply = api.post("/api/heartbeats", json={"heartbeats": beats})
    answer = ok(reply)

    assert [result["ok"] for result in answer["results"]] == [True, True, False, True, True, False]
    assert [result["id"] for result in answer["results"]] == [
        beat.get("instance_id") or beat["session_id"] for beat in beats
    ]
    assert {r["status"] for r in answer["results"] if r["ok"]} == {"active"}
    assert [r["error"]["code"] for r in answer["results"] if not r["ok"]] == [
        "instance_not_found",
        "instance_closed",
    ]
    assert (answer["accepted"], answer["rejected"]) == (4, 2)
    assert fleet.get(first)["context_percent"] == 2
    assert fleet.get(second)["activity"] == "idle"
    assert fleet.events(first)[-1]["position"] == position(reply)
    nobody = api.post("/api/heartbeats", json={"heartbeats": [{"instance_id": closed}]})
    assert (ok(nobody)["accepted"], position(nobody)) == (0, position(reply))
    # Every event has an id of its own, though one request made them all.
    feed = ok(api.get("/api/events", params={"limit": 1000}))["events"]
    assert len({event["event_id"] for event in feed}) == len(feed)
    assert {event["metadata"]["request_id"] for event in feed[-4:]} == {
        reply.headers["x-request-id"]
    }


# AC5: the list


def test_the_list_is_by_project_then_by_heartbeat_the_latest_first(fleet: Fleet) -> None:
    """S0 AC5 Sorted by project, then by last_heartbeat, descending."""
    first, second = fleet.id(project="thor"), fleet.id(project="thor")
    third, fourth = fleet.id(project="odin"), fleet.id(project="odin")
    assert ids(fleet.listed()["instances"]) == [fourth, third, second, first]
    fleet.beat(third)
    fleet.beat(first)

    assert ids(fleet.listed()["instances"]) == [third, fourth, first, second]


def test_the_list_counts_all_and_the_active_and_the_stale(fleet: Fleet) -> None:
    """S0 AC5 Stale instances are marked; active_count counts neither stale nor closed (spec 17)."""
    active = [fleet.id() for _ in range(3)]
    stale = [fleet.silent(OLD, f"0000b{n}") for n in range(2)]
    closed = fleet.id()
    fleet.close(closed)
    listed = fleet.listed()

    statuses = {i["instance_id"]: i["status"] for i in listed["instances"]}
    assert statuses == {
        **dict.fromkeys(active, "active"),
        **dict.fromkeys(stale, "stale"),
        closed: "closed",
    }
    counts = ("total_count", "active_count", "stale_count")
    assert [listed[name] for name in counts] == [6, 3, 2]
    assert [fleet.listed(limit=1, offset=2)[name] for name in counts] == [6, 3, 2]
    assert [fleet.listed(offset=100)[name] for name in counts] == [6, 3, 2]


def test_active_only_leaves_out_the_closed(fleet: Fleet) -> None:
    """S0 AC5 active_only; stale ones stay, marked (spec 17)."""
    active, closed = fleet.id(), fleet.id()
    fleet.close(closed)
    stale = fleet.silent(OLD, "0000b9")

    listed = fleet.listed(active_only="true")
    assert ids(listed["instances"]) == [active, stale]
    assert (listed["total_count"], listed["active_count"], listed["stale_count"]) == (2, 1, 1)
    assert fleet.listed(active_only="false")["total_count"] == 3


def test_the_list_of_one_project_takes_its_name_as_well(fleet: Fleet) -> None:
    """S0 AC5 project, as it stands in the id or as it was given."""
    mine = fleet.id(project="Odin X")
    fleet.id(project="thor")

    for project in ("Odin X", "odin-x"):
        listed = fleet.listed(project=project)
        assert ids(listed["instances"]) == [mine]
        assert listed["total_count"] == listed["active_count"] == 1
    assert fleet.listed(project="loki")["total_count"] == 0
    assert fleet.listed(project="!!!")["total_count"] == 0


def test_a_list_of_a_hundred_is_told_page_by_page(fleet: Fleet) -> None:
    """S0 AC5 100 instances; pages do not overlap and leave none out."""
    made = {fleet.id() for _ in range(100)}
    pages = [fleet.listed(limit=40, offset=offset) for offset in (0, 40, 80)]

    assert [len(page["instances"]) for page in pages] == [40, 40, 20]
    assert [page["has_more"] for page in pages] == [True, True, False]
    assert {i for page in pages for i in ids(page["instances"])} == made
    assert ids(fleet.listed(limit=100)["instances"]) == [
        i for page in pages for i in ids(page["instances"])
    ]


# AC6: finding one


def test_an_instance_is_found_by_its_full_id(fleet: Fleet, api: Api) -> None:
    """S0 AC6 get_instance(odin-PS-8f4a2b)."""
    instance_id = fleet.id()
    found = ok(api.get(f"/api/instances/{instance_id}"))

    assert found["match"] == "exact"
    assert found["instance"]["instance_id"] == instance_id
    assert "matches" not in found


@pytest.mark.parametrize(
    "reference", ["8f4a", "8f4a2", "8f4a2b", "odin-PS-8f4a", "odin-PS", "odin"]
)
def test_a_part_that_only_one_has_answers_with_it(fleet: Fleet, api: Api, reference: str) -> None:
    """S0 AC6 get_instance(8f4a2b): the leading part of an id, or four digits of its hash."""
    instance_id = fleet.silent(OLD, "8f4a2b")
    fleet.silent(OLD, "123456", project="thor")
    found = ok(api.get(f"/api/instances/{reference}"))

    assert found["match"] == "prefix"
    assert ids(found["matches"]) == [instance_id]
    assert found["instance"] == found["matches"][0]


def test_a_part_that_several_have_answers_with_all_of_them(fleet: Fleet, api: Api) -> None:
    """S0 AC6 Disambiguation: matches, and no instance."""
    same_hash = [
        fleet.silent(OLD, "8f4a2b", project=project) for project in ("odin", "odin-x", "thor")
    ]
    fleet.silent(OLD, "8f4b00")
    found = ok(api.get("/api/instances/8f4a"))

    assert found["match"] == "prefix"
    assert ids(found["matches"]) == same_hash
    assert "instance" not in found
    by_project = ok(api.get("/api/instances/odin"))
    assert len(by_project["matches"]) == 3


def test_a_full_id_wins_over_the_longer_ids_that_begin_with_it(fleet: Fleet, api: Api) -> None:
    """S0 AC6 A whole id is never ambiguous."""
    short = fleet.silent(OLD, "8f4a2b", project="odin")
    fleet.silent(OLD, "111111", project="odin-ps-8f4a2b")

    assert ok(api.get(f"/api/instances/{short}"))["match"] == "exact"


@pytest.mark.parametrize("reference", ["ffff", "odin-MS", "odin-PS-8f4a2c", "f4a2b", "ODIN"])
def test_what_nobody_is_called_is_not_found(fleet: Fleet, api: Api, reference: str) -> None:
    """S0 AC6 404."""
    fleet.silent(OLD, "8f4a2b")

    refused(api.get(f"/api/instances/{reference}"), 404, "instance_not_found")


def test_nobody_sees_another_team_s_instances(fleet: Fleet, other: Api) -> None:
    """S0 AC6 Another namespace's instance is not found, not listed, not to be written to."""
    instance_id = fleet.id()

    refused(other.get(f"/api/instances/{instance_id}"), 404, "instance_not_found")
    refused(other.get(f"/api/instances/{instance_id[-6:]}"), 404, "instance_not_found")
    refused(other.post(f"/api/instances/{instance_id}/heartbeat"), 404, "instance_not_found")
    refused(other.get(f"/api/instances/{instance_id}/events"), 404, "instance_not_found")
    refused(other.get(f"/api/instances/{instance_id}/replay"), 404, "instance_not_found")
    assert ok(other.get("/api/instances"))["total_count"] == 0
    assert ok(other.get("/api/v1/registry/topology"))["total_count"] == 0


# AC7: stale detection


def test_after_two_minutes_without_a_beat_an_instance_is_stale_in_every_read(
    fleet: Fleet, api: Api, stored: Callable[[], int]
) -> None:
    """S0 AC7 120 s; every read says so at once, whether or not it was recorded (spec 5)."""
    silent = fleet.silent(timedelta(seconds=125), "0000c1")
    just = fleet.silent(timedelta(seconds=60), "0000c2")
    before = stored()

    assert fleet.get(silent)["status"] == fleet.get(silent)["health"] == "stale"
    assert fleet.get(silent)["age_seconds"] >= 125
    assert fleet.get(just)["status"] == "active"
    assert {i["instance_id"]: i["status"] for i in fleet.listed()["instances"]} == {
        silent: "stale",
        just: "active",
    }
    assert fleet.discover(status="stale") == [silent]
    counts = fleet.registry("health")["counts"]
    assert counts == {"healthy": 1, "degraded": 0, "stale": 1}
    assert stored() == before


def test_the_sweep_records_each_silence_once(fleet: Fleet) -> None:
    """S0 AC7 instance_stale is an event, once per episode (spec 5)."""
    silent = fleet.silent(OLD, "0000c3")
    fleet.id()
    assert [fleet.sweep(), fleet.sweep()] == [1, 0]
    assert fleet.types(silent) == ["instance_registered", "instance_stale"]
    event = fleet.events(silent)[-1]
    assert event["event_data"]["age_ms"] >= 300_000
    fleet.beat(silent)

    assert fleet.get(silent)["status"] == "active"
    assert fleet.sweep() == 0


def test_a_server_detects_silence_by_itself(start: Start, database: str) -> None:
    """S0 AC7 Detection without being asked, with thresholds of its own."""
    settings = {"INSTANCE_STALE_SECONDS": "0.5", "SWEEP_SECONDS": "0.2"}
    with start(database, **settings) as server, server.world() as api:
        fleet = Fleet(api, database)
        instance_id = fleet.id()
        recorded = eventually(
            "a record of the silence",
            lambda: fleet.events(instance_id, event_type="instance_stale") or None,
        )
        assert recorded[0]["event_data"]["age_ms"] > 500
        assert fleet.get(instance_id)["status"] == "stale"
        [line, *_] = eventually("a line", lambda: server.lines("instance_stale") or None)
        assert line["context"]["instance_id"] == instance_id
        late = fleet.beat(instance_id)
        assert (late["stale"], late["status"]) == (True, "active")


# Closing


def test_a_closed_instance_is_kept_and_takes_nothing_more(
    fleet: Fleet, stored: Callable[[], int]
) -> None:
    """S0 AC5 Scenario 1, register, beat, list, close: it stays listed as closed (spec 17)."""
    instance_id = fleet.id()
    fleet.beat(instance_id, context_percent=80)
    closed = fleet.close(instance_id)
    assert closed["status"] == closed["health"] == "closed"
    assert closed["closed_at"] == fleet.get(instance_id)["closed_at"]
    assert closed["context_percent"] == 80
    before = stored()

    path = f"/api/instances/{instance_id}"
    for reply in (
        fleet.api.post(f"{path}/heartbeat", json={}),
        fleet.api.post(f"{path}/close"),
        fleet.api.post(f"{path}/checkpoints", json={"label": "a", "state": {}}),
        fleet.move(instance_id, None),
        fleet.offer(instance_id, "epic_started", {"epic_id": "e"}),
    ):
        body = refused(reply, 409, "instance_closed")
        assert body["details"]["closed_at"] == closed["closed_at"]
    assert stored() == before
    assert fleet.get(instance_id)["uptime_seconds"] == closed["uptime_seconds"]


def test_registering_again_with_the_same_idempotency_key_makes_one_instance(
    fleet: Fleet, api: Api
) -> None:
    """S0 AC3 A lost reply can be asked for again (spec 9)."""
    body = {"project": "odin", "instance_type": "PS"}
    headers = {"Idempotency-Key": "start-of-agent-1"}
    first, second = (api.post("/api/instances", json=body, headers=headers) for _ in range(2))

    assert first.content == second.content
    assert fleet.listed()["total_count"] == 1


def test_the_tools_of_the_registry_are_documented(api: Api) -> None:
    """S0 AC9 Every operation stands in /api/docs with its fields."""
    paths = ok(api.get("/api/docs"))["paths"]

    for path, verbs in {
        "/api/instances": {"get", "post"},
        "/api/instances/{instance_id}": {"get"},
        "/api/instances/{instance_id}/heartbeat": {"post"},
        "/api/instances/{instance_id}/close": {"post"},
        "/api/heartbeats": {"post"},
    }.items():
        assert set(paths[path]) == verbs
