"""Carrying on what another left, on the command line."""

from __future__ import annotations

from holdfast import Client
from tests.support.commands import Cli

S2_EXAMPLE = (
    "Epic epic-003 complete. 5/8 tests passed (3 not passing). PRD updated. Ready for next epic."
)


def closed(client: Client) -> str:
    """An instance that has ended in the middle of things, holding nothing any more."""
    agent = client.instances.register("odin")["instance_id"]
    emit = client.instances.emit
    emit(agent, "epic_started", {"epic_id": "epic-003"})
    emit(agent, "test_passed", {"epic_id": "epic-003", "test_count": 8, "passed_count": 5})
    emit(agent, "prd_updated", {"epic_id": "epic-003"})
    emit(agent, "epic_completed", {"epic_id": "epic-003"})
    client.instances.checkpoint(agent, "half way", {"file": "parser.py"})
    client.instances.beat(agent, git={"branch": "feat/parser", "dirty_files": 3})
    client.instances.close(agent)
    return agent


def test_the_brief_says_what_to_do_next_and_why(client: Client, cli: Cli) -> None:
    """S2's example, each sentence with the events that show it."""
    agent = closed(client)

    told = cli.ok("resume", agent[-6:])

    lines = [line.strip() for line in told.splitlines()]
    assert lines[0].startswith(f"{agent}  odin  closed  heartbeat ")
    assert f"1. {S2_EXAMPLE} [3,4,5]" in lines
    assert "Checkpoint  half way [6]" in lines
    assert 'State       {"file": "parser.py"}' in lines
    assert "Git         branch feat/parser, 3 changed files" in lines
    assert lines[-1] == f"`holdfast resume {agent} --start` registers its successor."
    found, asked = cli.json("resume", agent), client.instances.resume_state(agent)
    assert found.keys() == asked.keys()
    assert found["suggestions"] == asked["suggestions"]


def test_an_instance_without_a_story_leaves_nothing_to_do(client: Client, cli: Cli) -> None:
    agent = client.instances.register("odin")["instance_id"]

    _, *lines = cli.ok("resume", agent).splitlines()

    assert lines == [
        "",
        "It recorded no work that could be resumed.",
        "",
        f"`holdfast resume {agent} --start` registers its successor.",
    ]


def test_start_registers_the_successor(client: Client, cli: Cli) -> None:
    agent = closed(client)

    found = cli.json("resume", agent, "--start")
    told = cli.ok("resume", agent, "--start").splitlines()

    successor = client.instances.get(found["successor"])
    assert successor["predecessor"] == agent
    assert successor["hostname"]
    assert told[:2] == [
        f"✅ {found['successor']} continues the work of {agent}",
        f"   Go on with: holdfast run --instance {found['successor']} -- CMD…",
    ]
    assert f"  Chain       {agent} → {found['successor']}" in [line.rstrip() for line in told]
    assert f"{found['successor']} continues the work." in cli.ok("resume", agent)
    assert "--start" not in cli.ok("resume", agent)


def test_a_living_instance_has_no_successor(client: Client, cli: Cli) -> None:
    agent = client.instances.register("odin")["instance_id"]

    ended = cli("resume", agent, "--start")

    assert (ended.code, ended.out) == (3, "")
    assert cli("resume", agent, "--start", "--json").error()["code"] == "instance_alive"
    assert client.instances.get(agent)["successor"] is None


def test_a_failed_session_is_carried_on_elsewhere(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take("SD-7", session_id=session)
    for task in ("write", "test"):
        client.tasks.create(session, "odin", task)
    client.sessions.mark_failed(session, "out of memory")

    told = cli.ok("recover", session[:8], "--onto", "desk").splitlines()
    again = cli.json("recover", session, "--onto", "desk")

    successor = client.sessions.get(again["session_id"])
    assert (successor["recovered_from"], successor["machine_id"]) == (session, "desk")
    assert told == [
        f"✅ Session {successor['session_id']} continues the work of {session}",
        "   Machine: desk",
        "   Project: odin",
        "   Carried over: 2 tasks",
        "   Holds: SD-7",
        f"   Go on with: holdfast run --session {successor['session_id'][:8]} -- CMD…",
    ]


def test_tasks_that_failed_can_be_left_behind(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.tasks.create(session, "odin", "pending")
    started = client.tasks.create(session, "odin", "started")["task_id"]
    client.tasks.start(started)
    client.sessions.mark_failed(session, "out of memory")

    successor = cli.json("recover", session, "--onto", "desk", "--only-pending", "--slot", "3")

    tasks = client.tasks.list(session_id=successor["session_id"])["tasks"]
    assert [task["task_name"] for task in tasks] == ["pending"]
    assert successor["docker_slot"] == 3


def test_what_cannot_be_recovered_is_said_with_the_right_exit_code(
    client: Client, cli: Cli
) -> None:
    alive = client.sessions.create("odin", "laptop")["session_id"]
    failed = client.sessions.create("loki", "laptop")["session_id"]
    client.sessions.mark_failed(failed, "out of memory")
    cli.ok("recover", failed, "--onto", "desk")

    assert cli("recover", alive, "--onto", "desk", "--json").error()["code"] == "not_recoverable"
    assert cli("recover", alive, "--onto", "desk").code == 3
    assert cli("recover", failed, "--onto", "elsewhere").code == 3
    assert cli("recover", "00000000", "--onto", "desk").code == 4
    assert cli("recover", failed).code == 2
