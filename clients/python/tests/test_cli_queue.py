"""The queue and its claims on the command line, as in S3 FR-2 and FR-6."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from rich.console import Console

from holdfast import Client, Conflict
from holdfast.cli.show import queue
from holdfast.types import WorkItem
from interfaces.host.embedded_postgres import EmbeddedPostgres
from tests.acceptance.serving import Server, cloned, eventually
from tests.support.commands import Cli

AGES = r"\d+s"


def printed(width: int = 200, colours: bool = False) -> tuple[Console, io.StringIO]:
    """A console and what is printed on it."""
    paper = io.StringIO()
    system = "standard" if colours else None
    return Console(file=paper, width=width, color_system=system, force_terminal=colours), paper  # type: ignore[arg-type]


def work_item(**fields: object) -> WorkItem:
    """A work item as the service tells of it, claimed by a session."""
    item: dict[str, object] = {
        "item_id": "SD-XXX-001",
        "title": "Feature Title",
        "track": None,
        "priority": 0,
        "depends_on": [],
        "blocked_by": [],
        "status": "claimed",
        "holder": "abc12345-0000-4000-8000-000000000000",
        "holder_kind": "session",
        "claim_duration_minutes": 10.4,
        "heartbeat_age_seconds": 30.2,
        "heartbeat_age_human": "30s ago",
        "stale": False,
    }
    return {**item, **fields}  # type: ignore[typeddict-item]


def test_the_queue_shows_who_has_what(client: Client, cli: Cli) -> None:
    """S3 FR-6: the display format, with the session that holds the item and its heartbeat."""
    session = client.sessions.create("odin", "laptop")["session_id"]
    agent = client.instances.register("odin")["instance_id"]
    client.work_items.put("SD-XXX-001", title="Feature Title", track="core", priority=2)
    client.work_items.put("SD-XXX-002", title="Another", track="core", priority=1)
    client.claims.take("SD-XXX-001", session_id=session)
    client.claims.take("SD-XXX-002", instance_id=agent)

    lines = cli.process("next").out.splitlines()

    beat = rf"\({AGES}\) \(heartbeat: {AGES} ago\)$"
    assert lines[:2] == ["core", "CLAIMED [SD-XXX-001] - Feature Title"]
    assert_matches(rf"^        └─ Claimed by {session[:8]}\.\.\. {beat}", lines[2])
    assert lines[3] == "CLAIMED [SD-XXX-002] - Another"
    assert_matches(rf"^        └─ Claimed by {agent} {beat}", lines[4])


def test_the_format_is_that_of_the_example_to_the_letter() -> None:
    """S3 FR-6: two lines for a claimed item; a title that does not fit ends in three dots."""
    console, paper = printed(width=60)
    long = work_item(title="Feature Title which goes on and on and on and on")
    queue.queue(console, [long], 1)

    assert paper.getvalue().splitlines()[1:3] == [
        "CLAIMED [SD-XXX-001] - Feature Title which goes on and on...",
        "        └─ Claimed by abc12345... (10m) (heartbeat: 30s ago)",
    ]


@pytest.mark.parametrize(
    ("seconds", "colour"),
    [(0, 32), (59.9, 32), (60, 33), (179.9, 33), (180, 31), (4_000, 31)],
)
def test_heartbeats_have_the_colours_of_a_traffic_light(seconds: float, colour: int) -> None:
    """S3 FR-6: green under 60 s, yellow under 180 s, red from there."""
    console, paper = printed(colours=True)
    queue.queue(console, [work_item(heartbeat_age_seconds=seconds)], 1)

    assert f"\x1b[{colour}m(heartbeat: 30s ago)\x1b[0m" in paper.getvalue()


def test_the_queue_tells_what_is_ready_and_what_waits_by_track(client: Client, cli: Cli) -> None:
    put = client.work_items.put
    put("A", title="First", track="back", priority=5)
    put("B", title="Then", track="back", priority=9, depends_on=["A"])
    put("C", title="Aside")

    assert cli.ok("next").splitlines() == [
        "back",
        "BLOCKED [B] - Then",
        "        └─ Waits for A",
        "READY   [A] - First",
        "",
        "No track",
        "READY   [C] - Aside",
        "",
        "Next: A. Claim it with `holdfast claim --next`.",
    ]
    assert [item["item_id"] for item in cli.json("next", "--track", "back")["work_items"]] == [
        "B",
        "A",
    ]


def test_what_does_not_fit_goes_on_under_itself(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take("SD-1", session_id=session)
    client.work_items.put("SD-2", depends_on=["SD-1"])

    lines = cli.ok("next", COLUMNS="30").splitlines()

    first = next(number for number, line in enumerate(lines) if "└─" in line)
    assert lines[first].startswith("        └─ Claimed by")
    assert lines[first + 1].startswith(" " * 11)
    told = " ".join(line.strip(" └─") for line in lines[first : first + 4])
    assert f"Claimed by {session[:8]}... (0s) (heartbeat: " in told
    assert max(map(len, lines[:-1])) <= 30


def test_completed_items_are_shown_on_demand_only(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take("A", session_id=session)
    client.work_items.complete("A", session_id=session)

    assert "queue is empty" in cli.ok("next")
    assert "DONE    [A]" in cli.ok("next", "--all")


def test_a_long_queue_is_cut_and_says_so(client: Client, cli: Cli) -> None:
    for number in range(5):
        client.work_items.put(f"A-{number}", priority=-number)

    page = cli.json("next", "--limit", "2")

    assert [item["item_id"] for item in page["work_items"]] == ["A-0", "A-1"]
    assert (page["total_count"], page["has_more"]) == (5, True)
    assert "… and 3 more items" in cli.ok("next", "--limit", "2")


def test_a_rejected_claim_tells_who_has_it(client: Client, cli: Cli) -> None:
    """S3 FR-2: session, heartbeat, hostname and TTY of the owner; exit code 3."""
    holder = client.sessions.create(
        "odin", "dev", hostname="dev-machine", tty="win-1234", codebase="/src/odin"
    )["session_id"]
    mine = client.sessions.create("odin", "laptop")["session_id"]
    client.claims.take("SD-LEO-001", session_id=holder)

    ended = cli.process("claim", "SD-LEO-001", "--session", mine)

    lines = ended.err.splitlines()
    assert (ended.code, ended.out) == (3, "")
    assert lines[:2] == ["❌ SD-LEO-001 is already claimed", f"   Session: {holder}"]
    assert_matches(rf"^   Heartbeat: {AGES} ago$", lines[2])
    assert lines[3:6] == [
        "   Hostname: dev-machine",
        "   TTY: win-1234",
        "   Codebase: /src/odin",
    ]
    assert_matches(rf"^   Claimed: {AGES} ago$", lines[6])
    assert_matches(r"^   Takeover: possible in [45]m \d\ds, if its holder stays silent$", lines[7])
    assert client.claims.get("SD-LEO-001")["holder"] == holder


def test_the_rejection_has_the_form_of_the_example_to_the_letter() -> None:
    """S3 FR-2: its five lines come first."""
    console, paper = printed()
    details = {
        "item_id": "SD-LEO-001",
        "claimed_by": "session_abc123_tty1_1234",
        "holder_kind": "session",
        "heartbeat_age_seconds": 45.9,
        "heartbeat_age_human": "45s ago",
        "hostname": "dev-machine",
        "tty": "win-1234",
        "codebase": None,
        "claim_duration_minutes": 10.0,
        "stale": False,
        "seconds_until_takeover": 254.1,
    }
    queue.rejected(console, Conflict("held", details=details))

    assert paper.getvalue() == (
        "❌ SD-LEO-001 is already claimed\n"
        "   Session: session_abc123_tty1_1234\n"
        "   Heartbeat: 45s ago\n"
        "   Hostname: dev-machine\n"
        "   TTY: win-1234\n"
        "   Codebase: unknown\n"
        "   Claimed: 10m ago\n"
        "   Takeover: possible in 4m 15s, if its holder stays silent\n"
    )


def test_a_rejected_claim_in_json_is_the_error_of_the_service(client: Client, cli: Cli) -> None:
    holder = client.instances.register("odin")["instance_id"]
    mine = client.instances.register("odin")["instance_id"]
    client.claims.take("A", instance_id=holder)

    ended = cli("claim", "A", "--instance", mine, "--json")

    error = ended.error()
    assert (ended.code, ended.out) == (3, "")
    assert (error["statusCode"], error["code"]) == (409, "claim_held")
    assert error["details"]["claimed_by"] == holder


def test_a_claim_is_made_released_and_completed(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    mine = {"HOLDFAST_SESSION_ID": session}

    assert cli.ok("add", "A", "--title", "Parser", "--priority", "3") == "✅ A is in the queue\n"
    assert cli.ok("claim", "A", **mine).splitlines() == [
        f"✅ A is claimed by session {session}",
        "   Title: Parser",
        "   Fence: 2",
    ]
    assert client.claims.get("A")["session_id"] == session
    assert cli.ok("release", "A", **mine) == "✅ A is free\n"
    assert client.work_items.get("A")["status"] == "open"
    fence = cli.json("claim", "A", **mine)["fence"]
    assert cli("complete", "A", "--fence", str(fence - 1), **mine).code == 3
    assert cli.ok("complete", "A", "--fence", str(fence), **mine) == "✅ A is completed\n"
    assert client.work_items.get("A")["completed_by"] == session


def test_an_item_is_listed_with_all_that_is_known_of_it(client: Client, cli: Cli) -> None:
    listed = cli.json(
        "add", "B", "--track", "core", "--priority", "7", "--depends-on", "A", "--depends-on", "C"
    )

    assert listed == client.work_items.get("B")
    assert (listed["track"], listed["priority"]) == ("core", 7)
    assert listed["depends_on"] == ["A", "C"]


def test_the_best_item_is_claimed_until_nothing_is_ready(client: Client, cli: Cli) -> None:
    mine = {"HOLDFAST_INSTANCE_ID": client.instances.register("odin")["instance_id"]}
    client.work_items.put("A", priority=1, track="back")
    client.work_items.put("B", priority=2)

    taken = [cli.json("claim", "--next", **mine)["item_id"] for _ in range(2)]
    nothing = cli("claim", "--next", **mine)

    assert taken == ["B", "A"]
    assert (nothing.code, nothing.out) == (4, "")
    assert nothing.err == "holdfast: Nothing is ready to be claimed.\n"
    assert cli("claim", "--next", "--track", "front", **mine).code == 4


def test_a_holder_is_named_by_a_part_of_its_id(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    agent = client.instances.register("odin")["instance_id"]

    assert cli.json("claim", "A", "--session", session[:6])["session_id"] == session
    assert cli.json("claim", "B", "--instance", agent[-6:])["instance_id"] == agent


def test_who_is_named_goes_before_the_environment(client: Client, cli: Cli) -> None:
    session = client.sessions.create("odin", "laptop")["session_id"]
    agent = client.instances.register("odin")["instance_id"]
    both = {"HOLDFAST_SESSION_ID": session, "HOLDFAST_INSTANCE_ID": agent}

    assert cli.json("claim", "A", **both)["session_id"] == session
    assert cli.json("claim", "B", "--instance", agent, **both)["instance_id"] == agent


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["claim", "A"], "No holder is given."),
        (["release", "A"], "No holder is given."),
        (["claim"], "Give either an ITEM or --next."),
        (["claim", "A", "--next"], "Give either an ITEM or --next."),
        (["claim", "A", "--track", "core"], "--track can only be used with --next"),
        (["claim", "A", "--session", "x", "--instance", "y"], "not both"),
    ],
)
def test_a_claim_that_says_too_little_or_too_much_is_a_usage_error(
    cli: Cli, arguments: list[str], told: str
) -> None:
    ended = cli(*arguments)

    assert (ended.code, ended.out) == (2, "")
    assert told in ended.err


def test_what_another_holds_is_neither_released_nor_completed(client: Client, cli: Cli) -> None:
    holder = client.sessions.create("odin", "laptop")["session_id"]
    mine = client.sessions.create("odin", "desk")["session_id"]
    client.claims.take("A", session_id=holder)

    for command in ("release", "complete"):
        ended = cli(command, "A", "--session", mine)
        assert ended.code == 3
        lines = ended.err.splitlines()
        assert lines[0] == f"❌ A is not {command.rstrip('e')}ed: another holds it"
        assert lines[1] == f"   Session: {holder}"
        assert [line.split()[0] for line in lines[2:]] == [
            "Heartbeat:", "Hostname:", "TTY:", "Codebase:", "Claimed:",
        ]  # fmt: skip
        error = cli(command, "A", "--session", mine, "--json").error()
        assert (error["code"], error["details"]["claimed_by"]) == ("not_holder", holder)
    assert cli("release", "never-heard-of", "--session", mine).code == 4
    assert client.claims.get("A")["holder"] == holder


def test_a_silent_holder_s_item_is_taken_over_when_that_is_asked_for(
    cluster: EmbeddedPostgres, template: str, tmp_path: Path
) -> None:
    short = {
        "STALL_THRESHOLD_MS": "100",
        "INSTANCE_STALE_SECONDS": "0.1",
        "CLAIM_STALE_SECONDS": "0.2",
    }
    with (
        cloned(cluster, template) as url,
        Server(url, tmp_path, **short) as server,
        server.world() as api,
        Client(server.url, api.key) as client,
    ):
        cli = Cli(server.url, api.key)
        silent = client.sessions.create("odin", "laptop")["session_id"]
        mine = client.instances.register("odin")["instance_id"]
        client.claims.take("A", session_id=silent)
        eventually("the silence to be long enough", lambda: client.work_items.get("A")["stale"])

        refused = cli("claim", "A", "--instance", mine)
        shown = cli.ok("next")
        taken = cli("claim", "A", "--instance", mine, "--takeover", "--json")

    assert refused.code == 3
    assert "Takeover: possible now: holdfast claim A --takeover" in refused.err
    assert "takeover possible" in shown
    assert (taken.code, taken.json()["instance_id"]) == (0, mine)


def assert_matches(pattern: str, line: str) -> None:
    """The line is like the pattern."""
    assert re.search(pattern, line), f"{line!r} is not like {pattern!r}"
