"""``holdfast watch``: new events as they are recorded."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from holdfast.cli.failing import note
from holdfast.cli.folding import HEARTBEATS, is_about_a_place
from holdfast.cli.options import AsJson
from holdfast.cli.screen import out, print_json
from holdfast.cli.service import connected, head
from holdfast.errors import Unavailable

if TYPE_CHECKING:
    from holdfast.client import Client
    from holdfast.types import Event

EVENTS_AT_ONCE = 1_000
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 5.0


def watch(
    after: Annotated[
        int | None,
        typer.Option(
            metavar="POSITION", min=0, help="Start after this position instead of with new events."
        ),
    ] = None,
    kinds: Annotated[
        list[str] | None,
        typer.Option("--type", metavar="TYPE", help="Only events of this type. Can be repeated."),
    ] = None,
    heartbeats: Annotated[bool, typer.Option("--heartbeats", help="Include heartbeats.")] = False,
    every: Annotated[
        bool,
        typer.Option(
            "--all", help="Include heartbeats, and the claims by which sessions hold their places."
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print new events as they are recorded, until Ctrl-C.

    If the service goes away, the command waits and then continues without a gap. With --json it
    prints one event per line.
    """
    try:
        with connected(as_json, retries=0) as client:
            # If the service is away at the start, end at once instead of waiting.
            client.health()
            position = head(client) if after is None else after
            show = _printer(as_json)
            beats = heartbeats or every or bool(kinds)
            for event in _events(client, position, kinds or []):
                is_beat = event["event_type"] in HEARTBEATS
                if beats if is_beat else every or not is_about_a_place(event):
                    show(event)
    except KeyboardInterrupt:
        return


def _printer(as_json: bool) -> Callable[[Event], None]:
    if as_json:
        return partial(print_json, indent=None)
    from holdfast.cli.show.events import happened

    return partial(happened, out())


def _events(client: Client, position: int, kinds: list[str]) -> Iterator[Event]:
    """Every event after a position, each once, even if the service goes away in between."""
    from holdfast.api.history import LONG_POLL_SECONDS

    failures = 0
    while True:
        try:
            page = client.history.after(
                position, limit=EVENTS_AT_ONCE, event_type=kinds, wait=LONG_POLL_SECONDS
            )
        except Unavailable as error:
            if failures == 0:
                _say("The service is away. Waiting for it.")
            pause = min(FIRST_PAUSE_SECONDS * 2**failures, LONGEST_PAUSE_SECONDS)
            failures = min(failures + 1, 10)
            time.sleep(max(pause, error.retry_after or 0))
            continue
        if failures:
            _say(f"The service is back. Continuing after position {position}.")
            failures = 0
        yield from page["events"]
        position = page["next_position"]


def _say(what: str) -> None:
    note(what)
