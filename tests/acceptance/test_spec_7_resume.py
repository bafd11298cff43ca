"""Spec 7: resuming an instance: its brief, and its successor."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from domain.claims.claim import GLOBAL, Claim
from domain.instances.instance import Instance
from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.serving import Api, Json, Server, name, ok, position, refused

OLD = timedelta(minutes=5)
E3 = {"epic_id": "epic-003"}
# S2's "Events Missing", with the fields of its samples 6 to 8.
S2_EVENTS: list[tuple[str, Json]] = [
    (
        "epic_started",
        {
            **E3,
            "feature_name": "authentication-oauth",
            "estimated_hours": 60,
            "spawned_by": "plan-feature-interactive",
            "acceptance_criteria_count": 12,
        },
    ),
    (
        "test_passed",
        {
            **E3,
            "test_type": "unit",
            "passed_count": 5,
            "failed_count": 3,
            "coverage_percent": 87,
            "duration_seconds": 342,
        },
    ),
    ("epic_completed", {**E3, "duration_hours": 58.5, "files_changed": 23}),
    ("prd_updated", {**E3, "version": "1.1"}),
]
S2_SENTENCE = (
    "Epic epic-003 complete. 5/8 tests passed (3 not passing). PRD updated. Ready for next epic."
)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


def ended(fleet: Fleet, **fields: Any) -> str:
    """The id of an instance that was closed."""
    instance_id = fleet.id(**fields)
    fleet.close(instance_id)
    return instance_id


def successor_of(fleet: Fleet, instance_id: str, **fields: Any) -> Json:
    """The reply to the first resumption."""
    return ok(fleet.resume(instance_id, **fields), 201)


def still(value: Json) -> Json:
    """An instance without what moves with the clock."""
    return {k: v for k, v in value.items() if k not in ("age_seconds", "uptime_seconds")}


# The brief


def test_the_example_of_s2_comes_out_to_the_letter(fleet: Fleet) -> None:
    """S2: given its events, then "Epic complete! 5/8 tests passed. PRD updated." in full."""
    instance_id = fleet.id()
    numbers = [fleet.emit(instance_id, *event)["sequence_num"] for event in S2_EVENTS]

    brief = fleet.brief(instance_id)

    assert brief["suggestions"][0] == {
        "text": S2_SENTENCE,
        "rule": "where_it_stands",
        "evidence": numbers[1:],
    }
    assert S2_SENTENCE in brief["brief"]
    assert (brief["last_epic"], brief["last_epic_status"]) == ("epic-003", "completed")
    assert brief["current_epic"] is None
    assert brief["tests"] == {"passed": 5, "failed": 3, "total": 8, "evidence": [numbers[1]]}
    assert brief["last_sequence_num"] == numbers[-1]


def test_a_brief_tells_everything_that_there_is_to_carry_on(fleet: Fleet) -> None:
    """Spec 7: last epic, tests, checkpoint, git state, suggestions with their evidence."""
    instance_id = fleet.id()
    fleet.emit(instance_id, "epic_started", E3)
    path = f"/api/instances/{instance_id}/checkpoints"
    body = {"label": "half way", "state": {"next": "write the docs"}}
    kept = ok(fleet.api.post(path, json=body), 201)
    git = {"branch": "main", "dirty_files": 2, "unpushed_commits": 1}
    fleet.beat(instance_id, git=git, context_percent=95)

    brief = fleet.brief(instance_id)

    assert brief["instance_id"] == instance_id
    assert still(brief["instance"]) == still(fleet.get(instance_id))
    assert (brief["predecessor"], brief["successor"]) == (None, None)
    assert brief["resume_chain"] == [instance_id]
    assert (brief["last_epic"], brief["last_epic_status"]) == ("epic-003", "started")
    assert brief["current_epic"] == "epic-003"
    assert brief["tests"] is None
    assert brief["checkpoint"] == {
        "checkpoint_id": kept["checkpoint_id"],
        "label": "half way",
        "state": {"next": "write the docs"},
        "sequence_num": 3,
        "from_instance_id": None,
    }
    assert brief["git"] == git
    assert {s["rule"]: s["evidence"] for s in brief["suggestions"]} == {
        "where_it_stands": [2],
        "uncommitted_changes": [4],
        "unpushed_commits": [4],
        "checkpoint": [3],
        "context_nearly_full": [4],
    }
    assert brief["evidence_stream"] == f"instance-{instance_id}"
    assert brief["last_sequence_num"] == 4


def test_an_instance_that_only_registered_has_a_brief_too(fleet: Fleet) -> None:
    """Spec 7: nothing recorded is said so, and suggests nothing."""
    brief = fleet.brief(fleet.id())

    assert brief["suggestions"] == []
    assert "recorded nothing" in brief["brief"]
    for field in ("last_epic", "last_epic_status", "tests", "checkpoint", "git", "stale_warning"):
        assert brief[field] is None


def test_a_stale_instance_s_brief_warns(fleet: Fleet, stored: Callable[[], int]) -> None:
    """S0 AC7: the user is warned on resume of a stale instance, and not of a live or closed one."""
    silent = fleet.silent(OLD, "0000d1")
    before = stored()

    warning = fleet.brief(silent)["stale_warning"]
    assert silent in warning
    assert "stale" in warning
    assert "5m ago" in warning
    assert stored() == before
    fleet.beat(silent)
    assert fleet.brief(silent)["stale_warning"] is None
    assert fleet.brief(ended(fleet))["stale_warning"] is None


def test_the_threshold_of_the_warning_is_the_setting(start: Start, database: str) -> None:
    """S0 AC7, spec 5: INSTANCE_STALE_SECONDS decides whether a reader is warned and may resume."""
    with start(database, INSTANCE_STALE_SECONDS="250") as server, server.world() as api:
        fleet = Fleet(api, database)
        early = fleet.silent(timedelta(seconds=200), "0000d2")
        late = fleet.silent(timedelta(seconds=280), "0000d3")
        assert fleet.brief(early)["stale_warning"] is None
        assert fleet.brief(late)["stale_warning"]
        refused(fleet.resume(early), 409, "instance_alive")
        assert fleet.resume(late).status_code == 201


def test_the_brief_of_a_stranger_is_not_found(fleet: Fleet, other: Api) -> None:
    """Spec 9: nobody is resumed by a part of an id, nor from another namespace."""
    instance_id = ended(fleet)
    for reference in ("odin-PS-ffffff", "nonsense", instance_id[-6:]):
        path = f"/api/instances/{reference}/resume"
        refused(fleet.api.get(path), 404, "instance_not_found")
        refused(fleet.api.post(path), 404, "instance_not_found")
    path = f"/api/instances/{instance_id}/resume"
    refused(other.get(path), 404, "instance_not_found")
    refused(other.post(path), 404, "instance_not_found")


# The successor


def test_a_successor_stands_in_its_predecessor_s_place(fleet: Fleet) -> None:
    """Spec 7: same project, type, name, scope, tags, codebase and policy; it names its former."""
    policy = {"policy": "on_failure", "max_restarts": 2, "backoff_seconds": 1}
    former = fleet.register(
        "Odin X",
        "MS",
        name="builder",
        tags=["gpu", "night"],
        hostname="old-host",
        tty="/dev/pts/1",
        codebase="/src/odin",
        restart_policy=policy,
        initial_context=95,
    )
    fleet.close(former["instance_id"])

    response = fleet.resume(former["instance_id"], hostname="new-host", tty="/dev/pts/9")
    reply = ok(response, 201)
    successor = fleet.get(reply["instance_id"])

    assert position(response) > 0
    assert still(reply["instance"]) == still(successor)
    assert successor["instance_id"].startswith("odin-x-MS-")
    for same in ("project", "project_name", "type", "name", "scope", "tags", "codebase"):
        assert successor[same] == former[same]
    assert successor["restart_policy"] == policy
    assert (successor["hostname"], successor["tty"]) == ("new-host", "/dev/pts/9")
    assert (successor["status"], successor["context_percent"]) == ("active", None)
    assert successor["predecessor"] == reply["predecessor"] == former["instance_id"]
    assert reply["successor"] == successor["instance_id"]
    assert fleet.get(former["instance_id"])["successor"] == successor["instance_id"]


def test_resuming_a_stale_instance_ends_it_and_warns(fleet: Fleet) -> None:
    """S0 AC7, spec 7: it may be running still: its writes are refused and name the successor."""
    silent = fleet.silent(OLD, "0000d4")

    reply = successor_of(fleet, silent)

    assert silent in reply["stale_warning"]
    assert fleet.types(silent) == ["instance_registered", "instance_resumed", "instance_closed"]
    assert fleet.get(silent)["status"] == "closed"
    late = fleet.api.post(f"/api/instances/{silent}/heartbeat")
    details = refused(late, 409, "instance_closed")["details"]
    assert details["successor"] == reply["instance_id"]
    assert fleet.brief(silent)["stale_warning"] is None
    assert f"Instance {reply['instance_id']} carries the work on." in fleet.brief(silent)["brief"]


def test_a_live_instance_is_not_resumed(fleet: Fleet, stored: Callable[[], int]) -> None:
    """Spec 17: 409 instance_alive, with its age, and nothing is stored."""
    instance_id = fleet.id()
    before = stored()

    details = refused(fleet.resume(instance_id), 409, "instance_alive")["details"]

    assert details["instance_id"] == instance_id
    assert 0 <= details["age_seconds"] < 120
    assert details["seconds_until_stale"] == pytest.approx(120 - details["age_seconds"])
    assert stored() == before


def test_asked_again_it_is_the_same_successor(fleet: Fleet, stored: Callable[[], int]) -> None:
    """Spec 7: 201 once, then 200, with the same brief; nothing more is recorded."""
    silent = fleet.silent(OLD, "0000d5", current_epic="epic-003")
    first = successor_of(fleet, silent)
    before = stored()

    again = ok(fleet.resume(silent, hostname="elsewhere"), 200)

    assert stored() == before
    assert still(again["instance"]) == still(first["instance"])
    assert {k: v for k, v in again.items() if k != "instance"} == {
        k: v for k, v in first.items() if k != "instance"
    }


def test_fifty_at_once_get_one_successor(fleet: Fleet) -> None:
    """Spec 7: one is told 201, all are told the same id, one instance is registered."""
    instance_id = ended(fleet)
    with ThreadPoolExecutor(50) as pool:
        replies = list(pool.map(lambda _: fleet.resume(instance_id), range(50)))

    assert sorted(reply.status_code for reply in replies) == [200] * 49 + [201]
    assert len({reply.json()["instance_id"] for reply in replies}) == 1
    assert fleet.listed()["total_count"] == 2


def test_a_chain_of_three_knows_what_the_first_one_knew(fleet: Fleet) -> None:
    """Spec 7: the resume chain; one that dies before it does anything costs no knowledge."""
    first = fleet.id()
    for event in S2_EVENTS:
        fleet.emit(first, *event)
    fleet.close(first)
    second = successor_of(fleet, first)["instance_id"]
    fleet.close(second)
    reply = successor_of(fleet, second)
    third = reply["instance_id"]

    assert reply["resume_chain"] == [first, second, third]
    assert fleet.brief(third)["resume_chain"] == [first, second, third]
    assert fleet.brief(second)["resume_chain"] == [first, second]
    assert fleet.brief(second)["successor"] == third
    for brief in (reply, fleet.brief(third)):
        assert brief["suggestions"][0]["text"] == S2_SENTENCE
        assert brief["suggestions"][0]["evidence"] == [1]
        assert brief["tests"] == {"passed": 5, "failed": 3, "total": 8, "evidence": [1]}
    assert fleet.get(third)["last_epic"] == "epic-003"
    assert ok(fleet.resume(first), 200)["instance_id"] == second


def test_the_checkpoint_is_loaded(fleet: Fleet) -> None:
    """Spec 7: checkpoint_loaded on the successor's stream, with the state; a chain keeps it."""
    first = fleet.id()
    state = {"next": "write the docs", "files": ["a.py"]}
    body = {"label": "half way", "state": state}
    kept = ok(fleet.api.post(f"/api/instances/{first}/checkpoints", json=body), 201)
    fleet.emit(first, "checkpoint_created", {"label": "later", "state": {}})
    fleet.emit(first, "checkpoint_created", {**body, "checkpoint_id": kept["checkpoint_id"]})
    fleet.close(first)

    reply = successor_of(fleet, first)
    assert (reply["checkpoint"]["label"], reply["checkpoint"]["state"]) == ("half way", state)
    [loaded] = fleet.events(reply["instance_id"], event_type="checkpoint_loaded")
    assert loaded["event_data"] == {
        "checkpoint_id": kept["checkpoint_id"],
        "from_instance_id": first,
        "label": "half way",
        "state": state,
    }
    assert fleet.replay(reply["instance_id"])["final_state"]["checkpoint_state"] == state
    fleet.close(reply["instance_id"])
    last = successor_of(fleet, reply["instance_id"])
    [loaded] = fleet.events(last["instance_id"], event_type="checkpoint_loaded")
    assert loaded["event_data"]["from_instance_id"] == first
    assert fleet.brief(last["instance_id"])["checkpoint"]["state"] == state


def test_without_a_checkpoint_none_is_loaded(fleet: Fleet) -> None:
    """Spec 7: the successor begins with its registration alone."""
    reply = successor_of(fleet, ended(fleet))

    assert fleet.types(reply["instance_id"]) == ["instance_registered"]


def test_a_checkpoint_without_an_id_is_named_by_its_event(fleet: Fleet) -> None:
    """S2: checkpoint_created by emit may leave the id out; checkpoint_loaded needs one."""
    first = fleet.id()
    fleet.emit(first, "checkpoint_created", {"label": "l", "state": {"a": 1}})
    fleet.close(first)

    reply = successor_of(fleet, first)
    [loaded] = fleet.events(reply["instance_id"], event_type="checkpoint_loaded")
    assert loaded["event_data"]["checkpoint_id"] == f"instance-{first}/2"
    assert fleet.brief(first)["checkpoint"]["checkpoint_id"] == f"instance-{first}/2"


# What it held


def holder(fleet: Fleet, hash: str, *items: str) -> tuple[str, dict[str, int]]:
    """A silent instance that has these work items, and the fence of each."""
    silent = fleet.silent(OLD, hash, hostname="old-host", codebase="/src")
    fences = {}
    for item in items:
        body = {"item_id": item, "instance_id": silent}
        fences[item] = ok(fleet.api.post("/api/claims", json=body), 201)["fence"]
    return silent, fences


def silent_global(fleet: Fleet, hash: str) -> tuple[str, int]:
    """The one global instance, which has fallen silent, and the fence of its place."""
    then = datetime.now(UTC) - OLD
    instance = Instance(id=Instance.stream_id(f"odin-PS-{hash}"))
    instance.register(then, project="odin", project_name="odin", instance_type="PS", scope="global")
    claim = Claim(id=Claim.stream_id(GLOBAL))
    instance.acquire(then, GLOBAL, claim.grant(then, "instance", instance.key))
    fleet.write(instance, claim)
    return instance.key, claim.fence


def test_all_that_it_held_passes_on_with_the_next_fence(fleet: Fleet) -> None:
    """Spec 7: claims move with fence + 1, recorded by the claim and both holders in one append."""
    silent, fences = holder(fleet, "0000e1", "SD-1", "SD-2")

    response = fleet.resume(silent)
    reply = ok(response, 201)
    successor = reply["instance_id"]

    assert reply["held_claims"] == [
        {"item_id": item, "fence": fence + 1} for item, fence in fences.items()
    ]
    for item, fence in fences.items():
        taken = ok(fleet.api.get(f"/api/streams/claim-{item}/events"))["events"][-1]
        assert taken["event_type"] == "claim_taken_over"
        assert taken["sequence_num"] == fence + 1
        assert taken["event_data"]["holder_kind"] == "instance"
        assert taken["event_data"]["holder_id"] == successor
        assert taken["event_data"]["taken_from"] == silent
        assert taken["position"] <= position(response)
    lost = fleet.events(silent, event_type="claim_lost")
    assert [event["event_data"] for event in lost] == [
        {"resource": item, "taken_by": successor} for item in fences
    ]
    acquired = fleet.events(successor, event_type="claim_acquired")
    assert [event["event_data"] for event in acquired] == [
        {"resource": item, "fence": fence + 1} for item, fence in fences.items()
    ]
    log = ok(fleet.api.get("/api/events", params={"limit": 1000}))["events"]
    ours = [e for e in log if e["metadata"]["request_id"] == response.headers["x-request-id"]]
    assert len(ours) == 3 + 3 * len(fences)
    assert [event["position"] for event in ours] == [
        event["position"] for event in log[-len(ours) :]
    ]
    assert fleet.brief(silent)["held_claims"] == []
    assert fleet.brief(successor)["held_claims"] == reply["held_claims"]


def test_a_claim_s_readers_and_guards_see_the_successor(fleet: Fleet) -> None:
    """Spec 6, 7: the item is the successor's where it works now; the old fence is stale."""
    item = name("SD")
    silent, fences = holder(fleet, "0000e6", item)

    reply = successor_of(fleet, silent, hostname="new-host")

    path = f"/api/claims/{item}"
    held = ok(fleet.api.get(path))
    assert (held["holder"], held["holder_kind"]) == (reply["instance_id"], "instance")
    assert held["fence"] == fences[item] + 1
    assert (held["hostname"], held["codebase"]) == ("new-host", "/src")
    old, new = {"fence": fences[item]}, {"fence": held["fence"]}
    refused(fleet.api.post(f"{path}/verify", json=old), 409, "stale_fence")
    assert ok(fleet.api.post(f"{path}/verify", json=new))["valid"] is True


def test_the_one_global_instance_is_succeeded_by_the_one_global_instance(fleet: Fleet) -> None:
    """Spec 4: at most one live global, before and after; its place passes on."""
    silent, fence = silent_global(fleet, "0000e2")

    successor = successor_of(fleet, silent)["instance_id"]

    assert fleet.get(successor)["scope"] == "global"
    assert fleet.replay(successor)["final_state"]["held"] == {GLOBAL: fence + 1}
    refused(fleet.ask(scope="global"), 409, "global_exists")
    fleet.close(successor)
    again = successor_of(fleet, successor)["instance_id"]
    details = refused(fleet.ask(scope="global"), 409, "global_exists")["details"]
    assert details["instance_id"] == again


def test_a_closed_global_instance_gives_way_to_the_one_that_lives(fleet: Fleet) -> None:
    """Spec 4: at most one live global instance; the refusal changes nothing."""
    former = ended(fleet, scope="global")
    fleet.id(scope="global")

    refused(fleet.resume(former), 409, "global_exists")
    assert fleet.get(former)["successor"] is None


def test_children_go_with_the_work(fleet: Fleet) -> None:
    """Spec 4: in one append the successor adopts the open children; the closed ones stay."""
    silent = fleet.silent(OLD, "0000e3")
    child = fleet.child_of(silent, "orchestration")
    gone = fleet.child_of(silent, "orchestration")
    fleet.close(gone)

    response = fleet.resume(silent)
    successor = ok(response, 201)["instance_id"]

    assert fleet.get(child)["parent_id"] == successor
    assert fleet.get(gone)["parent_id"] == silent
    assert fleet.events(successor, event_type="child_added")[0]["event_data"]["child_id"] == child
    removed = fleet.events(silent, event_type="child_removed")
    assert [event["event_data"]["child_id"] for event in removed] == [gone, child]
    [moved] = fleet.events(child, event_type="parent_changed")
    assert moved["event_data"] == {"parent_id": successor, "previous_parent_id": silent}
    assert moved["position"] <= position(response)
    assert fleet.registry("topology")["orphans"] == []


def test_a_successor_has_the_same_parent_or_whoever_came_after_it(fleet: Fleet) -> None:
    """Spec 4: an orphan's successor goes below its parent's successor."""
    parent = fleet.id()
    child = fleet.child_of(parent, "orchestration")
    fleet.close(child)
    second = successor_of(fleet, child)["instance_id"]
    assert fleet.get(second)["parent_id"] == parent
    assert second in fleet.discover(children_of=parent)

    fleet.close(parent, cascade=True)
    after = successor_of(fleet, parent)["instance_id"]
    third = successor_of(fleet, second)["instance_id"]
    assert fleet.get(third)["parent_id"] == after


def test_an_orphan_whose_scope_needs_a_parent_is_given_one(fleet: Fleet) -> None:
    """Spec 4 and 17: unknown_parent until a parent is named, whose scope must fit."""
    parent = fleet.id()
    child = fleet.child_of(parent, "orchestration")
    fleet.close(parent, cascade=True)

    error = refused(fleet.resume(child), 400, "unknown_parent")
    assert [e["field"] for e in error["errors"]] == ["parent_id"]
    refused(fleet.resume(child, parent_id="odin-PS-ffffff"), 400, "unknown_parent")
    refused(fleet.resume(child, parent_id=fleet.id(scope="global")), 400, "scope_rule")
    other = fleet.id()
    successor = successor_of(fleet, child, parent_id=other)["instance_id"]
    assert fleet.get(successor)["parent_id"] == other


def test_an_orphan_that_needs_no_parent_becomes_a_root(fleet: Fleet) -> None:
    """Spec 4: a project whose global has gone goes on without one."""
    above = fleet.id(scope="global")
    project = fleet.child_of(above, "project")
    fleet.close(above, cascade=True)

    successor = successor_of(fleet, project)["instance_id"]
    assert fleet.get(successor)["parent_id"] is None


def test_a_crash_loop_goes_on_counting_in_the_successor(fleet: Fleet) -> None:
    """Spec 4: restarting by resuming must not outwit the quarantine."""
    policy = {"policy": "on_failure", "max_restarts": 1, "backoff_seconds": 1}
    silent = fleet.silent(OLD, "0000e4", restart_policy=policy)
    fleet.sweep()
    assert fleet.get(silent)["restarts"] == 1

    successor = successor_of(fleet, silent)["instance_id"]
    assert fleet.get(successor)["restarts"] == 1
    assert fleet.get(successor)["crash_looping"] is False


# Requests and replays


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"hostname": " "}, "hostname"),
        ({"tty": 7}, "tty"),
        ({"parent_id": ""}, "parent_id"),
        ({"resume_chain": ["odin-PS-ffffff"]}, "resume_chain"),
        ({"project": "other"}, "project"),
    ],
)
def test_a_bad_request_to_resume_names_its_field(
    fleet: Fleet, body: Json, field: str, stored: Callable[[], int]
) -> None:
    """Spec 9: 400, the field is named, nothing is stored."""
    instance_id = ended(fleet)
    before = stored()

    error = refused(fleet.resume(instance_id, **body), 400, "validation_error")
    assert [e["field"] for e in error["errors"]] == [field]
    assert stored() == before


def test_with_one_idempotency_key_the_reply_is_the_same(fleet: Fleet) -> None:
    """Spec 9: 201 and the same body, however often it has to be asked."""
    path = f"/api/instances/{ended(fleet)}/resume"
    first, again = (fleet.api.post(path, headers={"Idempotency-Key": "resume-1"}) for _ in range(2))

    assert ok(first, 201) == ok(again, 201)
    assert position(first) == position(again)


def test_predecessor_and_successor_can_be_replayed(fleet: Fleet) -> None:
    """S2 17: at every point the replay has the state, and the last one what readers see."""
    silent = fleet.silent(OLD, "0000e5")
    for event in S2_EVENTS:
        fleet.emit(silent, *event)
    fleet.emit(silent, "checkpoint_created", {"label": "l", "state": {"a": 1}})
    successor = successor_of(fleet, silent)["instance_id"]

    for instance_id in (silent, successor):
        shown, version = fleet.get(instance_id), len(fleet.events(instance_id))
        for number in range(1, version + 1):
            assert fleet.replay(instance_id, to_sequence_num=number)["success"]
        state = fleet.replay(instance_id)["final_state"]
        for field in ("status", "predecessor", "successor", "last_epic", "current_epic", "scope"):
            assert state[field] == shown[field], field
    before = fleet.replay(silent, to_sequence_num=6)["final_state"]
    assert (before["successor"], before["status"]) == (None, "active")
    inherited = fleet.replay(successor, to_sequence_num=1)["final_state"]
    assert inherited["standing"]["epics"]["epic-003"]["status"] == "completed"
