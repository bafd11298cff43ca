"""Prints events and states."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from holdfast import moments
from holdfast.cli.folding import HEARTBEATS, PLACE, flat, is_about_a_place, is_empty
from holdfast.cli.screen import ENDLESS_COLUMNS
from holdfast.cli.show.attention import SHORT
from holdfast.cli.show.table import without_middle
from holdfast.cli.show.words import clock
from holdfast.cli.text import compact, dumped, safe
from holdfast.types import Event, Replay

Json = Mapping[str, Any]

# How an event went shows in the last word of its name.
OUTCOMES = {
    "heartbeat": "dim",
    "completed": "green",
    "passed": "green",
    "merged": "green",
    "failed": "red",
    "stale": "red",
    "stalled": "red",
    "lost": "red",
    "over": "yellow",
    "requested": "yellow",
}
# They change with every event, and say nothing that its line does not.
RESTATED = frozenset(
    {"id", "version", "updated_at", "last_event_type", "latest_timestamp", "total_events_replayed"}
)
# The latest event of each type (they have lines of their own), what suggestions come from, places.
INTERNAL = ("latest.", "standing.", f"held.{PLACE}")
# Which event a field is from.
COUNTERS = "_num"
NOTHING = "∅"
STREAM_WIDTH = 24
# What is recorded at once takes less.
LATE_SECONDS = 5.0


def listed(console: Console, runs: Sequence[Sequence[Event]], total: int, stream_id: str) -> None:
    """Print a stream's events, a line for each; a run of heartbeats is one line with its last."""
    digits = len(str(max((run[-1]["sequence_num"] for run in runs), default=0)))
    for run in runs:
        _print(console, _numbered(run, digits))
    shown = sum(map(len, runs))
    if not runs:
        console.print(f"{safe(stream_id)} has no such events.")
    elif total > shown:
        console.print(f"The last {shown} of {total} events. --all prints all.", style="dim")


def happened(console: Console, event: Event) -> None:
    """Print an event with the stream that it belongs to."""
    when = Text(clock(event["timestamp"]), "dim")
    whose = Text(_stream(event["stream_id"]), "bold")
    if console.width < ENDLESS_COLUMNS:
        whose = without_middle(whose, STREAM_WIDTH)
    whose.append(" " * (STREAM_WIDTH - whose.cell_len))
    _print(console, Text("  ").join([when, whose, _event(event)]))


def state(console: Console, stream_id: str, replay: Replay) -> None:
    """Print a state, a line for each field that has a value."""
    folded = replay["final_state"]
    console.print(
        Text.assemble(
            (safe(stream_id), "bold"),
            f" after event {replay['events_replayed']},",
            f" {safe(folded.get('last_event_type'))} at {_at(folded.get('latest_timestamp'))}",
        ),
        soft_wrap=True,
    )
    fields = {path: value for path, value in flat(folded) if _tells(path)}
    width = max(map(len, fields), default=0)
    for path, value in fields.items():
        _print(
            console, Text.assemble("  ", (f"{safe(path):<{width}}", "cyan"), f"  {_value(value)}")
        )


def difference(console: Console, stream_id: str, diff: Json) -> None:
    """Print what changed between two events."""
    console.print(
        Text.assemble(
            (safe(stream_id), "bold"),
            f" from event {safe(diff.get('from'))} to {safe(diff.get('to'))}",
        ),
        soft_wrap=True,
    )
    changes(console, diff.get("changed"), margin=2)


def walk(console: Console, steps: Iterable[tuple[Sequence[Event], Json]], last: int) -> None:
    """Print each event, or run of heartbeats, with what it changed, as soon as that is known."""
    digits = len(str(last))
    for run, changed in steps:
        if is_about_a_place(run[-1]):
            continue
        _print(console, _numbered(run, digits))
        changes(console, changed, margin=digits + 3, from_nothing=run[0]["sequence_num"] == 1)


def changes(console: Console, changed: object, margin: int, *, from_nothing: bool = False) -> None:
    """What changed, a line for each field: the old value and the new one.

    The old ones are left out where there was nothing at all.
    """
    told = {
        path: values
        for path, values in (changed.items() if isinstance(changed, dict) else ())
        if _tells(path) and _is_pair(values) and not all(map(is_empty, values))
    }
    width = max(map(len, told), default=0)
    for path, (old, new) in told.items():
        line = Text.assemble(" " * margin, (f"{safe(path):<{width}}", "cyan"), "  ")
        if not from_nothing:
            line.append(_value(old), "red").append(" → ", "dim")
        _print(console, line.append(_value(new), "green"))
    if not told:
        _print(console, Text(" " * margin + "no change", "dim"))


def _numbered(run: Sequence[Event], digits: int) -> Text:
    """A line with the last event of a run, and how many events the run has."""
    event = run[-1]
    number = Text(f"#{event['sequence_num']:<{digits}}", "dim")
    note = f"  ({len(run)} since #{run[0]['sequence_num']})" if len(run) > 1 else ""
    when = Text(clock(event["timestamp"]), "dim")
    return Text("  ").join([number, when, _event(event, note)])


def _event(event: Event, note: str = "") -> Text:
    kind = event["event_type"]
    told = Text(safe(kind), OUTCOMES.get(kind.rpartition("_")[2], ""))
    told.append(note, "dim").append(_earlier(event), "yellow")
    return told.append(f"  {compact(event['event_data'])}", "dim" if kind in HEARTBEATS else "")


def _earlier(event: Event) -> str:
    """The time by the client's clock at which the event happened, if it was recorded later."""
    told = event["metadata"].get("occurred_at")
    then, at = moments.read(told), moments.read(event["timestamp"])
    if then is None or at is None or (at - then).total_seconds() < LATE_SECONDS:
        return ""
    return f"  (happened at {clock(str(told))})"


def _is_pair(values: object) -> bool:
    return isinstance(values, list) and len(values) == 2


def _at(timestamp: object) -> str:
    return clock(timestamp) if isinstance(timestamp, str) else safe(timestamp)


def _stream(stream_id: str) -> str:
    category, _, key = stream_id.partition("-")
    if category == "instance":
        return safe(key)
    return f"{category} {safe(key[:SHORT] if category == 'session' else key)}"


def _print(console: Console, line: Text) -> None:
    """Print a line, which is cut on a terminal only."""
    cut = console.width < ENDLESS_COLUMNS
    console.print(line, no_wrap=True, overflow="ellipsis" if cut else "ignore", crop=cut)


def _tells(path: str) -> bool:
    return not (path in RESTATED or path.startswith(INTERNAL) or path.endswith(COUNTERS))


def _value(value: Any) -> str:
    if is_empty(value):
        return NOTHING
    return safe(value) if isinstance(value, str) else dumped(value, indent=None)
