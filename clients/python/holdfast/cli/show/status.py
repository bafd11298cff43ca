"""Prints the overview: counts, what needs attention, sessions, instances."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

from holdfast.cli.show import instances
from holdfast.cli.show.attention import SHORT, matters
from holdfast.cli.show.table import Column, table
from holdfast.cli.show.words import clock, heartbeat, length, status, word
from holdfast.cli.text import safe

Json = Mapping[str, Any]

MOST_MATTERS = 12
MOST_ROWS = 40

COLUMNS = (
    Column("SESSION", least=SHORT),
    Column("PROJECT", 7),
    Column("MACHINE", 6),
    Column("SLOT", 1),
    Column("STATUS", 8, least=7),
    Column("HEARTBEAT", least=9),
    Column("HOLDS", 8, least=10),
    Column("HELD", 3, least=4),
)
WORST_FIRST = ("stalled", "active", "paused")


def overview(console: Console, found: Json, url: str) -> None:
    """Print the whole overview."""
    for line in _counts(found, url):
        console.print(line)
    if unknown := _unknown(found):
        console.print(unknown)
    if urgent := matters(found):
        _heading(console, "Needs attention")
        lines = Table.grid(padding=(0, 1))
        for matter in urgent[:MOST_MATTERS]:
            lines.add_row(Text(" ●", matter.style), matter.what)
            if matter.advice:
                lines.add_row("", Text(f"  {matter.advice}", "dim"))
        console.print(lines)
        _more(console, len(urgent), MOST_MATTERS)
    if not found["sessions"] and not found["instances"]:
        console.print("\nNo session or instance is open.")
    if found["sessions"]:
        _heading(console, "Sessions")
        _rows(console, found["sessions"], _sessions(found["sessions"][:MOST_ROWS], console.width))
    if found["instances"]:
        _heading(console, "Instances")
        _rows(
            console,
            found["instances"],
            instances.rows(found["instances"][:MOST_ROWS], console.width),
        )


def _counts(found: Json, url: str) -> list[Text]:
    sessions, agents, items = found["counts"], found["instances"], found["work_items"]
    stale = sum(agent["status"] == "stale" for agent in agents)
    waiting = sum(agent["activity"] == "waiting_for_human" for agent in agents)
    degraded = sum(agent["health"] == "degraded" for agent in agents)
    return [
        Text(f"holdfast at {safe(url)}", "bold"),
        _counted(
            "Sessions",
            (sessions["active_sessions"], "active", "green"),
            (sessions["paused_sessions"], "paused", "blue"),
            (sessions["stalled_sessions"], "stalled", "red"),
            (sessions["failed_sessions"], "failed", "red"),
            (sessions["completed_sessions"], "completed", "dim"),
        ),
        _counted(
            "Instances",
            (len(agents) - stale, "active", "green"),
            (waiting, "waiting for you", "magenta"),
            (degraded, "degraded", "yellow"),
            (stale, "stale", "red"),
        ),
        _counted(
            "Queue",
            (items["open"], "open", ""),
            (items["claimed"], "claimed", "yellow"),
            (items["completed"], "completed", "dim"),
        ),
    ]


def _unknown(found: Json) -> Text | None:
    """Print how many have sent no heartbeat since the service or its database was away."""
    rows = (*found["sessions"], *found["instances"])
    since = [row["unknown_since"] for row in rows if row.get("unknown_since")]
    if not since:
        return None
    return Text(
        f"{'Unknown':<11}{len(since)} with no heartbeat yet since the service was away"
        f" (from {clock(min(since))}); silence is counted from its return",
        "yellow",
    )


def _counted(name: str, *counts: tuple[int, str, str]) -> Text:
    """The first count, and those of the others that are not 0."""
    told = [Text(f"{n} {what}", style) for n, what, style in counts if n]
    told = told or [Text(f"0 {counts[0][1]}", "dim")]
    return Text(f"{name:<11}").append_text(Text.assemble((" · ", "dim")).join(told))


def _worst(status_of: str) -> int:
    # A newer service may know more kinds.
    return WORST_FIRST.index(status_of) if status_of in WORST_FIRST else len(WORST_FIRST)


def _sessions(sessions: Sequence[Json], width: int) -> RenderableType:
    worst = sorted(
        sessions,
        key=lambda s: (_worst(s["status"]), -s["heartbeat_age_seconds"]),
    )
    rows = [
        (
            word(session["session_id"][:SHORT]),
            word(session["project_id"]),
            word(session["machine_id"], "dim"),
            word(session["docker_slot"], "dim"),
            status(session["status"]),
            heartbeat(session["heartbeat_age_seconds"], session.get("unknown_since")),
            word(", ".join(session["held_items"])),
            _held(session["claim_duration_minutes"]),
        )
        for session in worst
    ]
    return table(COLUMNS, rows, width)


def _held(minutes: float | None) -> Text:
    return Text() if minutes is None else Text(length(minutes * 60), "dim")


def _heading(console: Console, title: str) -> None:
    console.print()
    console.print(Text(title, "bold underline"))


def _rows(console: Console, every: Sequence[Json], shown: RenderableType) -> None:
    console.print(shown)
    _more(console, len(every), MOST_ROWS)


def _more(console: Console, there: int, shown: int) -> None:
    if there > shown:
        console.print(Text(f"… and {there - shown} more", "dim"))
