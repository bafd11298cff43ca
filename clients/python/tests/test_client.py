"""The client's calls, against the real service."""

from __future__ import annotations

import pytest

import holdfast
from holdfast import Client, Conflict, InvalidInput, NotFound, Unauthorized, Unreachable
from tests.acceptance.serving import Api, Server, name


def test_a_session_is_opened_worked_in_and_completed(client: Client, api: Api) -> None:
    session = client.sessions.create(name("project"), name("machine"), metadata={"by": "test"})
    task = client.tasks.create(session["session_id"], session["project_id"], "write the parser")
    client.tasks.start(task["task_id"])
    during = client.sessions.get(session["session_id"])
    client.tasks.complete(task["task_id"])
    client.sessions.complete(session["session_id"])

    assert during["current_task_id"] == task["task_id"]
    assert api.get_task(task["task_id"])["status"] == "completed"
    assert api.get_session(session["session_id"])["status"] == "completed"


def test_an_agent_registers_beats_records_and_is_replayed(client: Client) -> None:
    agent = client.instances.register("Odin X", initial_context={"context_percent": 10})
    instance_id = agent["instance_id"]
    beat = client.instances.beat(instance_id, context_percent=40, activity="working")
    client.instances.emit(instance_id, "epic_started", {"epic_id": "epic-003"})
    client.instances.checkpoint(instance_id, "half way", {"file": "parser.py"})
    replay = client.instances.replay(instance_id, diff_from=1)
    page = client.instances.events(instance_id, event_type=["epic_started"], limit=10)
    client.instances.close(instance_id)

    assert instance_id.startswith("odin-x-PS-")
    assert beat["status"] == "active"
    assert replay["final_state"]["checkpoint_state"] == {"file": "parser.py"}
    assert [event["event_data"]["epic_id"] for event in page["events"]] == ["epic-003"]
    assert client.instances.get(instance_id)["status"] == "closed"


def test_the_package_lists_what_it_offers_before_any_of_it_is_used() -> None:
    assert set(holdfast.__all__) <= set(dir(holdfast))


def test_a_reference_that_fits_several_instances_is_not_guessed(client: Client) -> None:
    one = client.instances.register("odin")["instance_id"]
    client.instances.register("odin")

    assert client.instances.get(one)["instance_id"] == one
    with pytest.raises(NotFound, match=one) as refused:
        client.instances.get("odin-PS")
    assert refused.value.code == "ambiguous"


def test_machines_are_registered_and_kept(client: Client) -> None:
    machine_id = name("rack/3 ü")
    client.machines.register("host", [1, 2], machine_id=machine_id)
    client.machines.update(machine_id, status="maintenance")
    client.machines.beat(machine_id)

    assert client.machines.get(machine_id)["docker_slots"] == [1, 2]
    assert machine_id in [m["machine_id"] for m in client.machines.list()["machines"]]


def test_heartbeats_of_many_go_in_one_request(client: Client) -> None:
    session = client.sessions.create(name("project"), name("machine"))["session_id"]
    agent = client.instances.register("odin")["instance_id"]

    beats = client.beat_all(
        [{"session_id": session}, {"instance_id": agent}, {"instance_id": "odin-PS-000000"}]
    )

    assert (beats["accepted"], beats["rejected"]) == (2, 1)
    assert [result["id"] for result in beats["results"]][:2] == [session, agent]


def test_the_feed_gives_every_event_once_and_waits_for_more(client: Client) -> None:
    agent = client.instances.register("odin")["instance_id"]
    feed = client.history.follow()
    first = next(feed)
    client.instances.emit(agent, "epic_started", {"epic_id": "e1"})
    second = next(feed)

    assert [first["event_type"], second["event_type"]] == ["instance_registered", "epic_started"]
    assert second["position"] == first["position"] + 1
    assert client.history.events(f"instance-{agent}")["total_count"] == 2
    assert client.history.replay(f"instance-{agent}", 1)["events_replayed"] == 1
    assert "epic_started" in [kind["type"] for kind in client.history.event_types()]


def test_the_registry_tells_who_belongs_to_whom(client: Client) -> None:
    top = client.instances.register("odin", scope="global")["instance_id"]
    below = client.instances.register("odin", scope="project", parent_id=top)["instance_id"]

    [root] = client.registry.topology()["roots"]
    assert (root["instance_id"], root["children"][0]["instance_id"]) == (top, below)
    found = client.registry.discover(children_of=top)["instances"]
    assert [instance["instance_id"] for instance in found] == [below]


def test_an_error_says_what_the_caller_can_do(client: Client) -> None:
    session = client.sessions.create("odin", "laptop")
    with pytest.raises(Conflict) as conflict:
        client.sessions.create("odin", "laptop")
    with pytest.raises(InvalidInput) as wrong:
        client.sessions.create("", "laptop")
    with pytest.raises(NotFound) as missing:
        client.sessions.get("no-such-session")

    assert conflict.value.code == "session_exists"
    assert conflict.value.details["session_id"] == session["session_id"]
    assert [error["field"] for error in wrong.value.errors] == ["project_id"]
    assert missing.value.request_id
    assert [e.value.exit_code for e in (conflict, wrong, missing)] == [3, 2, 4]


@pytest.mark.parametrize("key", [None, "not-the-key"])
def test_a_missing_or_wrong_key_is_said_with_what_to_do(server: Server, key: str | None) -> None:
    with Client(server.url, key) as stranger, pytest.raises(Unauthorized) as refused:
        stranger.sessions.list()

    assert "HOLDFAST_API_KEY" in refused.value.message
    assert refused.value.exit_code == 5


def test_nobody_at_the_address_is_unavailable() -> None:
    with (
        Client("http://127.0.0.1:9", "key", retries=0) as client,
        pytest.raises(Unreachable, match=r"127\.0\.0\.1:9") as refused,
    ):
        client.health()

    assert refused.value.exit_code == 6


def test_what_is_no_json_is_refused_before_it_is_sent(client: Client) -> None:
    with pytest.raises(InvalidInput):
        client.sessions.create("odin", "laptop", metadata={"ratio": float("nan")})
