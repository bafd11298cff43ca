"""``holdfast events`` and ``replay``: what happened, and what it came to (S2)."""

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
        help="An instance, session, work item or machine: its id, a part that fits only one,"
        " or a stream's id.",
    ),
]


class Step(NamedTuple):
    """An event, or heartbeats in a row, and what changed: paths to the old and the new value."""

    events: list[Event]
    changed: dict[str, Any]


def events(
    reference: Id,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type; may be repeated."),
    ] = None,
    keyword: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only events with this text in their data.")
    ] = None,
    since: Annotated[
        str | None, typer.Option(metavar="TIME", help="Only since then: 2026-01-31T12:00:00Z.")
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="Only until then.")] = None,
    last: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="The last so many; heartbeats in a row are one line."
        ),
    ] = LAST,
    every: Annotated[bool, typer.Option("--all", help="All of them.")] = False,
    heartbeats: Annotated[
        bool, typer.Option("--heartbeats", help="A line for each heartbeat.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show what an instance, session, item or machine did.

    Lines are cut to the terminal's width; --json has everything.
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
    # Newest first, what is recorded meanwhile moves the pages: an event may come twice.
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
        int | None, typer.Option(metavar="N", help="As it was after event N; default the last.")
    ] = None,
    diff: Annotated[
        str | None, typer.Option(metavar="A:B", help="What changed between events A and B.")
    ] = None,
    each: Annotated[
        bool, typer.Option("--each", help="Walk: event by event, and what each changed.")
    ] = False,
    heartbeats: Annotated[
        bool, typer.Option("--heartbeats", help="With --each: every heartbeat is a step.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show the state at any point of a history, or what changed."""
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
    """From after which event to which."""
    if diff is None:
        return None, to
    if to is not None:
        raise InvalidInput("--to and --diff exclude each other: --diff A:B ends with event B.")
    start, colon, end = diff.partition(":")
    if not (colon and start.isdecimal() and end.isdecimal()):
        raise InvalidInput(f"--diff: {diff!r} is not A:B, two numbers of events.")
    if each and int(start) >= int(end):
        raise InvalidInput("--each goes forward: of --diff A:B, B must be greater.")
    return int(start), int(end)


def _walk(
    client: Client,
    stream_id: str,
    start: int | None,
    end: int,
    heartbeats: bool,
    as_json: bool,
) -> None:
    """The events after ``start`` and up to ``end``, each with what it changed."""
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
