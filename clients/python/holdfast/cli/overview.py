"""``holdfast status``, ``instances`` and ``topology``: sessions, instances and their health."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from holdfast.cli.options import AsJson
from holdfast.cli.screen import out, print_json
from holdfast.cli.service import connected, gathered

if TYPE_CHECKING:
    from holdfast.client import Client

SESSIONS_AT_ONCE = 100
AT_ONCE = 200
# Only the newest failed sessions are shown: older ones can hardly be helped any more.
FAILED = 20

Project = Annotated[
    str | None, typer.Option(metavar="NAME", help="Only instances of this project.")
]


def status(as_json: AsJson = False) -> None:
    """Show what needs attention, then all open sessions and instances."""
    with connected(as_json) as client:
        found = _everything(client)
        url = client.settings.shown_url
    if as_json:
        return print_json(found)
    from holdfast.cli.show import status as show

    return show.overview(out(), found, url)


def instances(
    project: Project = None,
    every: Annotated[bool, typer.Option("--all", help="Include closed instances.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the instances, that is the registered agent processes."""
    with connected(as_json) as client:
        found = gathered(
            client.instances.list,
            "instances",
            page=AT_ONCE,
            project=project,
            active_only=not every,
        )
    found["instances"] = _by_project(found["instances"])
    if as_json:
        return print_json(found)
    from holdfast.cli.show import instances as show

    return show.listed(out(), found)


def topology(as_json: AsJson = False) -> None:
    """Show the open instances as trees, each below its parent."""
    with connected(as_json) as client:
        found = client.registry.topology()
    if as_json:
        return print_json(found)
    from holdfast.cli.show import instances as show

    return show.forest(out(), found)


def _latest_first(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Sorted by last heartbeat, as the service sorts the first page but not those that follow."""
    return sorted(rows, key=lambda row: str(row["last_heartbeat"]), reverse=True)


def _by_project(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return sorted(_latest_first(rows), key=lambda row: str(row["project"]))


def _everything(client: Client) -> dict[str, Any]:
    """The API's replies that make up the overview, each under its own name."""
    return {
        "counts": client.sessions.counts(),
        "sessions": _latest_first(
            gathered(client.sessions.active, "sessions", page=SESSIONS_AT_ONCE)["sessions"]
        ),
        "instances": _by_project(
            gathered(client.instances.list, "instances", page=AT_ONCE, active_only=True)[
                "instances"
            ]
        ),
        "failed_sessions": client.sessions.list(status="failed", limit=FAILED)["sessions"],
        "work_items": {
            status: client.work_items.list(status=status, limit=1)["total_count"]
            for status in ("open", "claimed", "completed")
        },
    }
