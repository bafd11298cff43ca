"""``holdfast events`` and ``replay``: the events of a stream, and the state after them (S2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from holdfast.cli import naming
from holdfast.cli.folding import flat, runs
from holdfast.cli.options import AsJson
from holdfast.cli.screen import out, print_json, progress
from holdfast.cli.service import connected, gathered
from holdfast.errors import InvalidInput
from holdfast.types import Event

if TYPE_CHECKING:
    from holdfast.client import Client

EVENTS_AT_ONCE = 1_000
LAST = 50
# A walk asks often: it may be told to wait a minute by a service that counts requests.
WALK_SECONDS = 300.0

Id = Annotated[
    str,
    typer.Argument(
        metavar="ID",
        help="The id of an instance, session, work item or machine, a part of it that is unique,"
        " or the id of a stream.",
    ),
]


class Step(NamedTuple):
    """An event, or successive heartbeats, and what changed: for each path the old and new value."""

    events: list[Event]
    changed: dict[str, Any]


def events(
    reference: Id,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type. Can be repeated."),
    ] = None,
    keyword: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only events with this text in their data.")
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Only events at or after this time, such as 2026-01-31T12:00:00Z."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only events up to this time.")
    ] = None,
    last: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="Print the last N lines. Successive heartbeats share one line."
        ),
    ] = LAST,
    every: Annotated[bool, typer.Option("--all", help="Print all events.")] = False,
    heartbeats: Annotated[
        bool, typer.Option("--heartbeats", help="Print a line for each heartbeat.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the events of an instance, session, work item or machine.

    Lines are cut to the width of the terminal. --json prints everything.
    """
    with connected(as_json) as client:
        stream_id = naming.stream_of(client, reference)
        found = gathered(
            lambda **page: client.history.events(stream_id, **page),
            "events",
            page=EVENTS_AT_ONCE,
            most=None if every else last if as_json or heartbeats else max(last, EVENTS_AT_ONCE),
            order="desc",
            event_type=kinds,
            keyword=keyword,
            start_date=since,
            end_date=until,
        )
    # Pages are newest first: an event recorded in between shifts them, so that one may come twice.
    once = {event["position"]: event for event in found["events"]}
    found["events"] = [once[position] for position in sorted(once)]
    if as_json:
        return print_json(found)
    from holdfast.cli.show import events as show

    lines = runs(found["events"], heartbeats)
    return show.listed(out(), lines if every else lines[-last:], found["total_count"], stream_id)


def replay(
    reference: Id,
    to: Annotated[
        int | None,
        typer.Option(metavar="N", help="Show the state after event N. Default: the last event."),
    ] = None,
    diff: Annotated[
        str | None,
        typer.Option(
            metavar="A:B",
            help="Show what changed from the state after event A to that after event B.",
        ),
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Show event by event what each one changed.")
    ] = False,
    heartbeats: Annotated[
        bool,
        typer.Option(
            "--heartbeats", help="With --each: show every heartbeat as a step of its own."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the state after any event of a stream, or what changed between two events."""
    with connected(as_json, patience=WALK_SECONDS) as client:
        start, end = _range(to, diff, each)
        stream_id = naming.stream_of(client, reference)
        found = client.history.replay(stream_id, end, start)
        if each:
            return _walk(client, stream_id, start, found["events_replayed"], heartbeats, as_json)
    if as_json:
        return print_json(found)
    from holdfast.cli.show import events as show

    if start is not None:
        return show.difference(out(), stream_id, found.get("diff") or {})
    return show.state(out(), stream_id, found)


def _range(to: int | None, diff: str | None, each: bool) -> tuple[int | None, int | None]:
    """The event to start after, and the last one."""
    if diff is None:
        return None, to
    if to is not None:
        raise InvalidInput("Use either --to or --diff: --diff A:B ends with event B.")
    start, colon, end = diff.partition(":")
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise InvalidInput(
            f"--diff: {diff!r} is not of the form A:B, with the numbers of two events."
        )
    if each and int(start) >= int(end):
        raise InvalidInput("With --each, B of --diff A:B must be greater than A.")
    return int(start), int(end)


def _walk(
    client: Client,
    stream_id: str,
    start: int | None,
    end: int,
    heartbeats: bool,
    as_json: bool,
) -> None:
    """Print the events after ``start`` up to ``end``, each with what it changed."""
    found = gathered(
        lambda **page: client.history.events(stream_id, **page),
        "events",
        page=EVENTS_AT_ONCE,
        most=end,
    )["events"]
    steps = runs(found[start or 0 :], heartbeats)
    if not as_json:
        from holdfast.cli.show import events as show

        return show.walk(out(), (_step(client, stream_id, step) for step in steps), end)
    walked = []
    with progress("replay") as advance:
        for step in steps:
            walked.append(_step(client, stream_id, step)._asdict())
            advance(len(walked), len(steps))
    return print_json(walked)


def _step(client: Client, stream_id: str, events: list[Event]) -> Step:
    before, after = events[0]["sequence_num"] - 1, events[-1]["sequence_num"]
    return Step(events, _changed(client, stream_id, before, after))


def _changed(client: Client, stream_id: str, before: int, after: int) -> dict[str, Any]:
    if before:
        found = client.history.replay(stream_id, after, before)
        changed = (found.get("diff") or {}).get("changed")
        return changed if isinstance(changed, dict) else {}
    state = client.history.replay(stream_id, after)["final_state"]
    return {path: [None, value] for path, value in flat(state)}
