"""S0 AC3-AC6, S2 3, spec 10: the MCP tools, through the MCP library's own client over HTTP."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import timedelta
from uuid import uuid4

import httpx
import orjson
import pytest
from mcp import MCPError

from interfaces.http.body import MAX_BYTES, MAX_DEPTH
from interfaces.operations import OPERATIONS
from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.mcp_client import LEGACY, MODERN, Mcp
from tests.acceptance.serving import (
    PLAIN_KEY,
    ROOT,
    Api,
    Json,
    Server,
    is_uuid4,
    lasting,
    name,
    ok,
    refused,
)

# S0's four and S2's four, then those in the same manner (spec 10).
SEEDS = {
    "mcp_meta_register_instance",
    "mcp_meta_heartbeat",
    "mcp_meta_list_instances",
    "mcp_meta_get_instance_details",
    "mcp_meta_emit_event",
    "mcp_meta_query_events",
    "mcp_meta_replay_events",
    "mcp_meta_list_event_types",
}
OTHERS = {
    "mcp_meta_create_checkpoint",
    "mcp_meta_close_instance",
    "mcp_meta_claim_work_item",
    "mcp_meta_release_work_item",
    "mcp_meta_next_work_item",
    "mcp_meta_complete_work_item",
    "mcp_meta_resume_instance",
}


@pytest.fixture(params=[MODERN, LEGACY])
def mcp(api: Api, request: pytest.FixtureRequest) -> Mcp:
    """A client of this test's namespace, once with each protocol."""
    return Mcp(api, request.param)


@pytest.fixture
def instance(mcp: Mcp) -> str:
    """The id of an instance, registered by MCP."""
    return str(register(mcp)["instance_id"])


def register(mcp: Mcp, **fields: object) -> Json:
    """An instance of a project of its own unless ``fields`` say otherwise."""
    given = {"project": name("project"), "instance_type": "PS", **fields}
    return mcp.call("mcp_meta_register_instance", **given)


def emit(mcp: Mcp, instance_id: str, event_type: str, **data: object) -> Json:
    """The answer to an event that was recorded."""
    return mcp.call(
        "mcp_meta_emit_event", instance_id=instance_id, event_type=event_type, event_data=data
    )


# What there is


def test_the_seeds_tools_are_listed_by_name(mcp: Mcp) -> None:
    """S0 AC9, S2 3 The eight tools, and those in the same manner, each described in a sentence."""
    tools = {tool.name: tool for tool in mcp.tools().tools}
    assert set(tools) == SEEDS | OTHERS
    for tool in tools.values():
        assert tool.description is not None
        assert tool.description.endswith(".")
        assert tool.annotations is not None
    reads = {
        tool.name for tool in tools.values() if tool.annotations and tool.annotations.read_only_hint
    }
    assert reads == {
        "mcp_meta_list_instances",
        "mcp_meta_get_instance_details",
        "mcp_meta_query_events",
        "mcp_meta_replay_events",
        "mcp_meta_list_event_types",
    }


@pytest.mark.parametrize(
    ("tool", "required", "optional"),
    [
        ("register_instance", {"project", "instance_type"}, {"initial_context"}),
        ("heartbeat", {"instance_id"}, {"context_percent", "current_epic"}),
        ("list_instances", set(), {"project", "active_only"}),
        ("get_instance_details", {"instance_id"}, set()),
        ("emit_event", {"instance_id", "event_type", "event_data"}, {"metadata"}),
        ("query_events", {"instance_id"}, {"filters", "limit", "offset"}),
        ("replay_events", {"instance_id"}, {"to_sequence_num"}),
        ("list_event_types", set(), set()),
        ("create_checkpoint", {"instance_id", "label", "state"}, set()),
        ("close_instance", {"instance_id"}, {"cascade"}),
        ("resume_instance", {"instance_id"}, {"hostname", "tty", "codebase", "parent_id"}),
        ("claim_work_item", {"item_id"}, {"session_id", "instance_id", "takeover", "hostname"}),
        ("release_work_item", {"item_id"}, {"session_id", "instance_id", "fence"}),
        ("next_work_item", set(), {"session_id", "instance_id", "track"}),
        ("complete_work_item", {"item_id"}, {"session_id", "instance_id", "fence"}),
    ],
)
def test_parameters_are_flat_and_as_in_the_seeds(
    mcp: Mcp, tool: str, required: set[str], optional: set[str]
) -> None:
    """S0 AC3-AC6, S2 3 Each tool has the seeds' parameters; nothing hides behind a reference."""
    tools = {tool.name: tool for tool in mcp.tools().tools}
    schema = tools[f"mcp_meta_{tool}"].input_schema
    assert set(schema.get("required", ())) == required
    assert required | optional <= set(schema["properties"])
    assert schema["additionalProperties"] is False
    text = orjson.dumps(schema).decode()
    for unwanted in ("$ref", "$defs", "min_position", '"title"'):
        assert unwanted not in text


def test_schemas_tell_the_limits(mcp: Mcp) -> None:
    """S2 3 The limits that a call is held to stand in the schema: 1000 events, 100 percent."""
    tools = {tool.name: tool.input_schema["properties"] for tool in mcp.tools().tools}
    limit = tools["mcp_meta_query_events"]["limit"]
    assert (limit["default"], limit["minimum"], limit["maximum"]) == (100, 1, 1000)
    percent = tools["mcp_meta_heartbeat"]["context_percent"]["anyOf"][0]
    assert percent == {"type": "number", "minimum": 0, "maximum": 100}
    filters = tools["mcp_meta_query_events"]["filters"]["properties"]
    assert set(filters) == {"event_type", "start_date", "end_date", "keyword"}
    assert [kind["type"] for kind in filters["event_type"]["anyOf"]] == ["string", "array"]
    initial = tools["mcp_meta_register_instance"]["initial_context"]["anyOf"]
    assert [kind["type"] for kind in initial] == ["number", "object", "null"]


def test_every_tool_is_a_row_of_the_operations_table() -> None:
    """Spec 10 Given the table, then a tool's name is one row's, and every tool comes from there."""
    names = [operation.tool.name for operation in OPERATIONS if operation.tool]
    assert sorted(names) == sorted(SEEDS | OTHERS)


def test_a_model_is_told_what_this_is_for(mcp: Mcp) -> None:
    """Spec 10 The server's instructions name the tools by which an agent begins and goes on."""
    told = mcp.instructions() or ""
    named = ("register_instance", "heartbeat", "emit_event", "create_checkpoint", "resume_instance")
    for tool in named:
        assert f"mcp_meta_{tool}" in told


# The registry (S0)


def test_registering_answers_the_instance(mcp: Mcp, api: Api) -> None:
    """S0 AC3 project, instance_type, initial_context in; id, project, type, created_at out."""
    answer = register(mcp, project="odin", initial_context=12.5)
    assert answer["instance_id"].startswith("odin-PS-")
    assert (answer["project"], answer["type"], answer["status"]) == ("odin", "PS", "active")
    assert answer["context_percent"] == 12.5
    assert answer["created_at"].endswith("Z")
    http = ok(api.get(f"/api/instances/{answer['instance_id']}"))["instance"]
    assert {k: http[k] for k in answer if k in http and not _is_age(k)} == {
        k: v for k, v in answer.items() if k in http and not _is_age(k)
    }


def test_an_initial_context_may_be_an_object(mcp: Mcp) -> None:
    """S0 AC3 initial_context as an object with the percentage and the epic."""
    answer = register(mcp, initial_context={"context_percent": 40, "current_epic": "epic-003"})
    assert (answer["context_percent"], answer["current_epic"]) == (40, "epic-003")


def test_a_heartbeat_answers_how_things_stand(mcp: Mcp, instance: str) -> None:
    """S0 AC4 status, age_seconds, stale; context_percent and current_epic are kept."""
    answer = mcp.call(
        "mcp_meta_heartbeat", instance_id=instance, context_percent=73, current_epic="epic-007"
    )
    assert {"instance_id", "status", "last_heartbeat", "age_seconds", "stale"} <= set(answer)
    assert (answer["status"], answer["stale"], answer["context_percent"]) == ("active", False, 73)
    read = mcp.call("mcp_meta_get_instance_details", instance_id=instance)["instance"]
    assert (read["context_percent"], read["current_epic"]) == (73, "epic-007")
    assert read["last_heartbeat"] == answer["last_heartbeat"]


def test_a_heartbeat_may_say_more(mcp: Mcp, instance: str) -> None:
    """S1 The objects that HTTP takes with a heartbeat can be sent by MCP too."""
    said = {"metrics": {"active_tasks": 2, "error_rate": 0.5}, "git": {"branch": "main"}}
    mcp.call("mcp_meta_heartbeat", instance_id=instance, **said)
    read = mcp.call("mcp_meta_get_instance_details", instance_id=instance)["instance"]
    assert read["health"] == "degraded"
    assert read["git"]["branch"] == "main"


def test_instances_are_listed(mcp: Mcp, api: Api) -> None:
    """S0 AC5 By project, then by heartbeat, with the counts; the same as over HTTP."""
    a, b = sorted((name("a"), name("b")))
    first = register(mcp, project=a)["instance_id"]
    other = register(mcp, project=b)["instance_id"]
    second = register(mcp, project=a, instance_type="MS")["instance_id"]
    answer = mcp.call("mcp_meta_list_instances")
    assert [i["instance_id"] for i in answer["instances"]] == [second, first, other]
    counts = answer["total_count"], answer["active_count"], answer["stale_count"]
    assert counts == (3, 3, 0)
    http = ok(api.get("/api/instances"))
    assert [i["instance_id"] for i in http["instances"]] == [second, first, other]
    assert set(http) == set(answer)
    narrowed = mcp.call("mcp_meta_list_instances", project=b)
    assert [i["instance_id"] for i in narrowed["instances"]] == [other]


@pytest.mark.parametrize("active_only", [True, "true"])
def test_closed_instances_can_be_left_out(mcp: Mcp, active_only: object) -> None:
    """S0 AC5 active_only, a boolean, leaves out what was closed."""
    project = name("project")
    gone, here = (register(mcp, project=project)["instance_id"] for _ in range(2))
    closed = mcp.call("mcp_meta_close_instance", instance_id=gone)
    assert (closed["instance_id"], closed["status"]) == (gone, "closed")
    listed = mcp.call("mcp_meta_list_instances", project=project, active_only=active_only)
    assert [i["instance_id"] for i in listed["instances"]] == [here]
    everything = mcp.call("mcp_meta_list_instances", project=project, active_only=False)
    assert everything["total_count"] == 2


def test_an_instance_is_found_by_id_or_by_its_beginning(mcp: Mcp, api: Api) -> None:
    """S0 AC6 The full id answers the instance, a part of it the matches."""
    project = name("project")
    ids = {register(mcp, project=project)["instance_id"] for _ in range(2)}
    for instance_id in ids:
        answer = mcp.call("mcp_meta_get_instance_details", instance_id=instance_id)
        assert answer["match"] == "exact"
        assert answer["instance"]["instance_id"] == instance_id
        by_hash = mcp.call("mcp_meta_get_instance_details", instance_id=instance_id[-6:])
        assert by_hash["match"] == "prefix"
        assert by_hash["instance"]["instance_id"] == instance_id
    several = mcp.call("mcp_meta_get_instance_details", instance_id=project)
    assert {match["instance_id"] for match in several["matches"]} == ids


# Events (S2)


def test_an_event_is_recorded(mcp: Mcp, api: Api, instance: str) -> None:
    """S2 3 emit_event answers success, event_id, sequence_num, timestamp; it is stored at once."""
    data = {"epic_id": "epic-003", "feature_name": "oauth", "estimated_hours": 60}
    answer = mcp.call(
        "mcp_meta_emit_event",
        instance_id=instance,
        event_type="epic_started",
        event_data=data,
        metadata={"tag": "demo"},
    )
    assert set(answer) == {"success", "event_id", "sequence_num", "timestamp"}
    assert (answer["success"], answer["sequence_num"]) == (True, 2)
    event = ok(api.get(f"/api/instances/{instance}/events"))["events"][-1]
    assert (event["event_id"], event["sequence_num"]) == (answer["event_id"], 2)
    assert (event["event_type"], event["event_data"]) == ("epic_started", data)
    assert event["metadata"]["tag"] == "demo"


def test_events_keep_who_sent_them(mcp: Mcp, api: Api, instance: str) -> None:
    """Spec 3 An event from MCP has the operation's name, the request's id and the key's, as any."""
    emit(mcp, instance, "epic_started", epic_id="epic-1")
    body = {"event_type": "epic_started", "event_data": {"epic_id": "epic-1"}}
    ok(api.post(f"/api/instances/{instance}/events", json=body), 201)
    by_mcp, by_http = ok(api.get(f"/api/instances/{instance}/events"))["events"][-2:]
    for field in ("command", "actor"):
        assert by_mcp["metadata"][field] == by_http["metadata"][field]
    assert by_mcp["metadata"]["command"] == "event_emit"
    assert is_uuid4(by_mcp["metadata"]["request_id"])


def test_events_are_queried(mcp: Mcp, api: Api, instance: str) -> None:
    """S2 3 events, total_count, has_more; each event as in the seed; the same as over HTTP."""
    for number in range(3):
        emit(mcp, instance, "test_passed", epic_id="epic-1", passed_count=number)
    answer = mcp.call("mcp_meta_query_events", instance_id=instance)
    assert (answer["total_count"], answer["has_more"]) == (4, False)
    assert [event["sequence_num"] for event in answer["events"]] == [1, 2, 3, 4]
    shape = {"event_id", "event_type", "sequence_num", "timestamp", "event_data", "metadata"}
    assert all(shape <= set(event) for event in answer["events"])
    assert answer == ok(api.get(f"/api/instances/{instance}/events"))
    page = mcp.call("mcp_meta_query_events", instance_id=instance, limit=2, offset=1)
    assert [event["sequence_num"] for event in page["events"]] == [2, 3]
    assert (page["total_count"], page["has_more"]) == (4, True)


@pytest.mark.parametrize("nested", [True, False], ids=["filters", "flat"])
def test_events_are_filtered(mcp: Mcp, instance: str, nested: bool) -> None:
    """S2 3 By type (one or several), date range and keyword: in ``filters`` or beside it."""
    emit(mcp, instance, "epic_started", epic_id="epic-1")
    passed = emit(mcp, instance, "test_passed", epic_id="epic-1", test_type="unit")
    emit(mcp, instance, "test_failed", epic_id="epic-2", test_type="Integration")

    def found(**filters: object) -> list[int]:
        given = {"filters": filters} if nested else filters
        answer = mcp.call("mcp_meta_query_events", instance_id=instance, **given)
        return [event["sequence_num"] for event in answer["events"]]

    assert found(event_type="test_passed") == [3]
    assert found(event_type=["test_passed", "epic_started"]) == [2, 3]
    assert found(keyword="integration") == [4]
    assert found(start_date=passed["timestamp"]) == [3, 4]
    assert found(end_date=passed["timestamp"]) == [1, 2, 3]
    assert found(event_type=["test_passed", "test_failed"], keyword="epic-2") == [4]
    assert found(start_date=passed["timestamp"], end_date=passed["timestamp"]) == [3]
    assert found() == [1, 2, 3, 4]


def test_a_state_is_replayed(mcp: Mcp, api: Api, instance: str) -> None:
    """S2 3 final_state, events_replayed, duration_ms, success: at the end and at any event."""
    emit(mcp, instance, "epic_started", epic_id="epic-1")
    state = {"next": "write the tests", "files": ["a.py"]}
    kept = mcp.call("mcp_meta_create_checkpoint", instance_id=instance, label="wip", state=state)
    assert is_uuid4(kept["checkpoint_id"])
    done = emit(mcp, instance, "epic_completed", epic_id="epic-2")
    answer = mcp.call("mcp_meta_replay_events", instance_id=instance)
    assert (answer["success"], answer["events_replayed"]) == (True, 4)
    assert answer["duration_ms"] >= 0
    final = answer["final_state"]
    assert (final["last_epic"], final["last_event_type"]) == ("epic-2", "epic_completed")
    assert final["latest_timestamp"] == done["timestamp"]
    assert final["total_events_replayed"] == 4
    assert final["checkpoint_state"] == state
    earlier = mcp.call("mcp_meta_replay_events", instance_id=instance, to_sequence_num=2)
    assert earlier["final_state"]["last_epic"] == "epic-1"
    assert earlier["final_state"]["checkpoint_state"] is None
    http = ok(api.get(f"/api/instances/{instance}/replay"))
    assert {**http, "duration_ms": 0} == {**answer, "duration_ms": 0}


def test_an_agent_carries_on_as_another_one_s_successor(mcp: Mcp, api: Api, instance: str) -> None:
    """Spec 7, 10 The answer is HTTP's: the successor, the checkpoint, what to do next."""
    emit(mcp, instance, "epic_started", epic_id="epic-1")
    state = {"next": "write the tests"}
    mcp.call("mcp_meta_create_checkpoint", instance_id=instance, label="wip", state=state)
    alive = mcp.refused("mcp_meta_resume_instance", "instance_alive", instance_id=instance)
    assert alive["details"]["instance_id"] == instance
    mcp.call("mcp_meta_close_instance", instance_id=instance)

    answer = mcp.call("mcp_meta_resume_instance", instance_id=instance, hostname="new-host")
    assert answer["instance_id"] != instance
    assert answer["predecessor"] == instance
    assert answer["instance"]["hostname"] == "new-host"
    assert answer["checkpoint"]["state"] == state
    assert answer["suggestions"][0]["text"] == "Epic epic-1 in progress. Continue there."
    assert answer["resume_chain"] == [instance, answer["instance_id"]]
    brief = ok(api.get(f"/api/instances/{instance}/resume"))
    assert set(brief) == set(answer)
    assert brief["suggestions"] == answer["suggestions"]
    again = mcp.call("mcp_meta_resume_instance", instance_id=instance)
    assert again["instance_id"] == answer["instance_id"]


def test_event_types_are_told(mcp: Mcp, api: Api) -> None:
    """S2 3 type, description, category, required and optional fields; the same as over HTTP."""
    answer = mcp.call("mcp_meta_list_event_types")
    types = {kind["type"]: kind for kind in answer["event_types"]}
    assert types["epic_started"]["category"] == "epic"
    assert types["epic_started"]["required_fields"] == ["epic_id"]
    assert "estimated_hours" in types["epic_started"]["optional_fields"]
    assert all(kind["description"] for kind in types.values())
    assert answer == ok(api.get("/api/event-types"))


def test_reads_see_what_was_just_written(mcp: Mcp) -> None:
    """Spec 9 Given a write, then the next read has it, time after time."""
    project = name("project")
    for number in range(1, 11):
        instance_id = register(mcp, project=project)["instance_id"]
        listed = mcp.call("mcp_meta_list_instances", project=project)
        assert listed["total_count"] == number
        details = mcp.call("mcp_meta_get_instance_details", instance_id=instance_id)
        assert details["match"] == "exact"


# Work items (S3)


def test_a_work_item_is_claimed_and_completed(mcp: Mcp, api: Api, instance: str) -> None:
    """S3, spec 10 Claim answers item, holder, fence and when; complete ends it; HTTP agrees."""
    item = name("item")
    claimed = mcp.call("mcp_meta_claim_work_item", item_id=item, instance_id=instance)
    assert (claimed["item_id"], claimed["holder"], claimed["status"]) == (item, instance, "claimed")
    http = ok(api.get(f"/api/claims/{item}"))
    assert lasting(http) == lasting(claimed)
    again = mcp.call("mcp_meta_claim_work_item", item_id=item, instance_id=instance)
    assert lasting(again) == lasting(claimed)
    done = mcp.call(
        "mcp_meta_complete_work_item", item_id=item, instance_id=instance, fence=claimed["fence"]
    )
    assert (done["status"], done["completed_by"]) == ("completed", instance)
    assert ok(api.get(f"/api/work-items/{item}"))["status"] == "completed"


def test_a_held_item_is_refused_with_its_owner(mcp: Mcp, api: Api, instance: str) -> None:
    """S3 FR-2 What another holds is an error that a model can read: who has it, since when."""
    item = name("item")
    owner = register(mcp, hostname="rack-1", tty="pts/7", codebase="/src")["instance_id"]
    mcp.call("mcp_meta_claim_work_item", item_id=item, instance_id=owner)
    for takeover in (False, True):
        told = mcp.refused(
            "mcp_meta_claim_work_item",
            "claim_held",
            item_id=item,
            instance_id=instance,
            takeover=takeover,
        )
        assert item in told["message"]
        assert owner in told["message"]
        details = told["details"]
        assert (details["claimed_by"], details["hostname"]) == (owner, "rack-1")
        assert details["heartbeat_age_human"].endswith("ago")
        assert details["seconds_until_takeover"] > 0
    for tool in ("release", "complete"):
        told = mcp.refused(
            f"mcp_meta_{tool}_work_item", "not_holder", item_id=item, instance_id=instance
        )
        assert told["details"]["claimed_by"] == owner


def test_the_next_work_item_is_chosen(mcp: Mcp, api: Api, instance: str) -> None:
    """Spec 6 The highest priority first; nothing to do is an empty answer, and no error."""
    for item, priority in (("low", 1), ("high", 2)):
        ok(api.post("/api/work-items", json={"item_id": item, "priority": priority}), 201)
    given = [mcp.call("mcp_meta_next_work_item", instance_id=instance) for _ in range(3)]
    assert [answer.get("item_id") for answer in given] == ["high", "low", None]
    assert given[2] == {}
    released = mcp.call("mcp_meta_release_work_item", item_id="low", instance_id=instance)
    assert (released["holder"], released["status"]) == (None, "open")
    session = api.session()
    again = mcp.call("mcp_meta_next_work_item", session_id=session["session_id"])
    assert (again["item_id"], again["session_id"]) == ("low", session["session_id"])


def test_a_heartbeat_tells_lost_claims(mcp: Mcp, server: Server, api: Api, instance: str) -> None:
    """Spec 17 Given a claim that was taken over, then the next beat by MCP says so, once."""
    old = Fleet(api, server.database_url).silent(timedelta(minutes=6), "00abcd", items=["x"])
    taken = mcp.call("mcp_meta_claim_work_item", item_id="x", instance_id=instance, takeover=True)
    assert taken["taken_from"] == old
    (lost,) = mcp.call("mcp_meta_heartbeat", instance_id=old)["lost_claims"]
    assert (lost["item_id"], lost["taken_by"]) == ("x", instance)
    assert "lost_claims" not in mcp.call("mcp_meta_heartbeat", instance_id=old)


def test_a_stale_fence_stops_a_tool(mcp: Mcp, instance: str) -> None:
    """Spec 6 Any writing tool may carry the claim under which it writes."""
    mcp.call("mcp_meta_claim_work_item", item_id="x", instance_id=instance)
    stale = {"item_id": "x", "fence": 99}
    told = mcp.refused(
        "mcp_meta_heartbeat", "stale_fence", instance_id=instance, context_percent=7, claim=stale
    )
    assert told["details"]["given_fence"] == 99
    read = mcp.call("mcp_meta_get_instance_details", instance_id=instance)["instance"]
    assert read["context_percent"] is None


# What is refused, and how


def test_an_unknown_event_type_is_refused(mcp: Mcp, instance: str) -> None:
    """S2 14 The type must be in the list; the error says so of the field."""
    told = mcp.refused(
        "mcp_meta_emit_event",
        "unknown_event_type",
        "event_type",
        instance_id=instance,
        event_type="epic_begun",
        event_data={},
    )
    assert "catalogue" in told["message"]


def test_a_missing_field_of_an_event_is_named(mcp: Mcp, instance: str) -> None:
    """S2 14 All required fields must be there; the error names each."""
    told = mcp.refused(
        "mcp_meta_emit_event",
        "validation_error",
        "event_data.label",
        "event_data.state",
        instance_id=instance,
        event_type="checkpoint_created",
        event_data={},
    )
    assert "event_data.label: is required" in told["message"]


@pytest.mark.parametrize(
    ("tool", "arguments", "fields"),
    [
        ("emit_event", {"instance_id": "x"}, {"event_type", "event_data"}),
        ("register_instance", {}, {"project", "instance_type"}),
        ("register_instance", {"project": "x", "instance_type": "XX"}, {"instance_type"}),
        ("heartbeat", {}, {"instance_id"}),
        ("heartbeat", {"instance_id": "x", "context_percent": 101}, {"context_percent"}),
        ("heartbeat", {"instance_id": "x", "context_percent": "7"}, {"context_percent"}),
        ("heartbeat", {"instance_id": 7, "mood": "fine"}, {"instance_id", "mood"}),
        ("query_events", {"instance_id": "x", "limit": 1001}, {"limit"}),
        ("query_events", {"instance_id": "x", "limit": 0, "offset": -1}, {"limit", "offset"}),
        ("query_events", {"instance_id": "x", "min_position": 1}, {"min_position"}),
        ("query_events", {"instance_id": "x", "filters": "all"}, {"filters"}),
        ("query_events", {"instance_id": "x", "filters": {"limit": 1}}, {"filters.limit"}),
        (
            "query_events",
            {"instance_id": "x", "keyword": "a", "filters": {"keyword": "a"}},
            {"filters.keyword"},
        ),
        ("query_events", {"instance_id": "x", "filters": {"start_date": "?"}}, {"start_date"}),
        ("list_instances", {"active_only": "maybe"}, {"active_only"}),
        ("close_instance", {"instance_id": "x", "cascade": "yes"}, {"cascade"}),
        ("claim_work_item", {}, {"item_id"}),
        ("claim_work_item", {"item_id": "x"}, {"session_id"}),
        ("claim_work_item", {"item_id": "@global", "instance_id": "x"}, {"item_id"}),
        ("claim_work_item", {"item_id": "x", "takeover": "yes"}, {"takeover"}),
        ("next_work_item", {}, {"session_id"}),
        ("release_work_item", {"item_id": "x", "fence": 0}, {"fence"}),
        ("complete_work_item", {"item_id": "x", "fence": "1"}, {"fence"}),
    ],
)
def test_wrong_arguments_are_named(mcp: Mcp, tool: str, arguments: Json, fields: set[str]) -> None:
    """S2 14 A wrong argument is an error that a model can read: each field, and why."""
    told = mcp.refused(f"mcp_meta_{tool}", "validation_error", *fields, **arguments)
    for field in fields:
        assert field in told["message"]


@pytest.mark.parametrize("number", [0, -1, 2])
def test_a_replay_ends_within_the_stream(mcp: Mcp, instance: str, number: int) -> None:
    """Spec 17 to_sequence_num below 1 or past the end is refused."""
    mcp.refused(
        "mcp_meta_replay_events",
        "validation_error",
        "to_sequence_num",
        instance_id=instance,
        to_sequence_num=number,
    )


@pytest.mark.parametrize(
    ("tool", "more"),
    [
        ("heartbeat", {}),
        ("get_instance_details", {}),
        ("emit_event", {"event_type": "epic_started", "event_data": {"epic_id": "e"}}),
        ("query_events", {}),
        ("replay_events", {}),
        ("create_checkpoint", {"label": "x", "state": {}}),
        ("close_instance", {}),
    ],
)
@pytest.mark.parametrize("instance_id", ["odin-PS-000000", "", "../../health"])
def test_an_unknown_instance_is_not_found(
    mcp: Mcp, tool: str, more: Json, instance_id: str
) -> None:
    """S2 14 The instance must exist."""
    mcp.refused(f"mcp_meta_{tool}", "instance_not_found", instance_id=instance_id, **more)


def test_a_closed_instance_takes_nothing_more(mcp: Mcp, instance: str) -> None:
    """Spec 17 Writes to a closed instance are refused, reads go on."""
    mcp.call("mcp_meta_close_instance", instance_id=instance)
    event: Json = {"event_type": "epic_started", "event_data": {"epic_id": "e"}}
    checkpoint: Json = {"label": "x", "state": {}}
    mcp.refused("mcp_meta_heartbeat", "instance_closed", instance_id=instance)
    mcp.refused("mcp_meta_emit_event", "instance_closed", instance_id=instance, **event)
    mcp.refused("mcp_meta_create_checkpoint", "instance_closed", instance_id=instance, **checkpoint)
    mcp.refused("mcp_meta_close_instance", "instance_closed", instance_id=instance)
    assert mcp.call("mcp_meta_query_events", instance_id=instance)["total_count"] == 2


def test_details_of_a_conflict_are_told(mcp: Mcp) -> None:
    """S1 A second global instance is refused, and the error tells which one there is."""
    only = register(mcp, scope="global")["instance_id"]
    told = mcp.refused(
        "mcp_meta_register_instance",
        "global_exists",
        project="x",
        instance_type="PS",
        scope="global",
    )
    assert told["details"] == {"instance_id": only}


def test_errors_say_what_http_says(mcp: Mcp, api: Api, instance: str) -> None:
    """Spec 10 The same checks as over HTTP: the same code, message and fields."""
    cases: list[tuple[httpx.Response, str, Json]] = [
        (
            api.post(f"/api/instances/{instance}/heartbeat", json={"context_percent": -1, "x": 1}),
            "mcp_meta_heartbeat",
            {"instance_id": instance, "context_percent": -1, "x": 1},
        ),
        (
            api.get(f"/api/instances/{instance}/events", params={"limit": 1001}),
            "mcp_meta_query_events",
            {"instance_id": instance, "limit": 1001},
        ),
        (
            api.post("/api/instances", json={"project": "\u200b", "instance_type": "PS"}),
            "mcp_meta_register_instance",
            {"project": "\u200b", "instance_type": "PS"},
        ),
    ]
    for response, tool, arguments in cases:
        http = refused(response, 400, "validation_error")
        told = mcp.refused(
            tool, "validation_error", *(error["field"] for error in http["errors"]), **arguments
        )
        for field in ("code", "message", "errors"):
            assert told[field] == http[field]


@pytest.mark.parametrize(
    "value",
    [
        pytest.param('"x\\u0000y"', id="NUL"),
        pytest.param('"\\ud800"', id="half a surrogate pair"),
        pytest.param("9007199254740993", id="beyond 2^53"),
        pytest.param("NaN", id="NaN"),
        pytest.param("-Infinity", id="infinite"),
        pytest.param("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), id="too deep"),
    ],
)
@pytest.mark.parametrize("mode", [MODERN, LEGACY])
def test_what_cannot_be_stored_faithfully_does_not_get_in(
    api: Api, stored: Callable[[], int], mode: str, value: str
) -> None:
    """Spec 13 What the door refuses over HTTP, it refuses by MCP; nothing is stored."""
    instance_id = register(Mcp(api, mode))["instance_id"]
    before = stored()
    response = post(
        api,
        mode,
        "tools/call",
        '{"name": "mcp_meta_emit_event", "arguments": {"instance_id": "' + instance_id + '",'
        ' "event_type": "epic_started", "event_data": {"epic_id": "e", "x": '
        + value
        + "}}"
        + (_ENVELOPE if mode == MODERN else "")
        + "}",
    )
    answer = response.json()
    if "result" in answer:
        assert answer["result"]["isError"] is True
        told = answer["result"]["structuredContent"]
        assert told["code"] == "validation_error"
        assert told["errors"][0]["field"].startswith("event_data.x")
    else:
        assert response.status_code == 400, answer
    assert stored() == before


def test_an_oversized_request_is_refused(api: Api) -> None:
    """Spec 13 Over 256 KiB is 413, in the one error shape."""
    response = api.post("/mcp", content=b" " * (MAX_BYTES + 1))
    refused(response, 413, "payload_too_large")


def test_an_unknown_tool_is_an_error_of_the_protocol(mcp: Mcp) -> None:
    """Spec 10 A tool that is not there is told by its name."""
    with pytest.raises(MCPError, match="mcp_meta_make_coffee"):
        mcp.attempt("mcp_meta_make_coffee")


# Who may come in


def test_without_a_valid_key_nothing_reaches_mcp(server: Server) -> None:
    """S4 1.3 No key, an unknown one, a malformed one: 401 with the three messages, in any case."""
    cases: list[tuple[dict[str, str], str]] = [
        ({}, "API key required"),
        ({"Authorization": "Basic eDp5"}, "API key required"),
        ({"X-API-Key": str(uuid4())}, "Invalid API key"),
        ({"Authorization": f"Bearer {uuid4()}"}, "Invalid API key"),
        ({"X-API-Key": "x" * 129}, "Malformed API key"),
    ]
    with server.nobody() as client:
        for headers, message in cases:
            response = client.post("/mcp", headers=headers, content=b"{")
            assert refused(response, 401, "unauthorized")["message"] == message
            assert "www-authenticate" in response.headers


@pytest.mark.parametrize("mode", [MODERN, LEGACY])
def test_a_bearer_token_is_a_key_too(api: Api, mode: str) -> None:
    """S4 1.3 Authorization: Bearer is the same, which most MCP clients can be given."""
    bearer = Mcp(api, mode, {"Authorization": f"Bearer {api.key}"})
    instance_id = register(bearer)["instance_id"]
    assert ok(api.get(f"/api/instances/{instance_id}"))["match"] == "exact"


def test_namespaces_never_meet(mcp: Mcp, other: Api, instance: str) -> None:
    """Spec 2 Given an instance in one namespace, then another's tools do not find it."""
    stranger = Mcp(other, MODERN)
    for tool in ("heartbeat", "get_instance_details", "query_events", "replay_events"):
        stranger.refused(f"mcp_meta_{tool}", "instance_not_found", instance_id=instance)
    stranger.refused("mcp_meta_close_instance", "instance_not_found", instance_id=instance)
    assert stranger.call("mcp_meta_list_instances")["total_count"] == 0
    assert mcp.call("mcp_meta_query_events", instance_id=instance)["total_count"] == 1


def test_there_are_no_sessions_nor_streams(api: Api) -> None:
    """Spec 10 The face keeps nothing between requests: GET and DELETE are 405."""
    for method in ("GET", "DELETE"):
        response = api.request(method, "/mcp", headers={"Accept": "text/event-stream"})
        refused(response, 405, "method_not_allowed")
        assert response.headers["allow"] == "POST"


def test_each_protocol_is_spoken(api: Api) -> None:
    """Spec 10 Each version of the protocol that clients speak is answered, in JSON, each once."""
    for version in ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25"):
        answer = post(
            api,
            LEGACY,
            "initialize",
            '{"protocolVersion": "' + version + '", "capabilities": {},'
            ' "clientInfo": {"name": "test", "version": "1"}}',
        )
        assert answer.headers["content-type"].startswith("application/json")
        assert "mcp-session-id" not in answer.headers
        assert is_uuid4(answer.headers["x-request-id"])
        assert ok(answer)["result"]["protocolVersion"] == version
    assert Mcp(api, MODERN).protocol() == "2026-07-28"
    assert Mcp(api, LEGACY).protocol() == "2025-11-25"


def test_what_a_browser_sends_for_another_site_is_refused(api: Api) -> None:
    """Spec 10 A Host or Origin that is not the service's own is refused, key or not."""
    ping = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    accept = {"Accept": "application/json", "Content-Type": "application/json"}
    for headers, status in (
        ({}, 200),
        ({"Host": "localhost:1234", "Origin": "http://localhost:1234"}, 200),
        ({"Host": "evil.example"}, 421),
        ({"Host": "evil.example:8080"}, 421),
        ({"Origin": "https://evil.example"}, 403),
    ):
        response = api.post("/mcp", content=ping, headers={**accept, **headers})
        assert response.status_code == status, headers


@pytest.fixture(params=["listed", "any"])
def proxied(database: str, start: Start, request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that is reached by another name than it can know."""
    settings = {
        "listed": {"ALLOWED_HOSTS": "holdfast.example.org"},
        "any": {"HOST": "0.0.0.0"},
    }[request.param]
    with start(database, **settings) as running:
        yield running


def test_behind_a_proxy_other_names_are_let_in(proxied: Server) -> None:
    """Spec 10 Given ALLOWED_HOSTS, or all addresses to listen on, then a proxy's name is right."""
    ping = '{"jsonrpc": "2.0", "id": 1, "method": "ping"}'
    headers = {
        "Host": "holdfast.example.org",
        "X-API-Key": PLAIN_KEY,
        "Accept": "application/json",
        "Content-Type": "application/json",
    }
    url = proxied.url.replace("0.0.0.0", "127.0.0.1")
    with httpx.Client(trust_env=False) as client:
        assert client.post(f"{url}/mcp", content=ping, headers=headers).status_code == 200


def test_the_log_stays_in_its_form(mcp: Mcp, server: Server, instance: str) -> None:
    """S4 5.1 Given calls by MCP, then what is logged is JSON lines still, with nobody's payload."""
    secret = name("secret")
    emit(mcp, instance, "epic_started", epic_id=secret)
    lines = [line for line in server.log().splitlines() if line.strip()]
    assert all(line.startswith(("{", "holdfast serves")) for line in lines)
    assert secret not in server.log()


def test_nobody_waits_for_what_is_not_wanted() -> None:
    """Spec 10 Given a service that no MCP client calls, then the MCP library is not loaded."""
    code = "import interfaces.host.bootstrap, sys; sys.exit('mcp' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


_ENVELOPE = (
    ', "_meta": {"io.modelcontextprotocol/protocolVersion": "2026-07-28",'
    ' "io.modelcontextprotocol/clientCapabilities": {},'
    ' "io.modelcontextprotocol/clientInfo": {"name": "test", "version": "1"}}'
)


def post(api: Api, mode: str, method: str, params: str) -> httpx.Response:
    """The reply to a message that no well-behaved client would send."""
    headers = {
        "Accept": "application/json, text/event-stream",
        "Content-Type": "application/json",
    }
    if mode == MODERN:
        headers |= {
            "MCP-Protocol-Version": "2026-07-28",
            "Mcp-Method": method,
            "Mcp-Name": "mcp_meta_emit_event",
        }
    message = '{"jsonrpc": "2.0", "id": 1, "method": "' + method + '", "params": ' + params + "}"
    return api.post("/mcp", content=message.encode(), headers=headers)


def _is_age(field: str) -> bool:
    return "age" in field or field.startswith("time_since") or "uptime" in field
