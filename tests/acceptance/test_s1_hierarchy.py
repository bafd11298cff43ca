"""S1: hierarchy, discovery, health. Each test names its task and point."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.conftest import Start
from tests.acceptance.fleet import Fleet
from tests.acceptance.serving import Api, Json, Server, eventually, ok, position, refused

OLD = timedelta(minutes=5)


@pytest.fixture
def fleet(server: Server, api: Api) -> Fleet:
    return Fleet(api, server.database_url)


@pytest.fixture
def tree(fleet: Fleet) -> list[str]:
    """A global instance, a project below it, an orchestration below that."""
    top = fleet.id(scope="global", name="top")
    project = fleet.child_of(top, "project", name="middle")
    return [top, project, fleet.child_of(project, "orchestration", name="leaf")]


def shape(nodes: list[Json]) -> Json:
    """A forest's ids alone."""
    return {node["instance_id"]: shape(node["children"]) for node in nodes}


# Task 1: registry core and discovery


def test_registered_instances_are_tracked_until_they_end(fleet: Fleet) -> None:
    """S1 1.1 Register and unregister: a closed instance leaves the topology, not the registry."""
    kept, closed = fleet.id(), fleet.id()
    fleet.close(closed)

    listed = fleet.registry("instances")
    assert {i["instance_id"] for i in listed["instances"]} == {kept, closed}
    assert (listed["total_count"], listed["active_count"]) == (2, 1)
    assert shape(fleet.registry("topology")["roots"]) == {kept: {}}


def test_an_instance_is_found_by_id_name_and_scope(fleet: Fleet, tree: list[str]) -> None:
    """S1 1.1 Lookup by ID, name, scope."""
    top, project, leaf = tree

    assert fleet.get(project)["scope"] == "project"
    assert fleet.discover(name="middle") == [project]
    assert fleet.discover(name="Middle") == []
    assert fleet.discover(scope="orchestration") == [leaf]
    assert fleet.discover(scope="global") == [top]


def test_instances_are_found_by_every_criterion_and_by_all_together(fleet: Fleet) -> None:
    """S1 1.2 Discovery by scope, project, type, status, name, tag; each narrows."""
    wanted = fleet.id(project="Odin X", instance_type="MS", name="n", tags=["gpu", "eu"])
    fleet.id(project="odin", instance_type="MS", name="n", tags=["gpu"])
    fleet.id(project="odin-x", instance_type="PS", name="m", tags=["cpu"])
    closed = fleet.id(project="odin-x", instance_type="MS", name="n", tags=["gpu"])
    fleet.close(closed)
    silent = fleet.silent(OLD, "0000d1", project="odin-x", instance_type="MS", tags=["gpu"])
    every = {
        "scope": "project",
        "project": "odin-x",
        "type": "MS",
        "status": "active",
        "name": "n",
        "tag": "gpu",
    }

    assert fleet.discover(**every) == [wanted]
    assert fleet.discover(project="Odin X", name="n", status="active") == [wanted]
    assert fleet.discover(tag="eu") == [wanted]
    assert fleet.discover(tag="e") == []
    assert fleet.discover(status="closed") == [closed]
    assert fleet.discover(status="stale") == [silent]
    assert len(fleet.discover(type="MS", project="odin-x")) == 3
    assert len(fleet.discover()) == 5
    for name, other in {"scope": "global", "type": "PS", "name": "x", "tag": "x"}.items():
        assert fleet.discover(**(every | {name: other})) == []


def test_discovery_is_told_page_by_page(fleet: Fleet) -> None:
    """S1 1.2 A page, the number of all, whether there is more; also past the end."""
    made = {fleet.id() for _ in range(5)}
    pages = [fleet.registry("discover", limit=2, offset=offset) for offset in (0, 2, 4, 6)]

    assert {i["instance_id"] for page in pages for i in page["instances"]} == made
    assert [page["total_count"] for page in pages] == [5, 5, 5, 5]
    assert [page["has_more"] for page in pages] == [True, True, False, False]


def test_available_parents_are_those_that_a_new_instance_may_have(
    fleet: Fleet, tree: list[str]
) -> None:
    """S1 1.2 Discover available parent instances."""
    top, project, _ = tree
    closed = fleet.id()
    fleet.close(closed)

    assert fleet.discover(available_parents_for="project") == [top]
    assert fleet.discover(available_parents_for="orchestration") == [project]
    assert fleet.discover(available_parents_for="global") == []
    for scope in ("project", "orchestration"):
        for parent in fleet.discover(available_parents_for=scope):
            fleet.child_of(parent, scope)


def test_children_are_found_by_their_parent(fleet: Fleet, tree: list[str]) -> None:
    """S1 1.2 Discover child instances."""
    top, project, leaf = tree

    assert fleet.discover(children_of=top) == [project]
    assert fleet.discover(children_of=project) == [leaf]
    assert fleet.discover(children_of=leaf) == []
    assert fleet.discover(children_of="nobody") == []


def test_a_server_that_starts_knows_everyone(start: Start, database: str) -> None:
    """S1 1.2 Auto-discovery on startup: the registry is the store's, not the process's."""
    with start(database) as server, server.default() as api:
        fleet = Fleet(api, database)
        parent = fleet.id()
        child = fleet.child_of(parent, "orchestration")
        fleet.beat(child, metrics={"queue_depth": 3})
    with start(database) as server, server.default() as api:
        fleet = Fleet(api, database)
        assert shape(fleet.registry("topology")["roots"]) == {parent: {child: {}}}
        assert fleet.get(child)["metrics"] == {"queue_depth": 3}
        refused(api.post(f"/api/instances/{parent}/close"), 409, "has_live_children")


# Task 2: relationships


@pytest.mark.parametrize("scope", ["global", "project", "orchestration"])
@pytest.mark.parametrize("parent_scope", [None, "global", "project", "orchestration"])
def test_only_scopes_that_fit_hang_together(
    fleet: Fleet,
    tree: list[str],
    stored: Callable[[], int],
    scope: str,
    parent_scope: str | None,
) -> None:
    """S1 2.2 Global > Project > Orchestration; an orchestration has no children."""
    parents = dict(zip(("global", "project", "orchestration"), tree, strict=True))
    allowed = {("project", "global"), ("orchestration", "project"), ("project", None)}
    before = stored()
    reply = fleet.ask(scope=scope, parent_id=parents[parent_scope] if parent_scope else None)

    if (scope, parent_scope) in allowed:
        assert ok(reply, 201)["parent_id"] == (parents[parent_scope] if parent_scope else None)
    elif (scope, parent_scope) == ("global", None):
        refused(reply, 409, "global_exists")
    else:
        body = refused(reply, 400, "scope_rule")
        assert [error["field"] for error in body["errors"]] == ["parent_id"]
    assert (stored() == before) is (reply.status_code != 201)


def test_without_a_scope_an_instance_is_a_project_with_no_parent(fleet: Fleet) -> None:
    """S1 2.2 Whoever does not care for hierarchies need not know of them (spec 4)."""
    registered = fleet.register()

    assert (registered["scope"], registered["parent_id"]) == ("project", None)


def test_there_is_one_live_global_instance(fleet: Fleet, stored: Callable[[], int]) -> None:
    """S1 2.2 Only one Global instance allowed; once it has closed there may be another."""
    first = fleet.id(scope="global")
    before = stored()
    body = refused(fleet.ask(scope="global"), 409, "global_exists")
    assert body["details"] == {"instance_id": first}
    assert stored() == before
    fleet.close(first)
    second = fleet.id(scope="global")

    assert refused(fleet.ask(scope="global"), 409, "global_exists")["details"] == {
        "instance_id": second
    }


def test_of_many_who_want_to_be_the_global_at_once_one_wins(fleet: Fleet) -> None:
    """S1 2.2 Also when all ask at the same moment."""
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: fleet.ask(scope="global"), range(8)))

    assert sorted(reply.status_code for reply in replies) == [201] + [409] * 7
    assert len(fleet.discover(scope="global")) == 1


def test_another_team_has_a_global_of_its_own(fleet: Fleet, other: Api) -> None:
    """S1 2.2 One per namespace (spec 2)."""
    fleet.id(scope="global")
    body = {"project": "odin", "instance_type": "PS", "scope": "global"}

    ok(other.post("/api/instances", json=body), 201)


def test_nobody_becomes_the_child_of_another_team_s_instance(fleet: Fleet, other: Api) -> None:
    """S1 2.1 Nothing crosses a namespace (spec 2)."""
    parent = fleet.id()
    body = {"project": "o", "instance_type": "PS", "scope": "orchestration", "parent_id": parent}

    refused(other.post("/api/instances", json=body), 400, "unknown_parent")


def test_a_child_is_recorded_on_both_sides_in_one_append(fleet: Fleet, tree: list[str]) -> None:
    """S1 2.3 on_child_added: registering below a parent is an event of the parent as well."""
    top, project, leaf = tree
    [added] = fleet.events(project, event_type="child_added")

    assert added["event_data"] == {"child_id": leaf}
    [registered] = fleet.events(leaf)
    assert registered["event_data"]["parent_id"] == project
    assert registered["metadata"]["request_id"] == added["metadata"]["request_id"]
    assert abs(added["position"] - registered["position"]) == 1
    assert fleet.types(leaf, event_type="parent_changed") == []
    assert fleet.replay(top)["final_state"]["children"] == {project: True}


def test_a_move_is_recorded_by_both_parents_and_the_child_in_one_append(
    fleet: Fleet, tree: list[str], stored: Callable[[], int]
) -> None:
    """S1 2.3 on_child_removed, on_child_added, on_parent_changed (spec 4)."""
    _, project, leaf = tree
    elsewhere = fleet.id()
    before = stored()
    reply = fleet.move(leaf, elsewhere)
    moved = ok(reply)

    assert moved["parent_id"] == fleet.get(leaf)["parent_id"] == elsewhere
    assert stored() == before + 3
    recorded = {
        instance_id: fleet.events(instance_id)[-1] for instance_id in (project, elsewhere, leaf)
    }
    assert {i: (e["event_type"], e["event_data"]) for i, e in recorded.items()} == {
        project: ("child_removed", {"child_id": leaf}),
        elsewhere: ("child_added", {"child_id": leaf}),
        leaf: ("parent_changed", {"parent_id": elsewhere, "previous_parent_id": project}),
    }
    assert {event["metadata"]["request_id"] for event in recorded.values()} == {
        reply.headers["x-request-id"]
    }
    assert position(reply) == max(event["position"] for event in recorded.values())
    assert fleet.discover(children_of=project) == []
    assert fleet.discover(children_of=elsewhere) == [leaf]


def test_a_project_may_leave_its_parent_and_come_back(fleet: Fleet, tree: list[str]) -> None:
    """S1 2.1 Remove child from parent, add child to parent."""
    top, project, leaf = tree
    assert ok(fleet.move(project, None))["parent_id"] is None
    assert set(shape(fleet.registry("topology")["roots"])) == {top, project}
    assert ok(fleet.move(project, top))["parent_id"] == top

    assert shape(fleet.registry("topology")["roots"]) == {top: {project: {leaf: {}}}}
    assert fleet.types(top, event_type=["child_added", "child_removed"]) == [
        "child_added",
        "child_removed",
        "child_added",
    ]


def test_moving_to_where_one_is_changes_nothing(
    fleet: Fleet, tree: list[str], stored: Callable[[], int]
) -> None:
    """S1 2.1 No event without a change."""
    _, project, leaf = tree
    before = stored()

    assert ok(fleet.move(leaf, project))["parent_id"] == project
    assert stored() == before


def test_a_move_obeys_the_rules_of_scopes(
    fleet: Fleet, tree: list[str], stored: Callable[[], int]
) -> None:
    """S1 2.2 Also for those that are there already."""
    top, project, leaf = tree
    before = stored()

    for child, parent in [
        (leaf, None),
        (leaf, top),
        (leaf, leaf),
        (project, leaf),
        (project, project),
        (top, project),
    ]:
        refused(fleet.move(child, parent), 400, "scope_rule")
    assert stored() == before


def test_an_instance_with_active_children_does_not_close(
    fleet: Fleet, tree: list[str], stored: Callable[[], int]
) -> None:
    """S1 2.1 Unless it is told to take them along: 409, naming them."""
    top, project, leaf = tree
    before = stored()

    for parent, child in ((top, project), (project, leaf)):
        body = refused(fleet.api.post(f"/api/instances/{parent}/close"), 409, "has_live_children")
        assert body["details"] == {"children": [child]}
    assert stored() == before
    fleet.close(leaf)
    fleet.close(project)
    assert fleet.close(top)["cascaded"] == []


def test_a_cascade_closes_everything_below_in_one_append(
    fleet: Fleet, tree: list[str], stored: Callable[[], int]
) -> None:
    """S1 2.1 Cascade operations: the whole branch or nothing."""
    top, project, leaf = tree
    sibling = fleet.child_of(project, "orchestration")
    already = fleet.child_of(project, "orchestration")
    fleet.close(already)
    outside = fleet.id()
    before = stored()
    reply = fleet.api.post(f"/api/instances/{top}/close", json={"cascade": True})

    assert ok(reply)["cascaded"] == [project, leaf, sibling]
    # Four ended, and the global one gave up being it: two events on two streams.
    assert stored() == before + 4 + 2
    closed = {i: fleet.events(i, event_type="instance_closed")[0] for i in (*tree, sibling)}
    assert {event["metadata"]["request_id"] for event in closed.values()} == {
        reply.headers["x-request-id"]
    }
    assert [closed[i]["event_data"] for i in (leaf, sibling, project, top)] == [
        {"cascade_from": top},
        {"cascade_from": top},
        {"cascade_from": top},
        {},
    ]
    assert shape(fleet.registry("topology")["roots"]) == {outside: {}}
    assert fleet.id(scope="global")


def test_a_child_that_closes_leaves_its_parent_in_one_append(fleet: Fleet) -> None:
    """S1 2.1 Given children that come and go, then their parent knows those it has."""
    parent = fleet.id()
    gone, there = (fleet.child_of(parent, "orchestration") for _ in range(2))
    reply = fleet.api.post(f"/api/instances/{gone}/close", json={})

    assert list(fleet.replay(parent)["final_state"]["children"]) == [there]
    last = fleet.events(parent)[-1]
    assert (last["event_type"], last["event_data"]) == ("child_removed", {"child_id": gone})
    assert last["metadata"]["request_id"] == reply.headers["x-request-id"]


def test_a_stale_child_does_not_hold_its_parent_open(fleet: Fleet) -> None:
    """S1 2.1 Orphan detection: it becomes an orphan (spec 17)."""
    parent = fleet.id()
    child = fleet.child_of(parent, "orchestration")
    orphan = fleet.silent(OLD, "0000e1", scope="orchestration", parent_id=parent)
    fleet.close(child)
    fleet.close(parent)
    topology = fleet.registry("topology")

    assert topology["orphans"] == [orphan]
    assert shape(topology["roots"]) == {orphan: {}}
    assert topology["roots"][0]["orphan"] is True
    assert topology["total_count"] == 1


def test_an_orphan_may_find_another_parent(fleet: Fleet) -> None:
    """S1 2.1 Then it is none any more; the parent that closed lets it go."""
    first, second = fleet.id(), fleet.id()
    child = fleet.silent(OLD, "0000e2", scope="orchestration", parent_id=first)
    fleet.close(first)
    fleet.beat(child)
    assert fleet.registry("topology")["orphans"] == [child]
    ok(fleet.move(child, second))

    topology = fleet.registry("topology")
    assert topology["orphans"] == []
    assert shape(topology["roots"]) == {second: {child: {}}}


# Task 3: health


def test_health_tells_of_every_open_instance_how_it_is_and_why(fleet: Fleet) -> None:
    """S1 3.1 Status reporting, failure detection (spec 17 has the reasons)."""
    fine = fleet.id()
    full = fleet.id(initial_context=95)
    failing = fleet.id()
    fleet.beat(failing, metrics={"error_rate": 0.5, "response_time_ms": 6000})
    silent = fleet.silent(OLD, "0000f1")
    fleet.close(fleet.id())
    health = fleet.registry("health")

    found = {i["instance_id"]: (i["health"], i.get("health_reasons")) for i in health["instances"]}
    silence = found.pop(silent)
    assert found == {
        fine: ("healthy", None),
        full: ("degraded", ["context 95% full"]),
        failing: ("degraded", ["error rate 0.5", "response time 6000 ms"]),
    }
    assert silence[0] == "stale"
    assert silence[1] is not None
    assert silence[1][0].startswith("no heartbeat for ")
    assert health["counts"] == {"healthy": 1, "degraded": 2, "stale": 1}
    assert health["total_count"] == 4
    assert health["status"] == "degraded"


def test_the_health_of_an_empty_or_a_well_fleet_is_healthy(fleet: Fleet) -> None:
    """S1 3.1 Nobody ill."""
    assert fleet.registry("health")["status"] == "healthy"
    fleet.id()
    assert fleet.registry("health")["status"] == "healthy"


def test_the_five_metrics_are_told_of_every_instance(fleet: Fleet) -> None:
    """S1 3.2 Active tasks, queue depth, response time, error rate; uptime is derived."""
    reported = {
        "active_tasks": 3,
        "queue_depth": 7,
        "response_time_ms": 12.5,
        "error_rate": 0.01,
    }
    telling = fleet.silent(OLD, "0000f2")
    fleet.beat(telling, metrics=reported)
    silent = fleet.id()
    metrics = {i["instance_id"]: i["metrics"] for i in fleet.registry("health")["instances"]}

    assert metrics[telling].pop("uptime") >= 300
    assert metrics[telling] == reported
    assert metrics[silent].pop("uptime") >= 0
    assert metrics[silent] == dict.fromkeys(reported)
    assert fleet.get(telling)["metrics"] == reported


@pytest.mark.parametrize(
    ("said", "kept"),
    [
        ({"activity": "working"}, {"activity": "working", "activity_reason": None}),
        (
            {"activity": "waiting_for_human", "activity_reason": "which colour?"},
            {"activity": "waiting_for_human", "activity_reason": "which colour?"},
        ),
        (
            {
                "git": {
                    "branch": "main",
                    "head": "a1b2c3d",
                    "dirty_files": 2,
                    "unpushed_commits": 1,
                }
            },
            None,
        ),
        ({"native_session_id": "0f3a"}, None),
    ],
    ids=["working", "waiting", "git", "native"],
)
def test_a_heartbeat_carries_more_than_life(fleet: Fleet, said: Json, kept: Json | None) -> None:
    """S1 3.1 Instance heartbeat: activity, git and the agent's own session (spec 4)."""
    instance_id = fleet.id()
    fleet.beat(instance_id, **said)
    read = fleet.get(instance_id)

    expected = said if kept is None else kept
    assert {name: read[name] for name in expected} == expected
    assert fleet.events(instance_id)[-1]["event_data"] == said


def test_waiting_for_a_human_is_alive_and_shown_so(fleet: Fleet) -> None:
    """S1 3.1 An instance that waits and beats is not failing (spec 5)."""
    instance_id = fleet.silent(OLD, "0000f3")
    fleet.beat(instance_id, activity="waiting_for_human", activity_reason="merge?")
    [shown] = fleet.registry("health")["instances"]

    assert (shown["status"], shown["health"]) == ("active", "healthy")
    assert (shown["activity"], shown["activity_reason"]) == ("waiting_for_human", "merge?")
    assert fleet.sweep() == 0


def policy(rule: str = "on_failure", max_restarts: int = 2) -> Json:
    return {"policy": rule, "max_restarts": max_restarts, "backoff_seconds": 5}


def test_a_restart_is_requested_when_an_instance_falls_silent(fleet: Fleet) -> None:
    """S1 3.1 Auto-restart policies: once an episode, counting the attempts (spec 4)."""
    instance_id = fleet.silent(OLD, "0000f4", restart_policy=policy())
    assert fleet.sweep() == 1
    assert fleet.sweep() == 0

    [request] = fleet.events(instance_id, event_type="restart_requested")
    assert request["event_data"] == {"attempt": 1, "max_restarts": 2, "backoff_seconds": 5}
    stale = fleet.events(instance_id, event_type="instance_stale")[0]
    assert request["position"] == stale["position"] + 1
    assert fleet.get(instance_id)["restarts"] == 1


@pytest.mark.parametrize("rule", [None, "never"])
def test_without_a_policy_nothing_is_requested(fleet: Fleet, rule: str | None) -> None:
    """S1 3.1 The default is never."""
    given = policy(rule) if rule else None
    instance_id = fleet.silent(OLD, "0000f5", restart_policy=given)
    fleet.sweep()

    assert fleet.types(instance_id) == ["instance_registered", "instance_stale"]


def test_a_crash_loop_is_quarantined(start: Start, database: str) -> None:
    """S1 3.1 After max_restarts the service asks no more, and says so in the health (spec 4)."""
    settings = {"INSTANCE_STALE_SECONDS": "0.3", "SWEEP_SECONDS": "86400"}
    with start(database, **settings) as server, server.world() as api:
        fleet = Fleet(api, database)
        instance_id = fleet.id(restart_policy=policy("always", 2))

        def is_silent() -> bool:
            fleet.sweep()
            return fleet.types(instance_id)[-1] != "instance_heartbeat"

        fleet.beat(instance_id)
        for _ in range(4):
            eventually("another silence", is_silent)
            fleet.beat(instance_id)
        assert fleet.types(instance_id).count("instance_stale") == 4

        attempts = [
            event["event_data"]["attempt"]
            for event in fleet.events(instance_id, event_type="restart_requested")
        ]
        assert attempts == [1, 2]
        read = fleet.replay(instance_id)["final_state"]
        assert read["crash_looping"] is True
        assert read["restarts"] == 2
        shown = fleet.get(instance_id)
        assert shown["crash_looping"] is True
        assert shown["health"] in ("degraded", "stale")


def test_a_heartbeat_between_the_look_and_the_sweep_wins(fleet: Fleet) -> None:
    """S1 3.1 Failure detection re-decides: who has beaten is not stale (spec 5)."""
    instance_id = fleet.silent(OLD, "0000f6", restart_policy=policy())
    fleet.beat(instance_id)

    assert fleet.sweep() == 0
    assert fleet.types(instance_id) == ["instance_registered", "instance_heartbeat"]


# Task 4: the registry's API


@pytest.mark.parametrize("view", ["instances", "discover", "health", "topology"])
def test_the_registry_has_its_four_views(fleet: Fleet, view: str) -> None:
    """S1 4.1 Each is there, and needs a key; none takes what it does not know."""
    instance_id = fleet.id()
    answer = fleet.registry(view)

    nodes = answer["roots" if view == "topology" else "instances"]
    assert [node["instance_id"] for node in nodes] == [instance_id]
    assert answer["total_count"] == 1
    refused(
        fleet.api.get(f"/api/v1/registry/{view}", params={"colour": "red"}),
        400,
        "validation_error",
    )


def test_the_topology_is_a_forest_of_all_open_instances(fleet: Fleet, tree: list[str]) -> None:
    """S1 4.1 Roots with their children, each with all that an instance has (spec 17)."""
    top, project, leaf = tree
    alone = fleet.id(name="alone")
    second = fleet.child_of(project, "orchestration")
    fleet.close(second)
    topology = fleet.registry("topology")

    assert shape(topology["roots"]) == {top: {project: {leaf: {}}}, alone: {}}
    assert topology["orphans"] == []
    assert topology["total_count"] == 4
    node: dict[str, Any] = topology["roots"][0]["children"][0]
    whole = fleet.get(project)
    for moving in ("age_seconds", "uptime_seconds"):
        assert whole.pop(moving) >= node[moving]
    assert {name: node[name] for name in whole} == whole


def test_registering_and_closing_show_in_the_registry_at_once(fleet: Fleet) -> None:
    """S1 4.2 4.3 4.4 The registry follows the lifecycle: no registration apart from it."""
    assert fleet.registry("topology")["total_count"] == 0
    for number in range(1, 4):
        instance_id = fleet.id()
        assert fleet.registry("topology")["total_count"] == number
        assert instance_id in fleet.discover()
    fleet.close(instance_id)

    assert fleet.registry("topology")["total_count"] == 2
    assert fleet.discover(status="closed") == [instance_id]
