"""What instances and their events refuse: the right status, a code, the field; nothing stored."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from domain.instances.work_events import CATALOGUE
from tests.acceptance.fleet import Fleet
from tests.acceptance.serving import Api, Json, Server, invalid, ok, refused


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


@pytest.fixture
def agent(fleet: Fleet) -> str:
    return fleet.id()


@pytest.fixture(autouse=True)
def nothing_is_stored(agent: str, stored: Callable[[], int]) -> Iterator[None]:
    """Whatever a test here sends, the store has no more and no fewer events afterwards."""
    before = stored()
    yield
    assert stored() == before


NOT_A_PERCENTAGE = [-1, 100.5, 101, "50", True, [50], {"percent": 50}]


# Registering


@pytest.mark.parametrize("kind", ["XX", "ps", "PS ", "P"])
def test_an_unknown_type_of_instance(fleet: Fleet, kind: str) -> None:
    body = invalid(fleet.ask("odin", kind), "instance_type")

    assert body["errors"][0]["message"] == "must be one of PS, MS"


@pytest.mark.parametrize("missing", ["project", "instance_type"])
def test_a_registration_without_what_it_needs(api: Api, missing: str) -> None:
    body = {"project": "odin", "instance_type": "PS"}
    del body[missing]

    refusal = invalid(api.post("/api/instances", json=body), missing)
    assert refusal["errors"][0]["message"] == "is required"


@pytest.mark.parametrize(
    "project", ["", "   ", "\u3000", "x" * 201, "a\u200bb", "a\nb", 7, None, ["odin"]]
)
def test_a_project_that_is_no_name(fleet: Fleet, project: object) -> None:
    invalid(fleet.ask(project), "project")


@pytest.mark.parametrize("context", [-1, 100.5, 101, "50", True, [50]])
def test_an_initial_context_that_is_no_percentage(fleet: Fleet, context: object) -> None:
    body = refused(fleet.ask(initial_context=context), 400, "validation_error")

    assert body["errors"][0]["field"].startswith("initial_context")


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"initial_context": {"context_percent": 101}}, "initial_context.context_percent"),
        ({"initial_context": {"percent": 5}}, "initial_context.percent"),
        ({"initial_context": {"current_epic": ""}}, "initial_context.current_epic"),
        ({"restart_policy": {"policy": "sometimes"}}, "restart_policy.policy"),
        ({"restart_policy": {"max_restarts": -1}}, "restart_policy.max_restarts"),
        ({"restart_policy": {"max_restarts": True}}, "restart_policy.max_restarts"),
        ({"restart_policy": {"backoff_seconds": -0.5}}, "restart_policy.backoff_seconds"),
        ({"restart_policy": {"delay": 5}}, "restart_policy.delay"),
        ({"restart_policy": "always"}, "restart_policy"),
        ({"scope": "planet"}, "scope"),
        ({"tags": "gpu"}, "tags"),
        ({"tags": [""]}, "tags.0"),
        ({"tags": [7]}, "tags.0"),
        ({"tags": ["x" * 101]}, "tags.0"),
        ({"tags": ["x"] * 51}, "tags"),
        ({"name": "  "}, "name"),
        ({"hostname": 7}, "hostname"),
        ({"parent_id": ""}, "parent_id"),
        ({"instance_id": "odin-PS-8f4a2b"}, "instance_id"),
        ({"status": "closed"}, "status"),
        ({"namespace": "team-b"}, "namespace"),
    ],
)
def test_a_wrong_field_of_a_registration(fleet: Fleet, fields: Json, field: str) -> None:
    invalid(fleet.ask(**fields), field)


def test_every_wrong_field_is_named_at_once(api: Api) -> None:
    body = {"project": "", "scope": "planet", "colour": "red"}

    invalid(api.post("/api/instances", json=body), "project", "instance_type", "scope", "colour")


# Hierarchy


def test_an_unknown_parent(fleet: Fleet, agent: str) -> None:
    for parent in ("odin-PS-000000", "no id at all", agent[-6:]):
        reply = fleet.ask(scope="orchestration", parent_id=parent)
        assert refused(reply, 400, "unknown_parent")["errors"][0]["field"] == "parent_id"
        reply = fleet.move(agent, parent)
        assert refused(reply, 400, "unknown_parent")["errors"][0]["field"] == "parent_id"


@pytest.mark.parametrize(
    ("scope", "has_parent"),
    [("global", True), ("project", True), ("orchestration", False)],
)
def test_a_pair_of_scopes_that_does_not_fit(
    fleet: Fleet, agent: str, scope: str, has_parent: bool
) -> None:
    reply = fleet.ask(scope=scope, parent_id=agent if has_parent else None)

    assert refused(reply, 400, "scope_rule")["errors"][0]["field"] == "parent_id"


@pytest.mark.parametrize("body", [{}, {"parent_id": 7}, {"parent_id": ""}])
def test_a_move_without_a_parent_s_id(fleet: Fleet, agent: str, body: Json) -> None:
    invalid(fleet.api.put(f"/api/instances/{agent}/parent", json=body), "parent_id")


@pytest.mark.parametrize("cascade", ["yes", 1, "true", None])
def test_a_cascade_that_is_neither_true_nor_false(
    fleet: Fleet, agent: str, cascade: object
) -> None:
    path = f"/api/instances/{agent}/close"

    invalid(fleet.api.post(path, json={"cascade": cascade}), "cascade")


def test_a_stranger_neither_moves_nor_closes_nor_checks_in(fleet: Fleet, agent: str) -> None:
    path = "/api/instances/odin-PS-000000"
    checkpoint = {"label": "a", "state": {}}

    refused(fleet.move("odin-PS-000000", agent), 404, "instance_not_found")
    refused(fleet.api.post(f"{path}/close"), 404, "instance_not_found")
    refused(fleet.api.post(f"{path}/heartbeat"), 404, "instance_not_found")
    refused(fleet.api.post(f"{path}/checkpoints", json=checkpoint), 404, "instance_not_found")
    refused(
        fleet.offer("odin-PS-000000", "epic_failed", {"epic_id": "e"}), 404, "instance_not_found"
    )


# Heartbeats


@pytest.mark.parametrize("percent", NOT_A_PERCENTAGE)
def test_a_context_that_is_no_percentage(fleet: Fleet, agent: str, percent: object) -> None:
    path = f"/api/instances/{agent}/heartbeat"
    body = refused(fleet.api.post(path, json={"context_percent": percent}), 400, "validation_error")

    assert {error["field"].split(".")[0] for error in body["errors"]} == {"context_percent"}


@pytest.mark.parametrize(
    ("said", "field"),
    [
        ({"activity_reason": "lunch"}, "activity_reason"),
        ({"activity": "sleeping"}, "activity"),
        ({"activity": "idle", "activity_reason": " "}, "activity_reason"),
        ({"current_epic": ""}, "current_epic"),
        ({"metrics": {"error_rate": "0.5"}}, "metrics.error_rate"),
        ({"metrics": {"error_rate": True}}, "metrics.error_rate"),
        ({"metrics": {"queue_depth": -1}}, "metrics.queue_depth"),
        ({"metrics": {"queue_depth": 1.5}}, "metrics.queue_depth"),
        ({"metrics": {"uptime": 5}}, "metrics.uptime"),
        ({"metrics": [1]}, "metrics"),
        ({"git": {"dirty_files": "2"}}, "git.dirty_files"),
        ({"git": {"remote": "origin"}}, "git.remote"),
        ({"native_session_id": "x" * 201}, "native_session_id"),
        ({"mood": "good"}, "mood"),
        ({"status": "active"}, "status"),
    ],
)
def test_a_wrong_field_of_a_heartbeat(fleet: Fleet, agent: str, said: Json, field: str) -> None:
    invalid(fleet.api.post(f"/api/instances/{agent}/heartbeat", json=said), field)


@pytest.mark.parametrize("rate", [-0.1, 1.1, 25])
def test_an_error_rate_that_is_no_fraction(fleet: Fleet, agent: str, rate: float) -> None:
    path = f"/api/instances/{agent}/heartbeat"
    body = refused(
        fleet.api.post(path, json={"metrics": {"error_rate": rate}}), 400, "validation_error"
    )

    assert all(error["field"].startswith("metrics.error_rate") for error in body["errors"])


def test_more_than_a_thousand_beats_at_once(api: Api, agent: str) -> None:
    beats = [{"instance_id": agent}] * 1_001

    invalid(api.post("/api/heartbeats", json={"heartbeats": beats}), "heartbeats")


@pytest.mark.parametrize("body", [{}, {"heartbeats": {}}, {"heartbeats": None}])
def test_beats_that_are_no_list(api: Api, body: Json) -> None:
    invalid(api.post("/api/heartbeats", json=body), "heartbeats")


def test_a_beat_that_is_no_object(api: Api) -> None:
    invalid(api.post("/api/heartbeats", json={"heartbeats": [{}, "odin"]}), "heartbeats.1")


@pytest.mark.parametrize(
    ("beat", "field"),
    [
        ({}, "instance_id"),
        ({"instance_id": 7}, "instance_id"),
        ({"instance_id": "odin-PS-000000", "mood": "good"}, "mood"),
        ({"instance_id": "odin-PS-000000", "context_percent": True}, "context_percent"),
        ({"instance_id": "odin-PS-000000", "session_id": "s"}, "session_id"),
        ({"context_percent": 4}, "session_id"),
        ({"instance_id": "odin-PS-000000", "activity_reason": "lunch"}, "activity_reason"),
        ({"session_id": "s", "metrics": {}}, "metrics"),
    ],
)
def test_one_wrong_beat_of_many_is_told_apart(api: Api, beat: Json, field: str) -> None:
    answer = ok(api.post("/api/heartbeats", json={"heartbeats": [beat]}))
    [result] = answer["results"]

    assert (answer["accepted"], answer["rejected"]) == (0, 1)
    assert result["ok"] is False
    assert result["error"]["code"] == "validation_error"
    assert field in result["error"]["message"]
    assert "Value error" not in result["error"]["message"]
    assert "Extra inputs" not in result["error"]["message"]


# Emitting


@pytest.mark.parametrize(
    "event_type",
    [
        "moon_landed",
        "Epic_Started",
        "epic started",
        "deployment_Done",
        "deploy_done",
        # What the service records of itself is not for callers.
        "instance_registered",
        "instance_heartbeat",
        "instance_stale",
        "instance_closed",
        "restart_requested",
        "child_added",
        # Nor is what other streams have.
        "claim_acquired",
        "session_created",
        # Nor the bases of the catalogue's classes.
        "work_event",
        "epic_event",
    ],
)
def test_an_event_type_that_is_not_in_the_catalogue(
    fleet: Fleet, agent: str, event_type: str
) -> None:
    body = refused(fleet.offer(agent, event_type, {"epic_id": "e"}), 400, "unknown_event_type")

    assert [error["field"] for error in body["errors"]] == ["event_type"]


@pytest.mark.parametrize("event_type", ["", "  ", 7, None, ["epic_started"]])
def test_an_event_type_that_is_no_name(fleet: Fleet, agent: str, event_type: object) -> None:
    invalid(fleet.offer(agent, event_type, {"epic_id": "e"}), "event_type")


REQUIRED = [(name, field) for name, cls in CATALOGUE.items() for field in cls.required_fields()]


@pytest.mark.parametrize(("event_type", "field"), REQUIRED)
def test_an_event_without_a_field_that_it_needs(
    fleet: Fleet, agent: str, event_type: str, field: str
) -> None:
    body = refused(fleet.offer(agent, event_type, {"mood": "good"}), 400, "validation_error")

    missing = {e["field"] for e in body["errors"] if e["message"] == "is required"}
    assert f"event_data.{field}" in missing


def test_an_alias_needs_what_its_type_needs(fleet: Fleet, agent: str) -> None:
    invalid(fleet.offer(agent, "deployment_done", {}), "event_data.service")


@pytest.mark.parametrize("data", [None, [], "text", 7, True, [{"epic_id": "e"}]])
def test_event_data_that_is_no_object(fleet: Fleet, agent: str, data: object) -> None:
    invalid(fleet.offer(agent, "epic_started", data), "event_data")


@pytest.mark.parametrize(
    ("event_type", "data", "field"),
    [
        ("epic_started", {"epic_id": ""}, "epic_id"),
        ("epic_started", {"epic_id": 7}, "epic_id"),
        ("epic_started", {"epic_id": None}, "epic_id"),
        ("epic_completed", {"epic_id": "e", "files_changed": "23"}, "files_changed"),
        ("epic_completed", {"epic_id": "e", "files_changed": True}, "files_changed"),
        ("epic_completed", {"epic_id": "e", "issues_encountered": 7}, "issues_encountered"),
        ("commit_created", {"commit": "a1b2c3d", "files_changed": [7]}, "files_changed"),
        ("prd_updated", {"epic_id": "e", "version": True}, "version"),
        ("test_passed", {"epic_id": "e", "passed_count": -1}, "passed_count"),
        ("test_passed", {"epic_id": "e", "test_count": -1}, "passed_count"),
        ("checkpoint_created", {"label": "a", "state": []}, "state"),
        ("command_logged", {"command": "make", "exit_code": "0"}, "exit_code"),
    ],
)
def test_a_value_of_the_wrong_kind(
    fleet: Fleet, agent: str, event_type: str, data: Json, field: str
) -> None:
    body = refused(fleet.offer(agent, event_type, data), 400, "validation_error")

    assert all(e["field"].startswith(f"event_data.{field}") for e in body["errors"])


@pytest.mark.parametrize(
    "reserved", ["request_id", "actor", "command", "command_id", "submitted_type"]
)
def test_names_in_metadata_that_are_the_service_s_own(
    fleet: Fleet, agent: str, reserved: str
) -> None:
    metadata = {"mine": 1, reserved: "x"}

    invalid(
        fleet.offer(agent, "epic_started", {"epic_id": "e"}, metadata=metadata),
        f"metadata.{reserved}",
    )


@pytest.mark.parametrize("metadata", [[], "tag", 7])
def test_metadata_that_is_no_object(fleet: Fleet, agent: str, metadata: object) -> None:
    reply = fleet.offer(agent, "epic_started", {"epic_id": "e"}, metadata=metadata)

    invalid(reply, "metadata")


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, ["label", "state"]),
        ({"label": "a"}, ["state"]),
        ({"label": "", "state": {}}, ["label"]),
        ({"label": "a", "state": []}, ["state"]),
        ({"label": "a", "state": {}, "checkpoint_id": "c"}, ["checkpoint_id"]),
    ],
)
def test_a_checkpoint_without_what_it_needs(
    fleet: Fleet, agent: str, body: Json, fields: list[str]
) -> None:
    invalid(fleet.api.post(f"/api/instances/{agent}/checkpoints", json=body), *fields)


# Reading


@pytest.mark.parametrize("reference", ["8f4", "od", "%", "8f4%", "____", "8f4_", "o%n-PS", "8f4a%"])
def test_a_reference_that_is_too_short_or_a_pattern(
    fleet: Fleet, api: Api, agent: str, reference: str
) -> None:
    reply = api.get(f"/api/instances/{quote(reference, safe='')}")

    refused(reply, 404, "instance_not_found")


@pytest.mark.parametrize("number", [0, -1, 2, 10**9, 10**30, "two", "", "1.5", "1e0"])
def test_a_point_that_the_stream_does_not_have(
    fleet: Fleet, api: Api, agent: str, number: object
) -> None:
    for field in ("to_sequence_num", "diff_from"):
        for path in (f"/api/instances/{agent}", f"/api/streams/instance-{agent}"):
            reply = api.get(f"{path}/replay", params={field: str(number)})
            invalid(reply, field)


@pytest.mark.parametrize("path", ["/api/instances/{}/events", "/api/streams/instance-{}/events"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 1_001}, "limit"),
        ({"limit": 0}, "limit"),
        ({"limit": -1}, "limit"),
        ({"limit": "ten"}, "limit"),
        ({"offset": -1}, "offset"),
        ({"offset": 2**40}, "offset"),
        ({"order": "sideways"}, "order"),
        ({"keyword": ""}, "keyword"),
        ({"keyword": "x" * 1_001}, "keyword"),
        ({"start_date": "yesterday"}, "start_date"),
        ({"start_date": "2026-13-01T00:00:00Z"}, "start_date"),
        ({"start_date": "2026-01-28T25:00:00"}, "start_date"),
        ({"start_date": "0"}, "start_date"),
        ({"start_date": "1700000000"}, "start_date"),
        ({"end_date": "2026"}, "end_date"),
        ({"end_date": "-1"}, "end_date"),
        ({"end_date": "2026-02-30"}, "end_date"),
        ({"end_date": ""}, "end_date"),
        ({"start_date": "2026-01-29", "end_date": "2026-01-28"}, "start_date"),
        (
            {"start_date": "2026-01-28T12:00:01Z", "end_date": "2026-01-28T12:00:00Z"},
            "start_date",
        ),
        (
            {"start_date": "2026-01-28T12:00:00Z", "end_date": "2026-01-28T12:59:59+01:00"},
            "start_date",
        ),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_query_for_events_that_makes_no_sense(
    api: Api, agent: str, path: str, query: Json, field: str
) -> None:
    invalid(api.get(path.format(agent), params=query), field)


@pytest.mark.parametrize(
    "when", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "0001-01-01T00:00:00Z"]
)
def test_dates_at_the_edge_of_time_are_dates(api: Api, agent: str, when: str) -> None:
    """Not refused, and nothing breaks."""
    for field in ("start_date", "end_date"):
        ok(api.get(f"/api/instances/{agent}/events", params={field: when}))


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"after": -1}, "after"),
        ({"after": "x"}, "after"),
        ({"after": 2**63}, "after"),
        ({"after": 10**30}, "after"),
        ({"min_position": 2**63}, "min_position"),
        ({"limit": 0}, "limit"),
        ({"limit": 1_001}, "limit"),
        ({"wait": -1}, "wait"),
        ({"wait": "nan"}, "wait"),
        ({"stream": "x"}, "stream"),
    ],
)
def test_a_feed_that_makes_no_sense(api: Api, query: Json, field: str) -> None:
    invalid(api.get("/api/events", params=query), field)


def test_a_position_far_past_the_end_has_nothing_after_it(api: Api) -> None:
    """Not refused: a reader may be ahead of a log that was restored."""
    assert ok(api.get("/api/events", params={"after": 2**53}))["events"] == []


@pytest.mark.parametrize("path", ["/api/instances", "/api/v1/registry/instances"])
@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 201}, "limit"),
        ({"offset": -1}, "offset"),
        ({"active_only": "yes"}, "active_only"),
        ({"active_only": ""}, "active_only"),
        ({"scope": "project"}, "scope"),
    ],
)
def test_a_list_that_makes_no_sense(api: Api, path: str, query: Json, field: str) -> None:
    invalid(api.get(path, params=query), field)


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"scope": "planet"}, "scope"),
        ({"available_parents_for": "planet"}, "available_parents_for"),
        ({"status": "dead"}, "status"),
        ({"limit": 201}, "limit"),
        ({"colour": "red"}, "colour"),
    ],
)
def test_a_discovery_that_makes_no_sense(api: Api, query: Json, field: str) -> None:
    invalid(api.get("/api/v1/registry/discover", params=query), field)


@pytest.mark.parametrize("field", ["event_type", "keyword", "start_date", "order"])
def test_a_character_that_cannot_be_stored_cannot_be_asked_for(
    api: Api, agent: str, field: str
) -> None:
    reply = api.get(f"/api/instances/{agent}/events", params={field: "a\x00b"})

    invalid(reply, field)


@pytest.mark.parametrize("query", ["limit=1&limit=2", "order=asc&order=asc", "keyword=a&keyword=b"])
def test_a_parameter_that_is_given_twice(api: Api, agent: str, query: str) -> None:
    invalid(api.get(f"/api/instances/{agent}/events?{query}"), query.partition("=")[0])
