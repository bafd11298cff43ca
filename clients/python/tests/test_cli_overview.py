"""Who is there and how they are, on the command line."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from rich.cells import cell_len
from rich.text import Text

from holdfast import Client
from holdfast.cli.show import words
from holdfast.cli.show.attention import matters
from holdfast.cli.show.table import Column, without_middle
from tests.support.commands import Cli


def fleet(client: Client) -> dict[str, str]:
    """A few agents, not all of them well."""
    top = client.instances.register("fleet", "MS", scope="global")["instance_id"]
    lead = client.instances.register("odin", name="lead", scope="project", parent_id=top)
    waiting = client.instances.register(
        "odin", scope="orchestration", parent_id=lead["instance_id"]
    )
    full = client.instances.register("a-project-with-a-name-that-goes-on-and-on", hostname="h" * 60)
    client.instances.beat(
        waiting["instance_id"], activity="waiting_for_human", activity_reason="May I push?"
    )
    client.instances.beat(full["instance_id"], context_percent=95)
    client.instances.close(client.instances.register("gone")["instance_id"])
    busy = client.sessions.create("odin", "laptop", docker_slot=2)["session_id"]
    stalled = client.sessions.create("loki", "laptop")["session_id"]
    failed = client.sessions.create("thor", "desk")["session_id"]
    client.claims.take("SD-1", session_id=busy)
    client.claims.take("SD-2", session_id=stalled)
    client.work_items.put("SD-3")
    client.sessions.mark_stalled(stalled)
    client.sessions.mark_failed(failed, "out of memory")
    return {
        "top": top,
        "lead": lead["instance_id"],
        "waiting": waiting["instance_id"],
        "full": full["instance_id"],
        "busy": busy,
        "stalled": stalled,
        "failed": failed,
    }


def test_an_overview_counts_and_begins_with_what_needs_attention(client: Client, cli: Cli) -> None:
    ids = fleet(client)

    lines = [line.rstrip() for line in cli.ok("status").splitlines()]

    assert lines[:4] == [
        f"holdfast at {client.settings.url}",
        "Sessions   1 active · 1 stalled · 1 failed",
        "Instances  4 active · 1 waiting for you · 1 degraded",
        "Queue      1 open · 2 claimed",
    ]
    urgent = lines[lines.index("Needs attention") + 1 : lines.index("Sessions") - 1]
    told = [line.removeprefix(" ● ") for line in urgent if line.startswith(" ● ")]
    assert told[0] == f"{ids['waiting']} waits for you: May I push?"
    assert told[1].startswith(f"session {ids['stalled'][:8]} (loki on laptop) is stalled: silent")
    assert told[1].endswith("holds SD-2")
    assert told[2].startswith(f"session {ids['failed'][:8]} (thor on desk) failed ")
    assert told[2].endswith("ago: out of memory")
    assert told[3:] == [f"{ids['full']} is degraded: context 95% full"]
    assert f"     holdfast recover {ids['stalled'][:8]} --onto MACHINE" in urgent
    rows = lines[lines.index("Sessions") + 1 : lines.index("Instances")]
    assert rows[0].split() == [
        "SESSION", "PROJECT", "MACHINE", "SLOT", "STATUS", "HEARTBEAT", "HOLDS", "HELD",
    ]  # fmt: skip
    assert rows[1].startswith(f"{ids['stalled'][:8]}  loki")
    assert rows[2].startswith(f"{ids['busy'][:8]}  odin")
    assert lines[-4].startswith(ids["full"])


def test_what_others_wait_for_goes_before_the_rest_and_a_pair_is_one_matter(
    client: Client, cli: Cli
) -> None:
    agent = client.instances.register("odin")["instance_id"]
    client.instances.beat(agent, context_percent=95)
    failed, idle, holding = (
        client.sessions.create("odin", machine, instance_id=agent if machine == "c" else None)
        for machine in ("a", "b", "c")
    )
    client.claims.take("SD-1", session_id=holding["session_id"])
    client.sessions.mark_failed(failed["session_id"], "out of memory")
    for session in (idle, holding):
        client.sessions.mark_stalled(session["session_id"])

    told = [line[3:] for line in cli.ok("status").splitlines() if line.startswith(" ● ")]

    assert [line.split()[1] for line in told] == [
        session["session_id"][:8] for session in (holding, idle, failed)
    ]
    assert (
        told[0].rstrip().endswith(f"holds SD-1; its instance {agent} is degraded: context 95% full")
    )


def test_a_stalled_session_stands_for_its_silent_instance() -> None:
    session = {"session_id": "s", "project_id": "odin", "machine_id": None, "instance_id": "a"}
    beating = {"status": "stalled", "heartbeat_age_seconds": 240, "held_items": ["SD-7"]}
    silent = {"status": "stale", "health": "stale", "age_seconds": 240, "restarts": 0}
    found = {
        "counts": {"last_updated": "2026-01-31T12:00:00Z"},
        "sessions": [{**session, **beating, "metadata": {}}],
        "instances": [{**silent, "instance_id": name, "parent_id": None} for name in "ab"],
        "failed_sessions": [],
    }

    told = [matter.what for matter in matters(found)]

    assert told == [
        "session s (odin) is stalled: silent for 4m, holds SD-7",
        "b is stale: silent for 4m",
    ]


def test_what_failed_more_than_an_hour_ago_is_counted_on_one_line() -> None:
    now = datetime(2026, 1, 31, 12, tzinfo=timezone.utc)

    def failed(number: int, hours: float) -> dict[str, object]:
        ended = (now - timedelta(hours=hours)).isoformat()
        session_id = f"{number:08}-0000-4000-8000-000000000000"
        named = {"session_id": session_id, "project_id": "odin", "machine_id": None}
        return {**named, "completed_at": ended, "metadata": {}, "instance_id": None}

    found = {
        "counts": {"last_updated": now.isoformat()},
        "sessions": [],
        "instances": [],
        "failed_sessions": [failed(1, 0.9), failed(2, 1.1), failed(3, 23), failed(4, 25)],
    }

    assert [matter.what for matter in matters(found)] == [
        "session 00000001 (odin) failed 54m ago",
        "2 sessions failed more than an hour ago: 00000002, 00000003",
    ]


def test_the_advice_of_the_overview_can_be_followed(client: Client, cli: Cli) -> None:
    stalled = fleet(client)["stalled"]
    [advice] = [
        line for line in cli.ok("status").splitlines() if stalled[:8] in line and "recover" in line
    ]

    _, *arguments = advice.split()
    successor = cli.json(*(word.replace("MACHINE", "desk") for word in arguments))

    assert successor["recovered_from"] == stalled
    assert stalled[:8] not in cli.ok("status")


def test_an_overview_in_json_has_the_shapes_of_the_api(client: Client, cli: Cli) -> None:
    ids = fleet(client)

    found = cli.json("status")

    assert {session["session_id"] for session in found["sessions"]} == {ids["busy"], ids["stalled"]}
    assert found["counts"]["total_sessions"] == 3
    assert [session["session_id"] for session in found["failed_sessions"]] == [ids["failed"]]
    assert found["work_items"] == {"open": 1, "claimed": 2, "completed": 0}
    assert {one["instance_id"] for one in found["instances"]} == {
        ids[name] for name in ("top", "lead", "waiting", "full")
    }


def test_where_nothing_runs_it_is_said(cli: Cli) -> None:
    assert "No session or instance is open." in cli.ok("status")
    assert cli.ok("instances") == "No instance is registered.\n"
    assert cli.ok("topology") == "No instance is registered.\n"


def test_instances_are_listed_without_the_closed(client: Client, cli: Cli) -> None:
    one = client.instances.register("odin", name="here")["instance_id"]
    gone = client.instances.register("loki")["instance_id"]
    client.instances.close(gone)

    assert one in cli.ok("instances")
    assert gone not in cli.ok("instances")
    assert cli.ok("instances").splitlines()[-1] == "1 instance: 1 active, 0 stale"
    assert gone in cli.ok("instances", "--all")
    assert (
        cli.ok("instances", "--all").splitlines()[-1] == "2 instances: 1 active, 0 stale, 1 closed"
    )
    [only] = cli.json("instances", "--all", "--project", "loki")["instances"]
    assert (only["instance_id"], only["status"]) == (gone, "closed")


def test_more_instances_than_a_page_holds_are_all_listed(client: Client, cli: Cli) -> None:
    ids = {client.instances.register("odin")["instance_id"] for _ in range(201)}

    page = cli.json("instances")

    assert {instance["instance_id"] for instance in page["instances"]} == ids
    assert (page["total_count"], page["has_more"]) == (201, False)


def test_the_topology_is_a_tree(client: Client, cli: Cli) -> None:
    ids = fleet(client)

    lines = cli.ok("topology").splitlines()

    [root] = [number for number, line in enumerate(lines) if line.startswith(ids["top"])]
    assert lines[root + 1].startswith(f"└── {ids['lead']}  lead  project  healthy  ")
    assert lines[root + 2].startswith(f"    └── {ids['waiting']}  orchestration  healthy  ")
    assert lines[root + 2].endswith("  waits for you")
    assert cli.json("topology")["total_count"] == 4


@pytest.mark.parametrize("columns", [50, 60, 80, 120])
@pytest.mark.parametrize("command", ["status", "instances", "topology", "next"])
def test_nothing_is_wider_than_the_terminal(
    client: Client, cli: Cli, command: str, columns: int
) -> None:
    client.work_items.put("SD-9", title="A title that goes on and on, " * 6)
    fleet(client)

    lines = cli.ok(command, COLUMNS=str(columns)).splitlines()

    assert max(map(cell_len, lines)) <= columns


def test_without_a_terminal_nothing_is_cut(client: Client, cli: Cli) -> None:
    full = fleet(client)["full"]
    title = "A title that goes on and on, " * 20
    client.work_items.put("SD-9", title=title.strip())

    assert full in cli.ok("instances")
    assert "h" * 60 in cli.ok("instances")
    assert title.strip() in cli.ok("next")


def test_an_id_that_does_not_fit_keeps_the_end_that_tells_it_apart() -> None:
    cut = without_middle(Text("a-project-with-a-long-name-PS-5f00d5"), 17)

    assert cut.plain == "a-projec…S-5f00d5"
    assert Column("INSTANCE", cut="middle").cut == "middle"


def test_there_are_colours_at_a_terminal_only_and_not_if_unwanted(client: Client, cli: Cli) -> None:
    fleet(client)

    assert "\x1b[31m" in cli.at_terminal("status").out
    assert "\x1b[" not in cli.process("status").out
    # What is bold or dim stays so: NO_COLOR is about colours.
    assert "\x1b[31m" not in cli.at_terminal("status", NO_COLOR="1").out
    assert "\x1b[" not in cli.at_terminal("status", TERM="dumb").out


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s"),
        (59.9, "59s"),
        (60, "1m"),
        (3_599, "59m"),
        (3_600, "1h"),
        (86_400, "1d"),
        (-5, "0s"),
    ],
)
def test_ages_are_whole_units_rounded_down(seconds: float, told: str) -> None:
    """S3 FR-5: as the service tells them."""
    assert words.length(seconds) == told


@pytest.mark.parametrize(
    ("seconds", "told"), [(0, "0s"), (0.2, "1s"), (59.5, "1m 00s"), (254.1, "4m 15s")]
)
def test_a_countdown_never_promises_too_early(seconds: float, told: str) -> None:
    assert words.countdown(seconds) == told
